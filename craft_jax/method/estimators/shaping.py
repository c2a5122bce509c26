"""Fitness shaping, of one block's antithetic pairs: [P, 2] -> [P, 2], lower is better."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Shaping = Callable[[Array], Array]


def raw_losses(losses: Float[Array, "P 2"]) -> Float[Array, "P 2"]:
    """The losses themselves: the estimate is then one of the gradient."""
    return losses


def centred_ranks(losses: Float[Array, "P 2"]) -> Float[Array, "P 2"]:
    """Ranks among all losses, spread evenly over [-1/2, 1/2]: blind to scale and to outliers.

    References:
      Wierstra et al., Natural evolution strategies, JMLR 2014
    """
    ranks = jnp.argsort(jnp.argsort(losses.ravel())).reshape(losses.shape)
    return ranks / (losses.size - 1) - 0.5


SHAPINGS: dict[str, Shaping] = {"none": raw_losses, "ranks": centred_ranks}
