"""Zeroth-order search: ask(state) -> candidates, tell(state, losses) -> state.

Every search is such a pair of pure functions over a small state. Candidates are a function of the state alone, so that
each device can regenerate them and only losses need to travel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class SearchState(NamedTuple):
    """Where a search stands.

    Attributes:
      z: the point that is tuned, [dim].
      opt_state: of the optimiser that the estimated gradient is handed to.
      step: how often the search has been told losses.
    """

    z: Float[Array, " dim"]
    opt_state: Any
    step: Int[Array, ""]


class Search(NamedTuple):
    """A zeroth-order search as pure functions.

    Attributes:
      init: z -> state.
      ask: state -> candidates [K, dim].
      tell: (state, losses [K]) -> state.
    """

    init: Callable[[Array], SearchState]
    ask: Callable[[SearchState], Array]
    tell: Callable[[SearchState, Array], SearchState]


Directions = Callable[[Array, Array, int], Array]
"""(key, pairs [P], dim) -> P directions [P, dim] with E[e e^T] = I."""

Shaping = Callable[[Array], Array]
"""losses [P, 2] -> fitness [P, 2], lower is better."""


def antithetic(
    key: Array,
    *,
    pairs: int,
    sigma: float,
    tx: optax.GradientTransformation,
    directions: Directions,
    shaping: Shaping,
) -> Search:
    """Gradient descent on the antithetic estimate of the gradient.

    g = 1 / (2 sigma P) sum_i (L(z + sigma e_i) - L(z - sigma e_i)) e_i, an unbiased estimate of the gradient of L
    smoothed by a Gaussian of width sigma. Even terms of L cancel within a pair.

    Args:
      key: of the directions; step and pair are folded in.
      pairs: P; a step asks for K = 2 P candidates, pair i in rows 2 i and 2 i + 1.
      sigma: length of a perturbation in units of z.
      tx: what turns the estimate into a step, for example optax.adam.
      directions: `gaussian` or `orthogonal`.
      shaping: `raw_losses` or `centred_ranks`.

    References:
      Nesterov and Spokoiny, Random gradient-free minimization of convex functions, 2017
      Salimans et al., Evolution strategies as a scalable alternative to reinforcement learning, 2017
    """

    def perturbations(state: SearchState) -> Array:
        return directions(jax.random.fold_in(key, state.step), jnp.arange(pairs), state.z.size)

    def init(z: Array) -> SearchState:
        return SearchState(z=z, opt_state=tx.init(z), step=jnp.zeros((), jnp.int32))

    def ask(state: SearchState) -> Array:
        mirrored = jax.vmap(lambda e: jnp.stack([e, -e]))(perturbations(state))
        return state.z + sigma * mirrored.reshape(2 * pairs, -1)

    def tell(state: SearchState, losses: Array) -> SearchState:
        fitness = shaping(losses.reshape(pairs, 2))
        differences = (fitness[:, 0] - fitness[:, 1]) / (2 * sigma)
        gradient = jnp.matmul(differences, perturbations(state), precision="highest") / pairs
        updates, opt_state = tx.update(gradient, state.opt_state, state.z)
        return SearchState(z=optax.apply_updates(state.z, updates), opt_state=opt_state, step=state.step + 1)

    return Search(init, ask, tell)


def gaussian(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Independent standard normal directions, each from the key of its pair."""
    return jax.vmap(lambda pair: jax.random.normal(jax.random.fold_in(key, pair), (dim,)))(pairs)


def orthogonal(key: Array, pairs: Int[Array, " P"], dim: int) -> Float[Array, "P dim"]:
    """Mutually orthogonal directions of length sqrt(dim), uniformly distributed; P must not exceed dim.

    Being orthogonal, they repeat nothing that another pair has measured.

    References:
      Choromanski et al., Structured evolution with compact architectures for scalable policy optimization, ICML 2018
    """
    basis, triangle = jnp.linalg.qr(gaussian(key, pairs, dim).T)
    # QR leaves the signs to the implementation: R's diagonal made positive gives the uniform distribution.
    return jnp.sqrt(float(dim)) * (basis * jnp.sign(jnp.diagonal(triangle))).T


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


DIRECTIONS: dict[str, Directions] = {"gaussian": gaussian, "orthogonal": orthogonal}
SHAPINGS: dict[str, Shaping] = {"none": raw_losses, "ranks": centred_ranks}
