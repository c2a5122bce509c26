"""Prompt generation: from the few numbers that the search moves to the soft prompt, p(z) = p0 + A z.

Source: CraFT (Wang et al., ICML 2024), after BBT (Sun et al., ICML 2022).
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


class PromptGenerator(struct.PyTreeNode):
    """The map from z to a soft prompt.

    Attributes:
      start: p0, the embedded words of the template, [n_ctx, d].
      projection: A, fixed and Gaussian, [intrinsic_dim, n_ctx, d].
      bound: each coordinate of z is clipped to [-bound, bound]; infinite where z is free.
    """

    start: Float[Array, "n_ctx d"]
    projection: Float[Array, "dim n_ctx d"]
    bound: float = struct.field(pytree_node=False)


def build(
    key: Array, start: Float[Array, "n_ctx d"], *, intrinsic_dim: int, std: float, bound: float
) -> PromptGenerator:
    """Draws A with entries of standard deviation `std`; a `bound` of 0 leaves z free."""
    projection = std * jax.random.normal(key, (intrinsic_dim, *start.shape))
    return PromptGenerator(start=start, projection=projection, bound=bound or float("inf"))


def generate(generator: PromptGenerator, z: Float[Array, "*K dim"]) -> Float[Array, "*K n_ctx d"]:
    """The soft prompts of z."""
    z = jnp.clip(z, -generator.bound, generator.bound)
    return generator.start + jnp.tensordot(z, generator.projection, axes=1, precision="highest")
