"""A local CLIP behind the interface: an opaque, jit-able black box, whatever files its two towers came from.

A loader (`flax_clip`, `open_clip`) reads the files into `ClipParts`; `assemble` puts them behind the interface.
Predictions are the model's own logits: its logit scale times the cosine of image and text features.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, UInt8

from craft_jax.blackbox.interface import SOFT_PROMPTS, TEXTS, Description, Handle, opaque
from craft_jax.blackbox.texts import TextDoor, captions_of
from craft_jax.blackbox.towers import text
from craft_jax.blackbox.towers.blocks import Params
from craft_jax.config import BUNDLED
from craft_jax.data import pixels
from craft_jax.errors import UserError
from craft_jax.precision import AUTO, products


class TextSettings(NamedTuple):
    """What the text encoder's parameters do not say.

    Attributes:
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      context_length: longest caption in tokens, with SOS and EOS.
      eos_token: the token whose first position is pooled; None pools at the highest token id, as OpenAI's models do.
    """

    heads: int
    epsilon: float
    activation: Callable[[Array], Array]
    context_length: int
    eos_token: int | None


class ClipParts(NamedTuple):
    """A CLIP as a loader reads it.

    Attributes:
      image_features: from (image_params, normalised pixels [N, size, size, 3]) to features [N, p], not normalised.
      image_params: of the image tower and its projection, float32.
      text_params: FlaxCLIPModel's `text_model`, `text_projection` and `logit_scale`, float32.
      text: the rest of the text encoder.
      pixel_mean, pixel_std: of each RGB channel, for values between 0 and 1.
      image_size: side of the square images.
      tokenizer: from a caption to `input_ids` with SOS and EOS.
      weights: all parameters as the files hold them, for the fingerprint.
      resizing: how photographs are resized before the squares are cut out of them.
    """

    image_features: Callable[[Any, Array], Array]
    image_params: Any
    text_params: Any
    text: TextSettings
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    image_size: int
    tokenizer: Any
    weights: Any
    resizing: pixels.Resizing = pixels.USUAL


class ClipBlackBox(Description):
    """A CLIP that answers queries; see `interface.BlackBox` for its interface. Build it with `blackbox.load`.

    Its identity is model name, template, dtype and a fingerprint of parameters and preprocessing; its initial prompt
    the embedded words of the template before the class name.

    Every other attribute is the owner's side of the interface and no business of the caller's.
    """

    _text: text.TextTower
    _image_params: Any
    _logit_scale: Array
    _pixel_mean: Array
    _pixel_std: Array
    _image_features: Callable[[Any, Array], Array] = struct.field(pytree_node=False)
    _texts: TextDoor = struct.field(pytree_node=False)
    _precision: str = struct.field(pytree_node=False, default=AUTO)

    @property
    def takes(self) -> frozenset[str]:
        """Both kinds of prompts."""
        return frozenset({SOFT_PROMPTS, TEXTS})

    def encode_images(self, images: UInt8[Array | np.ndarray, "N size size 3"]) -> Handle:
        """Takes uint8 RGB images in; nothing crosses back but an opaque handle."""
        return _encode_images(self, images)

    def predict(
        self, prompts: Float[Array, "K n_ctx d"] | Float[Array, "K C n_ctx d"], handle: Handle
    ) -> Float[Array, "K N C"]:
        """The logits of N images under each of K soft prompts, or K sets of one soft prompt a class; float32."""
        return _predict(self, prompts, handle)

    def predict_texts(self, texts: Sequence[str], handle: Handle) -> Float[Array, "N T"]:
        """The logits of N images for each of T texts, which are whole captions; float32.

        Raises:
          UserError: where there are no texts, or one has more tokens than the model takes.
        """
        return _compare(self._logit_scale, self._texts.features(self._text, texts), handle)

    def predict_for_study(self, prompts: Array, handle: Handle) -> Float[Array, "K N C"]:
        """`predict` with the door open: the same logits, but a gradient goes through. No API offers this."""
        return _logits(self, prompts, handle)


@jax.jit
@opaque
def _encode_images(black_box: ClipBlackBox, images: Array) -> Handle:
    with products(black_box._precision, black_box._text.dtype):
        mean, std = (values[None, None, None] for values in (black_box._pixel_mean, black_box._pixel_std))
        pixels = (images.astype(jnp.float32) / 255 - mean) / std
        features = black_box._image_features(black_box._image_params, pixels).astype(jnp.float32)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def _logits(black_box: ClipBlackBox, prompts: Array, handle: Handle) -> Array:
    with products(black_box._precision, black_box._text.dtype):
        tower = black_box._text
        text = tower.features(prompts) if prompts.ndim == 3 else tower.class_features(prompts)
        return jnp.exp(black_box._logit_scale) * jnp.einsum("np,kcp->knc", handle, text)


@jax.jit
@opaque
def _predict(black_box: ClipBlackBox, prompts: Array, handle: Handle) -> Array:
    return _logits(black_box, prompts, handle)


@jax.jit
@opaque
def _compare(logit_scale: Array, text: Array, handle: Handle) -> Array:
    with jax.default_matmul_precision("float32"):
        return jnp.exp(logit_scale) * (handle @ text.T)


def assemble(parts: ClipParts, model: str, class_names: Sequence[str], template: str, dtype: str) -> ClipBlackBox:
    """Puts a CLIP behind the interface.

    Args:
      parts: as a loader read them.
      model: where they came from, for the black box's identity.
      class_names: C names as they should be read, one per label.
      template: caption of a class; the words before `{}` start the soft prompt.
      dtype: that the text tower computes in; the loader was given the image tower's.

    Raises:
      UserError: where a caption does not fit, or the template's words run into a class name.
    """
    tokenize = functools.partial(_tokenize, parts)
    captions, n_ctx = captions_of(tokenize, class_names, template)
    tokens = parts.text_params["text_model"]["embeddings"]["token_embedding"]["embedding"]
    return ClipBlackBox(
        _text=arrange_text(parts.text_params, parts.text, captions, n_ctx, dtype),
        _image_params=parts.image_params,
        _logit_scale=parts.text_params["logit_scale"],
        _initial_prompt=tokens[np.array(captions[0][1 : n_ctx + 1])],
        _pixel_mean=jnp.array(parts.pixel_mean, jnp.float32),
        _pixel_std=jnp.array(parts.pixel_std, jnp.float32),
        _image_features=parts.image_features,
        _image_size=parts.image_size,
        _resizing=parts.resizing,
        _texts=TextDoor(
            tokenize,
            tokens,
            parts.text_params["text_model"]["embeddings"]["position_embedding"]["embedding"],
        ),
        _class_names=tuple(class_names),
        _identity=(
            ("model", model if model == BUNDLED or not os.path.exists(model) else os.path.abspath(model)),
            ("template", template),
            ("dtype", dtype),
            ("fingerprint", _fingerprint(_all_that_answers_depend_on(parts))),
        ),
    )


def _tokenize(parts: ClipParts, caption: str) -> list[int]:
    """Token ids up to the position that the model pools at."""
    ids = parts.tokenizer(caption, verbose=False)["input_ids"]  # we say ourselves where one is too long
    if len(ids) > parts.text.context_length:
        raise UserError(
            f"the caption {caption!r} has {len(ids)} tokens and the model takes {parts.text.context_length}; "
            "shorten the class name or black_box.template"
        )
    if parts.text.eos_token is not None and parts.text.eos_token not in ids:
        raise UserError(
            f"config.json pools texts at eos_token_id={parts.text.eos_token}, which the model's tokenizer never "
            f"gives (it ends with {ids[-1]}); correct eos_token_id, or bring the tokenizer that belongs to the model"
        )
    pooled = np.argmax(ids) if parts.text.eos_token is None else np.argmax(np.array(ids) == parts.text.eos_token)
    return ids[: int(pooled) + 1]


def arrange_text(
    params: Params, settings: TextSettings, captions: list[list[int]], n_ctx: int, dtype: str
) -> text.TextTower:
    """The text tower for captions that are token ids, from SOS to the position that is pooled."""
    return text.build(
        params,
        suffixes=[caption[n_ctx + 1 :] for caption in captions],
        sos_token=captions[0][0],
        n_ctx=n_ctx,
        heads=settings.heads,
        epsilon=settings.epsilon,
        activation=settings.activation,
        dtype=dtype,
    )


def _all_that_answers_depend_on(parts: ClipParts) -> list[Any]:
    everything = [parts.weights, list(parts.pixel_mean), list(parts.pixel_std)]
    # Fingerprints of models that prepare images as usual are as they were before there were others.
    return everything if parts.resizing == pixels.USUAL else [*everything, list(parts.resizing)]


def _fingerprint(everything: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(everything):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
