"""How far a soft prompt may be moved before predictions stop following linearly: the scale of the search, by queries.

Perturbations of growing size are asked for in antithetic pairs around the unlearnt prompt. Their odd part is what an
antithetic estimate lives on; their even part is curvature, which tells it nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.config import CALIBRATION_PROMPTS

RUNGS = (CALIBRATION_PROMPTS - 1) // 2
IMAGES = 256
_LOWEST = 1 / 16  # of p0's root mean square
_CURVATURE = 0.5  # largest even part, as a share of the odd part


def evenly_spaced(images: int) -> np.ndarray:
    """Which of N images to ask about: at most `IMAGES`, from all over a list that goes class by class."""
    count = min(images, IMAGES)
    return np.arange(count) * images // max(count, 1)


def perturbed(key: Array, start: Float[Array, "n_ctx d"], classes: int) -> Float[Array, "K ..."]:
    """The prompts to ask for: p0, then for each size p0 + e and p0 - e; [K, n_ctx, d], per class [K, C, n_ctx, d]."""
    shape = (classes, *start.shape) if classes else start.shape
    e = sizes(start).reshape(-1, *[1] * len(shape)) * jax.random.normal(key, (RUNGS, *shape))
    first = jnp.broadcast_to(start, shape)[None]
    pairs = jnp.stack([first + e, first - e], axis=1).reshape(-1, *shape)
    return jnp.concatenate([first, pairs])


def sizes(start: Float[Array, "n_ctx d"]) -> Float[Array, " rungs"]:
    """Standard deviations of the perturbations, each twice the one before."""
    return _LOWEST * jnp.sqrt(jnp.mean(start**2)) * 2.0 ** jnp.arange(RUNGS)


def scale(start: Float[Array, "n_ctx d"], logits: Float[Array, "K N C"]) -> float:
    """The largest size, from the smallest up, whose even part is at most half its odd part; the smallest if none is.

    Args:
      start: p0.
      logits: the answers to `perturbed`.
    """
    shares = curvature(logits)
    linear = jnp.cumprod(shares <= _CURVATURE).sum()
    return float(sizes(start)[jnp.maximum(linear - 1, 0)])


def curvature(logits: Float[Array, "K N C"]) -> Float[Array, " rungs"]:
    """Root mean square of the even part over that of the odd part, by size; of logits less their mean over classes."""
    centred = logits - logits.mean(axis=-1, keepdims=True)
    centre, pairs = centred[0], centred[1:].reshape(RUNGS, 2, *centred.shape[1:])
    odd = (pairs[:, 0] - pairs[:, 1]) / 2
    even = (pairs[:, 0] + pairs[:, 1]) / 2 - centre[None]
    return _rms(even) / _rms(odd)


def _rms(x: Float[Array, "rungs N C"]) -> Float[Array, " rungs"]:
    return jnp.sqrt(jnp.mean(x**2, axis=(1, 2)))
