"""The paper's own search: CMA-ES, by evosax, with cumulative step-size adaptation as published runs had it.

Source: Hansen, The CMA evolution strategy: a tutorial, 2016 (arXiv 1604.00772).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from craft_jax.errors import needed
from craft_jax.method.estimators.ask_tell import Search, SearchState, begin


def library() -> Any:
    """The class CMA_ES of evosax; raises NotInstalled where there is none."""
    # Imported here: it brings in every algorithm of evosax, and only this search needs one.
    with needed("evosax", "search.estimator=cma-es"):
        from evosax.algorithms.distribution_based.cma_es import CMA_ES
    return CMA_ES


def cma_es(key: Array, *, population_size: int, sigma: float, shape: tuple[int, ...]) -> Search:
    """CMA-ES over all coordinates together, from a step size of `sigma` in each.

    `z` is the mean of its distribution. (The published code deploys the mean of 40 fresh samples instead, which is this
    mean and noise.)

    Args:
      key: of the samples; the step is folded in.
      population_size: candidates a step.
      sigma: the first step size, in units of z.
      shape: of z, [B, dim].
    """
    strategy = library()(population_size=population_size, solution=jnp.zeros(shape))
    params = strategy.default_params.replace(std_init=jnp.asarray(sigma))

    def init(z: Array) -> SearchState:
        with jax.debug_nans(False):  # evosax fills what it has yet to set with NaN
            return begin(z, strategy.init(key, z, params))

    # evosax leaves its products at the machine's default, which on accelerators is too coarse for a covariance, and
    # promotes ranks.
    @jax.numpy_rank_promotion("allow")
    @jax.default_matmul_precision("float32")
    def ask(state: SearchState) -> Array:
        return strategy.ask(jax.random.fold_in(key, state.step), state.memory, params)[0]

    @jax.numpy_rank_promotion("allow")
    @jax.default_matmul_precision("float32")
    def tell(state: SearchState, fitness: Array) -> SearchState:
        own_key = jax.random.fold_in(key, state.step)
        population, asked = strategy.ask(own_key, state.memory, params)
        memory, _ = strategy.tell(own_key, population, fitness[:, 0], asked, params)
        return SearchState(z=strategy.get_mean(memory), memory=memory, step=state.step + 1)

    return Search(init, ask, tell, population_size=population_size)
