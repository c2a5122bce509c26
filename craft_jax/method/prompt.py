"""Prompt generation: from the numbers that the search moves to soft prompts.

Shapes: z is [B, dim]; B = 1 where all classes share a soft prompt [n_ctx, d], B = C where each class has its own,
[C, n_ctx, d]. Source: CraFT (Wang et al., ICML 2024), after BBT (Sun et al., ICML 2022); ZIP for the low-rank form.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


class PromptGenerator(Protocol):
    """A map from z to soft prompts; a pytree."""

    @property
    def origin(self) -> Float[Array, "B dim"]:
        """Where z starts: at the unlearnt prompt."""

    @property
    def per_class(self) -> bool:
        """Whether each class has a soft prompt of its own."""

    def __call__(self, z: Float[Array, "*K B dim"]) -> Float[Array, "*K n_ctx d"] | Float[Array, "*K C n_ctx d"]:
        """The soft prompts of z."""


class LinearPrompt(struct.PyTreeNode):
    """p(z) = p0 + A z, for all classes together or for each class with the same A.

    Attributes:
      start: p0, the embedded words of the template, [n_ctx, d].
      projection: A, fixed, [dim, n_ctx, d].
      bound: each coordinate of z is clipped to [-bound, bound]; infinite where z is free.
      classes: C where each class has a soft prompt of its own; 0 where they share one.
    """

    start: Float[Array, "n_ctx d"]
    projection: Float[Array, "dim n_ctx d"]
    bound: float = struct.field(pytree_node=False)
    classes: int = struct.field(pytree_node=False)

    @property
    def origin(self) -> Float[Array, "B dim"]:
        """The unlearnt prompt, z = 0."""
        return jnp.zeros((self.classes or 1, self.projection.shape[0]))

    @property
    def per_class(self) -> bool:
        """Whether each class has a soft prompt of its own."""
        return self.classes > 0

    def __call__(self, z: Float[Array, "*K B dim"]) -> Array:
        """The soft prompts of z."""
        z = jnp.clip(z, -self.bound, self.bound)
        start = jnp.expand_dims(self.start, tuple(range(z.ndim - 1)))
        prompts = start + jnp.tensordot(z, self.projection, axes=1, precision="highest")
        return prompts if self.per_class else prompts[..., 0, :, :]


class LowRankPrompt(struct.PyTreeNode):
    """ZIP's prompt: token i = p0_i + F_i(W_i) with W = U diag(s) V^T + 1 v^T and fixed random maps F_i.

    Here F_i is a dense Gaussian map, where ZIP has Fastfood's of equal variance, and p0 are the template's words, where
    ZIP's are random. z holds U [n_ctx, rank] = 0, s [rank] = 1, V [m, rank] ~ N(0, 1) and v [m] = 0.

    Attributes:
      start: p0, [n_ctx, d].
      maps: F, [n_ctx, m, d].
      origin: the first z, [1, n_ctx rank + rank + m rank + m].
      rank: of the part that tokens do not share.

    References:
      Park et al., ZIP: An efficient zeroth-order prompt tuning for black-box vision-language models, ICLR 2025
    """

    start: Float[Array, "n_ctx d"]
    maps: Float[Array, "n_ctx m d"]
    origin: Float[Array, "1 dim"]
    rank: int = struct.field(pytree_node=False)
    per_class = False

    def __call__(self, z: Float[Array, "*K 1 dim"]) -> Float[Array, "*K n_ctx d"]:
        """The soft prompts of z."""
        n_ctx, m, _ = self.maps.shape
        sizes = [n_ctx * self.rank, self.rank, m * self.rank, m]
        stops = [sum(sizes[: i + 1]) for i in range(3)]
        u, s, v, shared = jnp.split(z[..., 0, :], stops, axis=-1)
        u, v = u.reshape(*u.shape[:-1], n_ctx, self.rank), v.reshape(*v.shape[:-1], m, self.rank)
        rows = jnp.einsum("...nr,...r,...mr->...nm", u, s, v, precision="highest") + shared[..., None, :]
        start = jnp.expand_dims(self.start, tuple(range(z.ndim - 2)))
        return start + jnp.einsum("...nm,nmd->...nd", rows, self.maps, precision="highest")


def linear(
    key: Array,
    start: Float[Array, "n_ctx d"],
    *,
    intrinsic_dim: int,
    std: float,
    bound: float = 0.0,
    classes: int = 0,
) -> LinearPrompt:
    """p0 + A z with Gaussian A.

    Args:
      key: of A.
      start: p0.
      intrinsic_dim: coordinates of z, or of each class's z.
      std: standard deviation of A's entries.
      bound: of the coordinates of z; 0 leaves them free.
      classes: C for a soft prompt of its own for each class; 0 for one that all share.
    """
    projection = std * jax.random.normal(key, (intrinsic_dim, *start.shape))
    return LinearPrompt(start=start, projection=projection, bound=bound or math.inf, classes=classes)


def full(start: Float[Array, "n_ctx d"], *, std: float) -> LinearPrompt:
    """All n_ctx d numbers of the soft prompt are searched, each in units of `std`."""
    projection = std * jnp.eye(start.size).reshape(start.size, *start.shape)
    return LinearPrompt(start=start, projection=projection, bound=math.inf, classes=0)


def low_rank(key: Array, start: Float[Array, "n_ctx d"], *, intrinsic_dim: int, std: float, rank: int) -> LowRankPrompt:
    """ZIP's prompt with m = intrinsic_dim, and maps whose entries have standard deviation `std`."""
    map_key, v_key = jax.random.split(key)
    n_ctx = start.shape[0]
    v = jax.random.normal(v_key, (intrinsic_dim * rank,))
    origin = jnp.concatenate([jnp.zeros(n_ctx * rank), jnp.ones(rank), v, jnp.zeros(intrinsic_dim)])
    maps = std * jax.random.normal(map_key, (n_ctx, intrinsic_dim, start.shape[1]))
    return LowRankPrompt(start=start, maps=maps, origin=origin[None], rank=rank)


def movement(context: str, *, intrinsic_dim: int, rank: int) -> float:
    """How far N(0, 1) added to z at its origin moves each number of a soft prompt, in units of `std`.

    A standard deviation: 1 for `full`, sqrt(intrinsic_dim) for A z, and sqrt(m (4 rank + 1)) for `low-rank`: there U is
    0, s is 1 and V ~ N(0, 1), so that W becomes U diag(1 + s) (V + V')^T + 1 v^T with all of U, s, V', v ~ N(0, 1).
    """
    if context == "full":
        return 1.0
    return math.sqrt(intrinsic_dim * (4 * rank + 1 if context == "low-rank" else 1))
