"""A local CLIP or SigLIP behind the interface: an opaque, jit-able black box, whatever its two towers came from.

A loader (`flax_clip`, `siglip`, `open_clip`) reads files into `ClipParts`; `assemble` puts them behind the interface.
Predictions are the model's own logits: its logit scale times the cosine of image and text features, plus SigLIP's bias.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, UInt8

from craft_jax.blackbox.interface import SOFT_PROMPTS, TEXTS, Description, Handle, opaque
from craft_jax.blackbox.texts import TextDoor, TextTower, Tokenization, captions_of, check_length
from craft_jax.blackbox.towers import text
from craft_jax.blackbox.towers.blocks import Params
from craft_jax.config import BUNDLED
from craft_jax.data import pixels
from craft_jax.errors import UserError
from craft_jax.precision import AUTO, products


class TextEncoder(Protocol):
    """A kind of text encoder: how it reads captions, and how its parameters are arranged for them."""

    def tokenization(self, tokenizer: Any) -> Tokenization:
        """How captions become tokens, by the model's tokenizer."""

    def tower(self, params: Params, captions: list[list[int]], n_ctx: int, dtype: str) -> TextTower:
        """The tower for captions that are token ids, of which a soft prompt takes the place of `n_ctx`."""


class TextSettings(NamedTuple):
    """CLIP's text encoder: what its parameters do not say.

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

    def tokenization(self, tokenizer: Any) -> Tokenization:
        """From a tokenizer that gives `input_ids` with SOS and EOS."""

        def caption(text: str) -> list[int]:
            return _up_to_the_pooled(self, tokenizer, text)

        return Tokenization(caption, words=lambda text: caption(text)[:-1], first=1)

    def tower(self, params: Params, captions: list[list[int]], n_ctx: int, dtype: str) -> text.TextTower:
        """Of FlaxCLIPModel's parameters, for captions from SOS to the position that is pooled."""
        return text.build(
            params,
            suffixes=[caption[n_ctx + 1 :] for caption in captions],
            sos_token=captions[0][0],
            n_ctx=n_ctx,
            heads=self.heads,
            epsilon=self.epsilon,
            activation=self.activation,
            dtype=dtype,
        )


class ClipParts(NamedTuple):
    """A CLIP or SigLIP as a loader reads it.

    Attributes:
      image_features: from (image_params, normalised pixels [N, size, size, 3]) to features [N, p], not normalised.
      image_params: of the image tower and its projection, float32.
      text_params: FlaxCLIPModel's `text_model`, `text_projection` and `logit_scale`; or SigLIP's `text_model`,
        `logit_scale` and `logit_bias`; float32.
      text: the rest of the text encoder.
      pixel_mean, pixel_std: of each RGB channel, for values between 0 and 1.
      image_size: side of the square images.
      tokenizer: as the text encoder's `tokenization` takes it.
      weights: all parameters as the files hold them, for the fingerprint.
      resizing: how photographs are resized before the squares are cut out of them.
    """

    image_features: Callable[[Any, Array], Array]
    image_params: Any
    text_params: Any
    text: TextEncoder
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    image_size: int
    tokenizer: Any
    weights: Any
    resizing: pixels.Resizing = pixels.USUAL


class ClipBlackBox(Description):
    """A CLIP or SigLIP that answers queries; see `interface.BlackBox` for its interface. Build it with `blackbox.load`.

    Its identity is model name, template, dtype and a fingerprint of parameters and preprocessing; its initial prompt
    the embedded words of the template before the class name.

    Every other attribute is the owner's side of the interface and no business of the caller's.
    """

    _text: TextTower
    _image_params: Any
    _logit_scale: Array
    _pixel_mean: Array
    _pixel_std: Array
    _image_features: Callable[[Any, Array], Array] = struct.field(pytree_node=False)
    _texts: TextDoor = struct.field(pytree_node=False)
    _precision: str = struct.field(pytree_node=False, default=AUTO)
    _logit_bias: Array | None = None  # of SigLIP, which scores each pair of image and text by itself

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
        return _compare(self, self._texts.features(self._text, texts), handle)

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
        return _scaled(black_box, jnp.einsum("np,kcp->knc", handle, text))


def _scaled(black_box: ClipBlackBox, cosines: Array) -> Array:
    logits = jnp.exp(black_box._logit_scale) * cosines
    return logits if black_box._logit_bias is None else logits + black_box._logit_bias


@jax.jit
@opaque
def _predict(black_box: ClipBlackBox, prompts: Array, handle: Handle) -> Array:
    return _logits(black_box, prompts, handle)


@jax.jit
@opaque
def _compare(black_box: ClipBlackBox, text: Array, handle: Handle) -> Array:
    with jax.default_matmul_precision("float32"):
        return _scaled(black_box, handle @ text.T)


def assemble(parts: ClipParts, model: str, class_names: Sequence[str], template: str, dtype: str) -> ClipBlackBox:
    """Puts a CLIP or SigLIP behind the interface.

    Args:
      parts: as a loader read them.
      model: where they came from, for the black box's identity.
      class_names: C names as they should be read, one per label.
      template: caption of a class; the words before `{}` start the soft prompt.
      dtype: that the text tower computes in; the loader was given the image tower's.

    Raises:
      UserError: where a caption does not fit, or the template's words run into a class name.
    """
    tokenization = parts.text.tokenization(parts.tokenizer)
    captions = captions_of(tokenization, class_names, template)
    embeddings = parts.text_params["text_model"]["embeddings"]
    tokens = embeddings["token_embedding"]["embedding"]
    return ClipBlackBox(
        _text=parts.text.tower(parts.text_params, captions.ids, captions.n_ctx, dtype),
        _image_params=parts.image_params,
        _logit_scale=parts.text_params["logit_scale"],
        _logit_bias=parts.text_params.get("logit_bias"),
        _initial_prompt=tokens[np.array(captions.prompt)],
        _pixel_mean=jnp.array(parts.pixel_mean, jnp.float32),
        _pixel_std=jnp.array(parts.pixel_std, jnp.float32),
        _image_features=parts.image_features,
        _image_size=parts.image_size,
        _resizing=parts.resizing,
        _texts=TextDoor(tokenization, tokens, embeddings["position_embedding"]["embedding"]),
        _class_names=tuple(class_names),
        _identity=(
            ("model", model if model == BUNDLED or not os.path.exists(model) else os.path.abspath(model)),
            ("template", template),
            ("dtype", dtype),
            ("fingerprint", _fingerprint(_all_that_answers_depend_on(parts))),
        ),
    )


def _up_to_the_pooled(settings: TextSettings, tokenizer: Any, caption: str) -> list[int]:
    """Token ids up to the position that CLIP pools at."""
    ids = tokenizer(caption, verbose=False)["input_ids"]  # we say ourselves where one is too long
    check_length(caption, len(ids), settings.context_length)
    eos = settings.eos_token
    if eos is not None and eos not in ids:
        raise UserError(
            f"config.json pools texts at eos_token_id={eos}, which the model's tokenizer never "
            f"gives (it ends with {ids[-1]}); correct eos_token_id, or bring the tokenizer that belongs to the model"
        )
    pooled = np.argmax(ids) if eos is None else np.argmax(np.array(ids) == eos)
    return ids[: int(pooled) + 1]


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
