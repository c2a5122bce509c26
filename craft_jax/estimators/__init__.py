"""Zeroth-order search: ask(state) -> candidates, tell(state, credits) -> state.

Every search is such a pair of pure functions over a small state. Candidates are a function of the state alone, so that
each device can regenerate them and only credits need to travel.
"""

from craft_jax.estimators.antithetic import antithetic, guided
from craft_jax.estimators.cma_es import cma_es
from craft_jax.estimators.directions import DIRECTIONS, gaussian, orthogonal, rademacher, sphere
from craft_jax.estimators.search import Search, SearchState, exact
from craft_jax.estimators.shaping import SHAPINGS, centred_ranks, raw_losses
from craft_jax.estimators.spsa import one_sided, spsa

__all__ = [
    "DIRECTIONS",
    "SHAPINGS",
    "Search",
    "SearchState",
    "antithetic",
    "centred_ranks",
    "cma_es",
    "exact",
    "gaussian",
    "guided",
    "one_sided",
    "orthogonal",
    "rademacher",
    "raw_losses",
    "sphere",
    "spsa",
]
