"""From settings to the parts of a run: encoded images, prompt generator, search, head, devices.

The last place that sees the whole configuration, beside the loop.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from craft_jax import evaluation, language
from craft_jax.blackbox import (
    SOFT_PROMPTS,
    TEXTS,
    BlackBox,
    Described,
    Handle,
    Ledger,
    Metered,
    interface,
    is_remote,
    prompts_for,
)
from craft_jax.config import TEXTS_ALONE, Config
from craft_jax.data import FewShotSet, hold_out
from craft_jax.distributed import devices, hosts
from craft_jax.encoding import Encoder, feature_cache
from craft_jax.errors import UserError
from craft_jax.method import (
    Method,
    Metrics,
    Problem,
    StackedHead,
    TuningState,
    candidates,
    collaborative,
    estimators,
)
from craft_jax.training import from_settings, probing
from craft_jax.training.probing import Probed

_SHARE_OF_MEMORY = 4  # encoded images that would fill more than a quarter of a device are split
_BETWEEN = "\0"  # texts that go from host to host
_PIECES = 8  # of each training photograph, for the prompt to be fitted on
_LEAST_VIEWS = 2  # of each, however many there are: it and its mirror image


class Run(NamedTuple):
    """Everything that the loop needs.

    Attributes:
      config: the settings.
      steps: collaborative steps that the budget pays for.
      problem: what the step looks at, its views in the host's memory and without the black box until `place` puts both
        on the devices.
      probed: what the texts have found; None where none were asked.
      worded: what a search over texts has found; None where there was none.
      prompt_std: the prompt's `std`, as set or measured.
      method: what the step does.
      state: where it starts.
      cost_of_step: what it asks of the black box.
      spread: the devices.
      black_box: what is asked, behind its meter.
      held_out, held_out_labels: encoded images to choose by; None where there are none.
      test, test_labels: encoded test images, for measuring alone.
    """

    config: Config
    steps: int
    problem: Problem
    probed: Probed | None
    worded: language.Found | None
    prompt_std: float
    method: Method
    state: TuningState
    cost_of_step: Ledger
    spread: devices.Spread
    black_box: Metered
    held_out: Handle | None
    held_out_labels: Array
    test: Handle
    test_labels: Array


def assemble(
    black_box: BlackBox,
    dataset: FewShotSet,
    config: Config,
    measured_std: float = 0.0,
    workdir: Path | None = None,
    stream: TextIO | None = None,
) -> Run:
    """Encodes the images and builds the parts.

    Args:
      black_box: set up for `dataset.class_names`.
      dataset: with the shots drawn.
      config: the settings.
      measured_std: what the first queries of a run that is resumed have found; 0 asks them where the settings want it.
      workdir: folder where what the texts find is kept.
      stream: where host 0 shows how far encoding is; None shows nothing.

    Raises:
      UserError: where the classes differ, devices are too few, a photograph cannot be read, or the settings ask what a
        remote black box cannot do.
    """
    if black_box.class_names != dataset.class_names:
        raise UserError("the black box and the photographs have different classes; load it with their class_names")
    estimators.check_installed(config.search)
    check_takes(black_box, config)
    remote = is_remote(black_box.identity)
    if remote:
        _check_remote(config)
    spread = devices.Spread(devices.choose(1 if remote else config.run.devices))
    metered = Metered(black_box, config.budget)
    # What stands for an image is an owner's business, and may not outlive this process.
    cache = feature_cache.default_folder() if config.run.reuse_features and not remote else None
    dataset, held_out = hold_out(dataset, config.held_out, config.seed)
    train, choices, test = ([item.image for item in part] for part in (dataset.train, held_out, dataset.test))
    encoder = Encoder(metered, cache, spread, stream if hosts.is_first() else None, [*train, *choices, *test])
    shown, pieces = views_of(config, len(train))
    if config.probe.texts:
        views = encoder.fixed_views(train, views=shown, pieces=pieces, seed=config.seed)
    else:
        views = encoder.training_views(train, views=config.data.views, seed=config.seed)
    held_out_handle = jax.device_put(encoder.centre_crops(choices)) if choices else None
    test_handle = jax.device_put(encoder.centre_crops(test))
    labels, held_out_labels = evaluation.labels_of(dataset.train), evaluation.labels_of(held_out)
    labelled_views = jax.tree.leaves(views)[0].shape[0] - pieces
    about = probing.Asked(
        views, np.asarray(labels), labelled_views, held_out_handle, np.asarray(held_out_labels), dataset.digest()
    )
    worded = _put_into_words(metered, about, config, workdir, stream) if config.learn == "texts" else None
    if worded:
        texts, head = worded.heads[language.PROBES]
        probed: Probed | None = Probed(texts, head, worded.target)
    else:
        probed = _probe(metered, about, config, workdir, stream)
    std = measured_std or hosts.first_alone(lambda: from_settings.prompt_std(metered, views, config))
    classes = len(black_box.class_names)
    steps = steps_after(config, prompts_for(len(probed.texts), classes) if probed else 0)
    generator = from_settings.build_generator(black_box, config, std)
    method = from_settings.build_method(config, generator, views, labelled_views, classes, steps, len(spread.devices))
    if hosts.any_of(_splits_images(config.run.shard_images, views, spread.own[0])):
        method = method._replace(draw_views=candidates.draw_from_shares)
    if remote and not config.run.chunk_pairs:
        method = method._replace(chunk_pairs=-(-config.search.population_size // 2))
    answering = labelled_views + pieces if pieces else 1
    return Run(
        config=config,
        steps=steps,
        problem=Problem(
            black_box=None,  # type: ignore[arg-type]  # until `place`
            generator=generator,
            views=views,
            labels=labels,
            seed_key=jax.random.key(config.seed),
            target=jnp.asarray(probed.target) if probed and pieces else None,
        ),
        probed=probed,
        worded=worded,
        prompt_std=std,
        method=method,
        state=from_settings.initial_state(method, generator, config, classes),
        cost_of_step=collaborative.cost_of_step(
            method, config.search.population_size, images=answering * len(train), trained=len(train)
        ),
        spread=spread,
        black_box=metered,
        held_out=held_out_handle,
        held_out_labels=held_out_labels,
        test=test_handle,
        test_labels=evaluation.labels_of(dataset.test),
    )


def views_of(config: Config, images: int) -> tuple[int, int]:
    """How many views of each training image show its class, and how many pieces of it are asked beside them."""
    views = max(config.data.views, 1)
    if not config.probe.texts:
        return views, 0
    pieces = _PIECES if from_settings.fits_whole_answers(config) else 0
    if config.probe.most_views:
        each = config.probe.most_views // 2 // images
        views, pieces = min(views, max(each, _LEAST_VIEWS)), min(pieces, max(each, 1))
    return views, pieces


def steps_after(config: Config, texts: int) -> int:
    """Collaborative steps that the budget pays for after `texts` prompts, and what measures the prompt's scale."""
    if config.learn in TEXTS_ALONE:
        return 0
    return max(config.budget - config.calibration_prompts - texts, 0) // config.search.population_size


def _probe(
    black_box: Metered,
    about: probing.Asked,
    config: Config,
    workdir: Path | None,
    stream: TextIO | None,
) -> Probed | None:
    """What the texts find, asked by host 0."""
    if not config.probe.texts:
        return None

    def ask() -> dict[str, Any]:
        found = probing.probe(
            black_box,
            about,
            texts=config.probe.texts,
            seed=config.seed,
            keep=workdir / probing.FILE if workdir else None,
            say=lambda line: print(line, file=stream, flush=True) if stream else None,
        )
        return {"texts": _BETWEEN.join(found.texts), "target": found.target} | found.head._asdict()

    found = hosts.first_alone(ask)
    head = StackedHead(found["weights"], found["bias"])
    return Probed(tuple(found["texts"].split(_BETWEEN)), head, found["target"])


def _put_into_words(
    black_box: Metered, about: probing.Asked, config: Config, workdir: Path | None, stream: Any
) -> language.Found:
    """What a search over texts finds."""
    shown = language.Shown(about.views, about.labels, about.held_out, about.held_out_labels, about.content)
    return language.find(
        black_box,
        shown,
        language=config.language,
        chat=config.chat,
        texts=config.probe.texts,
        seed=config.seed,
        folder=workdir,
        say=lambda line: print(line, file=stream, flush=True) if stream else None,
    )


def check_takes(black_box: Described, config: Config) -> None:
    """Raises UserError where the settings ask what the black box does not take."""
    model = black_box.identity["model"]
    if config.learn not in TEXTS_ALONE and SOFT_PROMPTS not in black_box.takes:
        raise UserError(f"{model} takes no soft prompts; take the recipe probe or api, or set learn=probes")
    if config.probe.texts and TEXTS not in black_box.takes:
        raise UserError(
            f"{model} takes no texts; set probe.texts=0 and take a recipe that searches soft prompts alone, such as "
            "by-class"
        )


def _check_remote(config: Config) -> None:
    """Raises UserError where the settings ask what a remote black box cannot do."""
    if hosts.several() or config.run.devices > 1:
        raise UserError(
            "a remote black box is asked from one device of one host; set run.devices=1 and start one process"
        )
    if config.search.estimator == "white-box":
        raise UserError("search.estimator=white-box takes a gradient, which a remote black box does not give")


def place(run: Run, black_box: BlackBox) -> tuple[Problem, Any]:
    """The problem on the devices, and which of its axes are split over them, as `Spread.compile` takes it."""
    problem = run.problem.replace(black_box=black_box)
    if run.method.draw_views is interface.draw_views:
        return run.spread.replicate(problem), None
    whole = problem.replace(views=None)
    placed = run.spread.replicate(whole).replace(views=run.spread.split(run.problem.views, axis=1))
    return placed, Problem(black_box=None, generator=None, views=0, labels=None, seed_key=None)  # type: ignore[arg-type]


def steps_of(run: Run) -> Callable[[Ledger, int, TuningState], tuple[TuningState, Metrics]]:
    """(cost, how many steps, state on the devices) -> the state after them, and their metrics; booked first."""
    one_step = collaborative.build_step(run.method)

    def build(black_box: BlackBox) -> Callable[[int, TuningState], tuple[TuningState, Metrics]]:
        placed, axes = place(run, black_box)
        several = functools.cache(lambda steps: run.spread.compile(collaborative.run_steps(one_step, steps), axes))
        return lambda steps, state: several(steps)(placed, state)

    return run.black_box.program(build)


def _splits_images(setting: str, views: Handle, device: jax.Device) -> bool:
    if setting != "auto":
        return setting == "yes"
    memory: int = (device.memory_stats() or {}).get("bytes_limit", 0)  # a CPU tells none, and its devices share it
    return memory > 0 and sum(leaf.nbytes for leaf in jax.tree.leaves(views)) > memory // _SHARE_OF_MEMORY
