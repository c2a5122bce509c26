"""What every search is: a point in blocks of coordinates, and pure functions that move it.

Shapes: K candidates, B blocks (one for a soft prompt that all classes share, C where each class has its own), dim
coordinates a block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class SearchState(NamedTuple):
    """Where a search stands.

    Attributes:
      z: the point that is tuned.
      memory: the optimiser's state, and whatever else the search remembers.
      step: how often the search has been told.
    """

    z: Float[Array, "B dim"]
    memory: Any
    step: Int[Array, ""]


class Search(NamedTuple):
    """A search as pure functions.

    Attributes:
      init: z -> state.
      ask: state -> candidates [K, B, dim].
      tell: (state, fitness [K, B]) -> state; a candidate's loss, or the share of it that one block is to blame
        for, lower is better.
      population_size: K.
    """

    init: Callable[[Array], SearchState]
    ask: Callable[[SearchState], Array]
    tell: Callable[[SearchState, Array], SearchState]
    population_size: int


def begin(z: Float[Array, "B dim"], memory: Any) -> SearchState:
    """The state of a search that has been told nothing."""
    return SearchState(z=z, memory=memory, step=jnp.zeros((), jnp.int32))


def descend(tx: optax.GradientTransformation, state: SearchState, gradient: Float[Array, "B dim"]) -> SearchState:
    """One step of the optimiser, whose state is the search's memory; it is told the search's `step` beside."""
    told = optax.with_extra_args_support(tx)
    updates, memory = told.update(gradient, state.memory, state.z, step=state.step)
    return SearchState(z=optax.apply_updates(state.z, updates), memory=memory, step=state.step + 1)


def exact(tx: optax.GradientTransformation) -> Search:
    """Gradient descent on the true gradient: no search at all, but the bound that searches are measured against.

    It asks for no candidate; `tell` takes the gradient [B, dim] in the place of fitness.
    """

    def ask(state: SearchState) -> Array:
        return jnp.zeros((0, *state.z.shape))

    return Search(lambda z: begin(z, tx.init(z)), ask, lambda state, gradient: descend(tx, state, gradient), 0)
