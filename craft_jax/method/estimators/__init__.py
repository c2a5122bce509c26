"""Zeroth-order search: ask(state) -> candidates, tell(state, fitness) -> state.

Every search is such a pair of pure functions over a small state. Candidates are a function of the state alone, so that
each device can regenerate them and only their fitness needs to travel.
"""

from craft_jax.method.estimators import gauss_newton
from craft_jax.method.estimators.antithetic import antithetic, guided
from craft_jax.method.estimators.ask_tell import Search, SearchState, exact
from craft_jax.method.estimators.cma_es import cma_es
from craft_jax.method.estimators.directions import DIRECTIONS, gaussian, orthogonal, rademacher, sphere
from craft_jax.method.estimators.from_settings import build, check_installed
from craft_jax.method.estimators.gauss_newton import GaussNewton
from craft_jax.method.estimators.shaping import SHAPINGS, centred_ranks, raw_losses
from craft_jax.method.estimators.spsa import one_sided, spsa

__all__ = [
    "DIRECTIONS",
    "GaussNewton",
    "SHAPINGS",
    "Search",
    "SearchState",
    "antithetic",
    "build",
    "centred_ranks",
    "check_installed",
    "cma_es",
    "exact",
    "gauss_newton",
    "gaussian",
    "guided",
    "one_sided",
    "orthogonal",
    "rademacher",
    "raw_losses",
    "sphere",
    "spsa",
]
