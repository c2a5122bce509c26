"""A local CLIP behind the wall: transformers' FlaxCLIPModel as an opaque, jit-able black box.

Image features come from the public class; text features from `text_tower`, which is tested against it. Predictions are
the model's own logits: its logit_scale times the cosine of image and text features.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, UInt8

from craft_jax.blackbox import text_tower
from craft_jax.blackbox.wall import Handle, opaque
from craft_jax.config import BUNDLED
from craft_jax.errors import UserError

BUNDLED_MODEL = Path(__file__).parent.parent / "assets" / "tiny_clip"
_LEGACY_EOS = 2  # transformers' mark of configurations whose eos_token_id is wrong: they pool at the highest token id


class FlaxCLIPBlackBox(struct.PyTreeNode):
    """A FlaxCLIPModel that answers queries; see `wall.BlackBox` for its interface. Build it with `load`.

    Every other attribute is the owner's side of the wall and no business of the caller's.
    """

    _text: text_tower.TextTower
    _params: Any
    _initial_prompt: Array
    _pixel_mean: Array
    _pixel_std: Array
    _image_features: Callable[[Any, Array], Array] = struct.field(pytree_node=False)
    _image_size: int = struct.field(pytree_node=False)
    _class_names: tuple[str, ...] = struct.field(pytree_node=False)
    _identity: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False)

    @property
    def identity(self) -> dict[str, Any]:
        """Model name, template, dtype and a fingerprint of parameters and preprocessing."""
        return dict(self._identity)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the logits."""
        return self._class_names

    @property
    def image_size(self) -> int:
        """Side of the square images that it takes, in pixels."""
        return self._image_size

    @property
    def initial_prompt(self) -> Float[Array, "n_ctx d"]:
        """The embedded words of the template before the class name."""
        return self._initial_prompt

    def encode_images(self, images: UInt8[np.ndarray, "N size size 3"]) -> Handle:
        """Takes uint8 RGB images in; nothing crosses back but an opaque handle."""
        return _encode_images(self, images)

    def predict(self, prompts: Float[Array, "K n_ctx d"], handle: Handle) -> Float[Array, "K N C"]:
        """The logits of N images under each of K soft prompts, float32."""
        return _predict(self, prompts, handle)


@jax.jit
@opaque
def _encode_images(black_box: FlaxCLIPBlackBox, images: Array) -> Handle:
    with jax.default_matmul_precision("float32"):
        pixels = (images.astype(jnp.float32) / 255 - black_box._pixel_mean) / black_box._pixel_std
        features = black_box._image_features(black_box._params, pixels).astype(jnp.float32)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


@jax.jit
@opaque
def _predict(black_box: FlaxCLIPBlackBox, prompts: Array, handle: Handle) -> Array:
    with jax.default_matmul_precision("float32"):
        text = black_box._text.features(prompts)
        return jnp.exp(black_box._params["logit_scale"]) * jnp.einsum("np,kcp->knc", handle, text)


def load(
    model: str, class_names: Sequence[str], template: str = "a photo of a {}.", dtype: str = "float32"
) -> FlaxCLIPBlackBox:
    """Loads a CLIP and puts it behind the wall.

    Args:
      model: `bundled`, a folder in the transformers layout, or a hub name.
      class_names: C distinct names as they should be read, one per label.
      template: caption of a class; the words before `{}` start the soft prompt.
      dtype: that the towers compute in, float32 or bfloat16; predictions are float32 either way.

    Raises:
      UserError: where the model cannot be loaded, two class names are equal, or a caption does not fit.
    """
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if list(class_names).count(name) > 1)
        raise UserError(f"class name {twice!r} occurs twice; rename one of the two classes")
    clip, tokenizer, pixels = _load_pretrained(model, dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), clip.params)
    captions = [_tokenize(tokenizer, template.format(name), clip.config.text_config) for name in class_names]
    context = template.split("{}")[0].rstrip()
    start = tokenizer(context)["input_ids"][:-1]  # without EOS
    n_ctx = len(start) - 1
    for name, caption in zip(class_names, captions, strict=True):
        if caption[: n_ctx + 1] != start:
            raise UserError(f"black_box.template: the words before {{}} run into class name {name!r}; add a space")
    return FlaxCLIPBlackBox(
        _text=_text_tower(clip.config.text_config, params, captions, n_ctx, dtype),
        _params={name: params[name] for name in ("vision_model", "visual_projection", "logit_scale")},
        _initial_prompt=params["text_model"]["embeddings"]["token_embedding"]["embedding"][
            np.array(captions[0][1 : n_ctx + 1])
        ],
        _pixel_mean=jnp.array(pixels.image_mean, jnp.float32),
        _pixel_std=jnp.array(pixels.image_std, jnp.float32),
        _image_features=functools.partial(_image_features, clip.module),
        _image_size=clip.config.vision_config.image_size,
        _class_names=tuple(class_names),
        _identity=(
            ("model", model if model == BUNDLED or not os.path.isdir(model) else os.path.abspath(model)),
            ("template", template),
            ("dtype", dtype),
            ("fingerprint", _fingerprint([clip.params, pixels.image_mean, pixels.image_std])),
        ),
    )


def _load_pretrained(model: str, dtype: str) -> tuple[Any, Any, Any]:
    # transformers takes over a second to import: only whoever loads a model waits for it.
    import transformers

    folder = str(BUNDLED_MODEL) if model == BUNDLED else model
    transformers.logging.set_verbosity_error()
    try:
        clip = _without_random_weights(transformers.FlaxCLIPModel).from_pretrained(folder, dtype=jnp.dtype(dtype))
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
        pixels = transformers.CLIPImageProcessor.from_pretrained(folder)
    except Exception as error:  # the hub client, safetensors, msgpack and JSON each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"black_box.model={model!r} could not be loaded as a FlaxCLIP model ({reason}); give `bundled`, a folder "
            "with config.json, weights, tokenizer and preprocessor_config.json, or a hub name that this machine reaches"
        ) from error
    absent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(clip.params)
        if np.isnan(leaf).all()
    ]
    if absent:
        raise UserError(f"black_box.model={model!r} lacks {len(absent)} weights, among them {absent[0]}; complete it")
    return clip, tokenizer, pixels


def _without_random_weights(model_class: Any) -> Any:
    """The public class without its random initialisation, which takes longer than all else and is overwritten.

    Weights that the files lack stay NaN, where the public class would leave random ones behind a warning.
    """

    class Loaded(model_class):
        def init_weights(self, rng: Array, input_shape: tuple, params: Any = None) -> Any:
            shapes = jax.eval_shape(lambda: super(Loaded, self).init_weights(jax.random.key(0), input_shape))
            return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)

    Loaded.__name__ = model_class.__name__
    return Loaded


def _tokenize(tokenizer: Any, caption: str, config: Any) -> list[int]:
    """Token ids up to the position that the model pools at, by the public class's rule."""
    ids = tokenizer(caption)["input_ids"]
    if len(ids) > config.max_position_embeddings:
        raise UserError(
            f"the caption {caption!r} has {len(ids)} tokens and the model takes {config.max_position_embeddings}; "
            "shorten the class name or black_box.template"
        )
    pooled = np.argmax(ids) if config.eos_token_id == _LEGACY_EOS else np.argmax(np.array(ids) == config.eos_token_id)
    return ids[: int(pooled) + 1]


def _text_tower(config: Any, params: Any, captions: list[list[int]], n_ctx: int, dtype: str) -> text_tower.TextTower:
    from transformers.modeling_flax_utils import ACT2FN

    return text_tower.build(
        params,
        suffixes=[caption[n_ctx + 1 :] for caption in captions],
        sos_token=captions[0][0],
        n_ctx=n_ctx,
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
        activation=ACT2FN[config.hidden_act],
        dtype=dtype,
    )


def _image_features(module: Any, params: Any, pixels: Array) -> Array:
    def project(clip: Any, pixels: Array) -> Array:
        return clip.visual_projection(clip.vision_model(pixel_values=pixels, deterministic=True)[1])

    return module.apply({"params": params}, pixels, method=project)


def _fingerprint(everything: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(everything):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
