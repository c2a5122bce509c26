"""The perturbation gradients of two published methods, as their authors state them, for comparison.

Both move all coordinates at once; fitness is one loss a candidate.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from craft_jax.method.estimators.antithetic import mirrored
from craft_jax.method.estimators.ask_tell import Search, SearchState, begin, descend
from craft_jax.method.estimators.directions import Directions, for_blocks


def spsa(key: Array, *, pairs: int, sigma: optax.Schedule, tx: optax.GradientTransformation) -> Search:
    """SPSA with ZIP's perturbations, uniform on [-1, -1/2] and [1/2, 1]: g = mean of (L+ - L-) / (2 c_k e).

    Args:
      key: of the perturbations; the step is folded in.
      pairs: two-sided draws a step.
      sigma: from the step to c_k.
      tx: the optimiser; ZIP's is SGD on the estimate scaled by min(1, sqrt(D) / norm).

    References:
      Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient approximation, 1992
      Park et al., ZIP: An efficient zeroth-order prompt tuning for black-box vision-language models, ICLR 2025
    """

    def perturbations(state: SearchState) -> Array:
        magnitude_key, sign_key = jax.random.split(jax.random.fold_in(key, state.step))
        shape = (pairs, *state.z.shape)
        magnitude = jax.random.uniform(magnitude_key, shape, minval=0.5, maxval=1.0)
        return magnitude * jax.random.rademacher(sign_key, shape, jnp.float32)

    def ask(state: SearchState) -> Array:
        return mirrored(state.z, sigma(state.step) * perturbations(state))

    def tell(state: SearchState, fitness: Array) -> SearchState:
        by_pair = fitness.reshape(pairs, 2, -1)
        differences = (by_pair[:, 0] - by_pair[:, 1]) / (2 * sigma(state.step))
        return descend(tx, state, (differences[..., None] / perturbations(state)).mean(axis=0))

    return Search(lambda z: begin(z, tx.init(z)), ask, tell, population_size=2 * pairs)


def one_sided(
    key: Array, *, directions: int, sigma: optax.Schedule, draw: Directions, tx: optax.GradientTransformation
) -> Search:
    """CBBT's one-sided estimate, g = s / q sum_j (L(z + eps u_j) - L(z)) / eps u_j with s = 1 / eps.

    Args:
      key: of the directions; the step is folded in.
      directions: q; a step asks for K = q + 1 candidates, z itself in row 0.
      sigma: from the step to the perturbation, in units of directions of length sqrt(dim): eps = sigma sqrt(dim).
      draw: CBBT's is `sphere`.
      tx: the optimiser; CBBT's clips the norm to 5 and is Adam.

    References:
      Guo et al., Black-box tuning of vision-language models with effective gradient approximation, EMNLP Findings 2023
    """

    def perturbations(state: SearchState) -> Array:
        return for_blocks(draw, jax.random.fold_in(key, state.step), directions, *state.z.shape)

    def ask(state: SearchState) -> Array:
        return jnp.concatenate([state.z[None], state.z[None] + sigma(state.step) * perturbations(state)])

    def tell(state: SearchState, fitness: Array) -> SearchState:
        length = jnp.sqrt(float(state.z.shape[1]))
        eps = sigma(state.step) * length
        slopes = (fitness[1:] - fitness[:1]) / eps
        units = perturbations(state) / length
        gradient = jnp.einsum("qb,qbz->bz", slopes, units, precision="highest") / directions / eps
        return descend(tx, state, gradient)

    return Search(lambda z: begin(z, tx.init(z)), ask, tell, population_size=directions + 1)
