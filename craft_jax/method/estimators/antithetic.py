"""Antithetic estimates of the gradient: candidates in mirrored pairs, their difference told of the direction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from craft_jax.method.estimators.ask_tell import Search, SearchState, begin, descend
from craft_jax.method.estimators.directions import Directions, for_blocks, orthogonalise
from craft_jax.method.estimators.shaping import Shaping


def antithetic(
    key: Array,
    *,
    pairs: int,
    sigma: optax.Schedule,
    tx: optax.GradientTransformation,
    directions: Directions,
    shaping: Shaping,
) -> Search:
    """Gradient descent on the antithetic estimate of the gradient.

    g = 1 / (2 sigma P) sum_i (L(z + sigma e_i) - L(z - sigma e_i)) e_i, an unbiased estimate of the gradient of L
    smoothed by a Gaussian of width sigma. Even terms of L cancel within a pair. Blocks are estimated side by side, each
    from its own fitness: P pairs then measure P directions of every block, not P directions of all together.

    Args:
      key: of the directions; step and pair are folded in.
      pairs: P; a step asks for K = 2 P candidates, pair i in rows 2 i and 2 i + 1.
      sigma: from the step to the length of a perturbation in units of z.
      tx: what turns the estimate into a step, for example optax.adam.
      directions: one of `DIRECTIONS`; with `rademacher` this is SPSA.
      shaping: one of `SHAPINGS`, applied to each block.

    References:
      Nesterov and Spokoiny, Random gradient-free minimization of convex functions, 2017
      Salimans et al., Evolution strategies as a scalable alternative to reinforcement learning, 2017
    """

    def perturbations(state: SearchState) -> Array:
        return for_blocks(directions, jax.random.fold_in(key, state.step), pairs, *state.z.shape)

    return _descent(perturbations, pairs, sigma, tx, shaping)


def guided(
    key: Array,
    *,
    pairs: int,
    sigma: optax.Schedule,
    tx: optax.GradientTransformation,
    directions: Directions,
    shaping: Shaping,
) -> Search:
    """`antithetic` whose first pair lies along the previous estimate, the others orthogonal to it and to one another.

    What was learnt about the gradient is measured again and kept, where fresh directions would mostly miss it; the
    estimate is the gradient's projection on the span of the directions, up to a constant factor.

    Args: as `antithetic`.

    References:
      Meier et al., Improving gradient estimation in evolutionary strategies with past descent directions, 2019
      Maheswaranathan et al., Guided evolutionary strategies, ICML 2019
    """

    def perturbations(state: SearchState) -> Array:
        fresh = for_blocks(directions, jax.random.fold_in(key, state.step), pairs, *state.z.shape)
        past = state.memory[0].trace
        known = jnp.linalg.norm(past, axis=-1, keepdims=True) > 0
        led = fresh.at[0].set(jnp.where(known, past, fresh[0]))
        return jnp.swapaxes(jax.vmap(orthogonalise, in_axes=1)(led), 0, 1)

    remembering = optax.chain(optax.trace(decay=0.0), tx)
    return _descent(perturbations, pairs, sigma, remembering, shaping)


def _descent(
    perturbations: Callable[[SearchState], Array],
    pairs: int,
    sigma: optax.Schedule,
    tx: optax.GradientTransformation,
    shaping: Shaping,
) -> Search:
    """Descent by `tx` on the estimate from what each pair's difference says of its perturbation [P, B, dim]."""

    def ask(state: SearchState) -> Array:
        return mirrored(state.z, sigma(state.step) * perturbations(state))

    def tell(state: SearchState, fitness: Array) -> SearchState:
        return descend(tx, state, estimate(fitness, perturbations(state), sigma(state.step), shaping))

    return Search(lambda z: begin(z, tx.init(z)), ask, tell, population_size=2 * pairs)


def mirrored(z: Float[Array, "B dim"], perturbations: Float[Array, "P B dim"]) -> Float[Array, "2*P B dim"]:
    """Candidates z + e and z - e, pair after pair."""
    return z[None] + jnp.stack([perturbations, -perturbations], axis=1).reshape(-1, *z.shape)


def estimate(
    fitness: Float[Array, "K B"], directions: Float[Array, "P B dim"], sigma: Array, shaping: Shaping
) -> Float[Array, "B dim"]:
    """The antithetic estimate of each block's gradient from its own fitness, K = 2 P."""
    shaped = jax.vmap(shaping, in_axes=2, out_axes=2)(fitness.reshape(len(directions), 2, -1))
    differences = (shaped[:, 0] - shaped[:, 1]) / (2 * sigma)
    return jnp.einsum("pb,pbz->bz", differences, directions, precision="highest") / len(directions)
