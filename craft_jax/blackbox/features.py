"""A local CLIP or SigLIP for whoever owns its weights: features, where callers of the interface see logits alone.

Export alone uses it; nothing that is learnt goes through here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.blackbox.interface import BlackBox
from craft_jax.errors import UserError
from craft_jax.precision import products


class Features(NamedTuple):
    """What a CLIP or SigLIP is inside.

    Attributes:
      image_features: normalised features [N, p] of pixels [N, size, size, 3] from 0 to 1; pure, to be traced.
      class_features: normalised features [C, p] of the classes under a soft prompt [n_ctx, d] or [C, n_ctx, d].
      text_features: normalised features [T, p] of T captions.
      scale: what cosines are multiplied with for logits, the exponential of `logit_scale`; SigLIP's bias, one constant
        for all, is left out.
      pixel_mean, pixel_std: of each RGB channel, for pixels from 0 to 1.
    """

    image_features: Callable[[Float[Array, "N size size 3"]], Float[Array, "N p"]]
    class_features: Callable[[Any], Float[Array, "C p"]]
    text_features: Callable[[Sequence[str]], Float[Array, "T p"]]
    scale: float
    pixel_mean: list[float]
    pixel_std: list[float]


def features_of(black_box: BlackBox) -> Features:
    """The features of a local CLIP or SigLIP.

    Raises:
      UserError: where the weights are not here, but with whoever answers over a network or from Python.
    """
    if not isinstance(black_box, ClipBlackBox):
        raise UserError(
            f"{black_box.identity['model']} answers from elsewhere and its weights are not here; a run of a local "
            "model can be exported, and any run answers by craft-jax predict"
        )
    clip = black_box

    def image_features(pixels: Array) -> Array:
        with products(clip._precision, clip._text.dtype):
            mean, std = (values[None, None, None] for values in (clip._pixel_mean, clip._pixel_std))
            normalised = (pixels.astype(jnp.float32) - mean) / std
            features = clip._image_features(clip._image_params, normalised).astype(jnp.float32)
            return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    def class_features(prompt: Any) -> Array:
        candidate = jnp.asarray(prompt)[None]
        with products(clip._precision, clip._text.dtype):
            encode = clip._text.features if candidate.ndim == 3 else clip._text.class_features
            return jax.jit(encode)(candidate)[0]

    return Features(
        image_features,
        class_features,
        lambda texts: clip._texts.features(clip._text, texts),
        float(jnp.exp(clip._logit_scale)),
        [float(value) for value in clip._pixel_mean],
        [float(value) for value in clip._pixel_std],
    )
