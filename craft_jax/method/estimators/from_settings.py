"""From settings to a search: its estimator, optimiser and schedules."""

from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from craft_jax.config import SearchConfig
from craft_jax.method.estimators.antithetic import antithetic, guided
from craft_jax.method.estimators.ask_tell import Search, exact
from craft_jax.method.estimators.cma_es import cma_es, library
from craft_jax.method.estimators.directions import DIRECTIONS
from craft_jax.method.estimators.gauss_newton import RADII, GaussNewton
from craft_jax.method.estimators.shaping import SHAPINGS
from craft_jax.method.estimators.spsa import one_sided, spsa

_LEARNING_RATE_POWER, _SIGMA_POWER = 0.4, 0.1  # ZIP's, after Spall's guidelines


def check_installed(settings: SearchConfig) -> None:
    """Raises NotInstalled where the search that the settings name needs a package that is not there."""
    if settings.estimator == "cma-es":
        library()


def build(settings: SearchConfig, key: Array, origin: Float[Array, "B dim"], steps: int) -> Search | GaussNewton:
    """The search that the settings name.

    Args:
      settings: of the search.
      key: of everything random in it.
      origin: where z starts.
      steps: of the run, over which schedules stretch.
    """
    sigma, tx = _sigma(settings), _optimizer(settings, origin.size, steps)
    pairs = settings.population_size // 2
    if settings.estimator in ("antithetic", "guided"):
        make = antithetic if settings.estimator == "antithetic" else guided
        shaping, directions = SHAPINGS[settings.shaping], DIRECTIONS[settings.directions]
        return make(key, pairs=pairs, sigma=sigma, tx=tx, directions=directions, shaping=shaping)
    if settings.estimator == "spsa":
        return spsa(key, pairs=pairs, sigma=sigma, tx=tx)
    if settings.estimator == "one-sided":
        draw, count = DIRECTIONS[settings.directions], settings.population_size - 1
        return one_sided(key, directions=count, sigma=sigma, draw=draw, tx=tx)
    if settings.estimator == "cma-es":
        population = settings.population_size
        return cma_es(key, population_size=population, sigma=settings.sigma, shape=origin.shape)
    if settings.estimator == "gauss-newton":
        return GaussNewton(key, settings.population_size - len(RADII), settings.sigma)
    if settings.estimator == "white-box":
        return exact(tx)
    raise ValueError(f"search.estimator={settings.estimator} has no search here")


def _sigma(settings: SearchConfig) -> optax.Schedule:
    if settings.schedule == "spall":
        return lambda step: settings.sigma / (step + 1.0) ** _SIGMA_POWER
    return optax.constant_schedule(settings.sigma)


def _optimizer(settings: SearchConfig, coordinates: int, steps: int) -> optax.GradientTransformation:
    rate = settings.learning_rate
    schedules: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(rate, steps),
        "constant": optax.constant_schedule(rate),
        "spall": lambda step: rate / (step + 2.0) ** _LEARNING_RATE_POWER,
    }
    optimizers: dict[str, optax.GradientTransformation] = {
        "adam": optax.scale_by_adam(),
        "momentum": optax.trace(decay=0.9),
        "sgd": optax.identity(),
    }
    largest = coordinates**0.5 if settings.clip < 0 else settings.clip
    clip = optax.clip_by_global_norm(largest) if settings.clip else optax.identity()
    return optax.chain(clip, optimizers[settings.optimizer], _descent_at(schedules[settings.schedule]))


def _descent_at(rate: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Scales by minus the learning rate at the search's own step, which a recall of the search does not turn back."""

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, *, step: Array, **_: Any
    ) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map(lambda update: -rate(step) * update, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
