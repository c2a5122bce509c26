"""Carrying out one run of a sweep: training, then the tests that the protocol asks for, alone in the run's workdir."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from craft_jax import blackbox, data, folders, training
from craft_jax.blackbox import BlackBox
from craft_jax.config import Config, DataConfig, identity
from craft_jax.data import FewShotSet, LazyImage, imagenet, sources
from craft_jax.encoding import feature_cache
from craft_jax.errors import Interrupted, UserError
from craft_jax.files import json_text, one_line, sole_writer, write_atomically
from craft_jax.progress import EncodingProgress
from craft_jax.sweep import plan, protocols
from craft_jax.sweep.plan import PlannedRun
from craft_jax.tuned_model import TunedModel


class Shared:
    """What the runs of a sweep have in common, while it lasts: whole sets, and the two black boxes used last."""

    def __init__(self) -> None:
        self._whole = functools.cache(data.read)
        self._black_box = functools.lru_cache(maxsize=2)(blackbox.from_settings)

    def dataset(self, config: Config) -> FewShotSet:
        """The set that the settings name, its shots drawn.

        Raises:
          UserError: where it cannot be read or does not hold the shots.
        """
        return data.draw(self._whole(_set(config)), config.data, config.seed)

    def black_box(self, config: Config, class_names: tuple[str, ...]) -> BlackBox:
        """The black box that the settings name, set up for these classes."""
        return self._black_box(config.black_box, class_names, config.api)


def _set(config: Config) -> DataConfig:
    """The settings of the whole set, which is the same for all shots and halves."""
    return dataclasses.replace(config.data, shots=1, classes="all", with_replacement=False, views=0)


def unreadable(runs: Sequence[PlannedRun], shared: Shared) -> list[str]:
    """For each run, which photographs of its sets cannot be read, of all that any of the runs uses; empty for none."""
    used: dict[DataConfig, list[LazyImage]] = {}
    for run in runs:
        own = shared.dataset(run.config)
        shown = [*own.train, *(own.val if run.config.held_out == "validation" else ()), *own.test]
        used.setdefault(_set(run.config), []).extend(item.image for item in shown)
        for other in run.transfers.values():
            used.setdefault(_set(other), []).extend(item.image for item in shared.dataset(other).test)
    wrong = {each: _unreadable(images) for each, images in used.items()}
    return [
        next(filter(None, (wrong[_set(config)] for config in (run.config, *run.transfers.values()))), "")
        for run in runs
    ]


def _unreadable(images: list[LazyImage]) -> str:
    distinct = list(dict.fromkeys(images))
    try:
        with EncodingProgress(len(distinct), sys.stdout, verb="open") as progress:
            data.check_readable(distinct, progress.show)
    except UserError as error:
        return str(error)
    return ""


def carry_out(run: PlannedRun, shared: Shared, stop: Callable[[], bool] = lambda: False) -> None:
    """Trains, or resumes, a run and tests it on what the protocol asks for; what is done already stays as it is.

    Raises:
      Interrupted: where `stop` said so, which training asks between its calls and this before each test.
      UserError: as `training.train` does, but for a workdir that another run is writing into, which is waited for.
    """
    with alone(run.workdir):
        own = shared.dataset(run.config)
        for note in data.notes_of(own, run.config.held_out):
            print(f"note: {one_line(note)}", flush=True)
        black_box = shared.black_box(run.config, own.class_names)
        if run.config.black_box.api:
            print("\n".join(training.estimate(black_box, own, run.config)), flush=True)
        tuned = training.train_alone(black_box, own, run.config, run.workdir, stop=stop).tuned
        write_atomically(run.workdir / plan.SETTINGS, json_text(identity.learnt_by(run.config), indent=2) + "\n")
        for name, config in run.transfers.items():
            if stop():
                raise Interrupted(f"stopped before the test on {name}")
            if not plan.is_tested(run, name):
                row = _test_on(name, config, run, shared, tuned, black_box) | {"data": identity.tested_on(config)}
                write_atomically(plan.transfer_file(run, name), json_text(row, indent=2) + "\n")
                print(f"on {name}: zero-shot {row['zero_shot']:.1f} %, deployed {row['accuracy']:.1f} %", flush=True)
        # Every run compiles its own, and Linux admits a process only so many mapped pieces of memory.
        jax.clear_caches()


def _test_on(
    name: str, config: Config, run: PlannedRun, shared: Shared, tuned: TunedModel, black_box: BlackBox
) -> dict[str, Any]:
    cache = feature_cache.default_folder() if run.config.run.reuse_features else None
    if run.protocol == "shift":  # images of the same classes
        images, names_file = sources.paths(config.data)
        folder = folders.expanded(config.data.root, "data.root") / imagenet.SHIFTS[name]
        shifted = imagenet.load_shift(folder, images, names_file)
        row = protocols.on_shifted_images(tuned, black_box, shifted, cache)
        return row | {"split": f"the images of {folder.name}"}
    other = shared.dataset(config)
    set_up_for_it = shared.black_box(run.config, other.class_names)
    return protocols.on_other_classes(tuned, set_up_for_it, other, cache)


def alone(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Waits until no other run is writing into `workdir`."""
    folders.check_writable(workdir)
    told = functools.partial(print, f"another process works in {workdir}; waiting for it", flush=True)
    return sole_writer(workdir, busy=told)
