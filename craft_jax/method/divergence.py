"""Notices a search that has diverged, takes it back to its best point, and makes it step more carefully."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from craft_jax.method.estimators import Search, SearchState

DIVERGED = 1.2  # from this many times the first loss on
CHANCE = 3.0  # standard errors of a mean loss: what the views drawn can make of few images


class Guard(NamedTuple):
    """What a search is held to.

    Attributes:
      first_loss: of the first step; infinite before it is known, for JAX_DEBUG_NANS would stop at NaN.
      best_loss, best_z: the lowest loss seen, and where.
      damping: of every step, halved at each divergence.
    """

    first_loss: Float[Array, ""]
    best_loss: Float[Array, ""]
    best_z: Float[Array, "B dim"]
    damping: Float[Array, ""]


def init(z: Float[Array, "B dim"]) -> Guard:
    """Before the first loss."""
    return Guard(jnp.asarray(jnp.inf), jnp.asarray(jnp.inf), z, jnp.ones(()))


def update(guard: Guard, z: Float[Array, "B dim"], losses: Float[Array, " N"]) -> tuple[Guard, Bool[Array, ""]]:
    """Remembers the mean loss of N images at z.

    Returns whether it has diverged: it is not finite, or a fifth above the first and by more than chance.
    """
    loss = losses.mean()
    first = jnp.where(jnp.isfinite(guard.first_loss), guard.first_loss, loss)
    diverged = ~(loss <= DIVERGED * first + CHANCE * losses.std() / losses.size**0.5)
    better = loss < guard.best_loss
    return Guard(
        first_loss=first,
        best_loss=jnp.where(better, loss, guard.best_loss),
        best_z=jnp.where(better, z, guard.best_z),
        damping=jnp.where(diverged, guard.damping / 2, guard.damping),
    ), diverged


def apply(
    search: Search, guard: Guard, diverged: Bool[Array, ""], before: SearchState, told: SearchState
) -> SearchState:
    """What follows an update: the search's own step, damped; or, where it diverged, a fresh start at the best point.

    What was asked around such a point says nothing of the best one, so that step's queries are lost. The count of
    steps goes on, and schedules with it.
    """
    step = told._replace(z=before.z + guard.damping * (told.z - before.z))
    return choose(diverged, search.init(guard.best_z)._replace(step=told.step), step)


def choose(diverged: Bool[Array, ""], one: Any, other: Any) -> Any:
    """The one tree where the search diverged, else the other."""
    return jax.tree.map(lambda a, b: jnp.where(diverged, a, b), one, other)
