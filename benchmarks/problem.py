"""A run's parts at any size, on a random ViT-B text tower and random image features."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import sizes
from benchmarks.timing import Call
from craft_jax.config import Config, ProbeConfig, PromptConfig, SearchConfig
from craft_jax.distributed import devices
from craft_jax.method import collaborative
from craft_jax.training import from_settings

# Like for like with the published procedure: one soft prompt for all classes, 40 candidates a step.
SETTINGS = Config(
    probe=ProbeConfig(texts=0),
    prompt=PromptConfig(context="unified", intrinsic_dim=512, std=0.02),
    search=SearchConfig(estimator="antithetic", population_size=40, sigma=1.0),
)


def of_size(
    clip: Any, params: Any, classes: int, images: int, views: int, settings: Config = SETTINGS
) -> collaborative.Problem:
    """A problem whose training images were encoded in V views."""
    return around(sizes.black_box(clip, params, classes), sizes.TEXT.projection_dim, images, views, settings)


def around(
    black_box: Any, feature_size: int, images: int, views: int, settings: Config = SETTINGS
) -> collaborative.Problem:
    """The same of a black box, whose image features are of this size."""
    features = jax.random.normal(jax.random.key(0), (views, images, feature_size))
    classes = len(black_box.class_names)
    fitted = from_settings.fits_whole_answers(settings)
    return collaborative.Problem(
        black_box=black_box,
        generator=from_settings.build_generator(black_box, settings, std=0.02),
        views=features / jnp.linalg.norm(features, axis=-1, keepdims=True),
        labels=jnp.arange(images) % classes,
        seed_key=jax.random.key(0),
        target=jax.random.normal(jax.random.key(1), (views, images, classes)) if fitted else None,
    )


def whole_step(
    problem: collaborative.Problem,
    candidates: int = 40,
    on_devices: int = 1,
    settings: Config = SETTINGS,
    labelled_views: int | None = None,
) -> Call:
    """A function that makes one whole collaborative step, as the loop does, and returns its metrics.

    Of the problem's views the first `labelled_views` show a class, by default all.
    """
    search = dataclasses.replace(settings.search, population_size=candidates)
    config = dataclasses.replace(settings, search=search)
    classes, views = len(problem.black_box.class_names), problem.views
    shown = len(views) if labelled_views is None else labelled_views
    method = from_settings.build_method(config, problem.generator, views, shown, classes, config.steps, on_devices)
    spread = devices.Spread(jax.local_devices()[:on_devices])
    step = spread.compile(collaborative.run_steps(collaborative.build_step(method), 1))
    state = from_settings.initial_state(method, problem.generator, config, classes)
    return carrying(step, spread.replicate(problem), spread.mapped(state))


def carrying(step: collaborative.Step, placed: collaborative.Problem, state: collaborative.TuningState) -> Call:
    """A function that goes on by `step` from where its last call ended, and returns the metrics.

    Args:
      step: compiled by a `Spread`.
      placed: the problem on its devices.
      state: mapped over them.
    """
    carried = [state]

    def go_on() -> Any:
        carried[0], metrics = step(placed, carried[0])
        return metrics

    return go_on
