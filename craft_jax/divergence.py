"""Notices a search that has gone astray, takes it back to its best point, and makes it step more carefully."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from craft_jax.estimators import Search, SearchState

ASTRAY = 1.2  # times the first loss; the chance of views and of large minibatches stays below


class Guard(NamedTuple):
    """What a search is held to.

    Attributes:
      first_loss: of the first step; NaN before it is known.
      best_loss, best_z: the lowest loss seen, and where.
      damping: of every step, halved at each divergence.
    """

    first_loss: Float[Array, ""]
    best_loss: Float[Array, ""]
    best_z: Float[Array, "B dim"]
    damping: Float[Array, ""]


def begin(z: Float[Array, "B dim"]) -> Guard:
    """Before the first loss."""
    return Guard(jnp.asarray(jnp.nan), jnp.asarray(jnp.inf), z, jnp.ones(()))


def look(guard: Guard, z: Float[Array, "B dim"], loss: Float[Array, ""]) -> tuple[Guard, Bool[Array, ""]]:
    """Remembers the loss at z. Astray is a loss that is not finite, or a fifth above the first one."""
    first = jnp.where(jnp.isnan(guard.first_loss), loss, guard.first_loss)
    astray = ~(loss <= ASTRAY * first)
    better = loss < guard.best_loss
    return Guard(
        first_loss=first,
        best_loss=jnp.where(better, loss, guard.best_loss),
        best_z=jnp.where(better, z, guard.best_z),
        damping=jnp.where(astray, guard.damping / 2, guard.damping),
    ), astray


def recall(search: Search, state: SearchState, guard: Guard, astray: Bool[Array, ""]) -> SearchState:
    """The state, or where it is astray a fresh one at the best point."""
    fresh = search.init(guard.best_z)._replace(step=state.step)
    return jax.tree.map(lambda old, new: jnp.where(astray, new, old), state, fresh)


def damped(guard: Guard, before: SearchState, after: SearchState) -> SearchState:
    """The search's own step, shortened by the damping."""
    return after._replace(z=before.z + guard.damping * (after.z - before.z))
