"""Labels a collection on a Ray cluster: units go to actors that hold a model each, and leave a part of the output each.

Ray Data hands the units out, and again what an actor or a machine was lost with. Every machine must see this
environment, the model, the output and sources that are folders under the same paths.
"""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from craft_jax import blackbox, tuned_model
from craft_jax.cli import elsewhere
from craft_jax.distributed import devices
from craft_jax.errors import Interrupted, UserError, first_line, needed, silenced
from craft_jax.files import one_line, sole_writer
from craft_jax.labelling.answers import CHUNK, answers
from craft_jax.progress import EncodingProgress
from craft_jax.tuned_model import TunedModel

with needed("ray[data]", "--engine=ray"):
    import ray
    import ray.data
    from ray.exceptions import RayError

    from craft_jax.labelling import output, reading, units

_TRIES = 5  # of a unit whose actor or machine is lost
_BLOCKS = 10_000  # at most so many pieces that Ray keeps books of


class Labels(NamedTuple):
    """How images are labelled.

    Attributes:
      top: how many classes are kept of each.
      threshold: probability below which the best is called unsure.
      image_column: of Parquet's rows: bytes, or Hugging Face's struct of bytes and path.
      key_column: of Parquet's rows; "" is the row's number.
    """

    top: int
    threshold: float
    image_column: str
    key_column: str


class Actor:
    """Labels units, one after another, by one model."""

    def __init__(self, tuned: TunedModel, model: str, how: Labels, folder: Path) -> None:
        # Several actors may share a GPU; JAX would take three quarters of its memory for the first.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self._tuned, self._model, self._how, self._folder = tuned, model, how, folder

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """What became of one unit: its images, or an error, and whether that is of the model and so of all units."""
        part, kind, root, path = (str(batch[name][0]) for name in units.Unit._fields[:-1])
        unit = units.Unit(part, kind, root, path, int(batch["group"][0]))
        try:
            self._black_box  # noqa: B018
        except UserError as error:
            return _told(unit, error=str(error), of_model=True)
        try:
            return _told(unit, images=self._label(unit))
        except UserError as error:
            return _told(unit, error=str(error))
        except Exception as error:  # whatever it is, it is this unit's, and no other's
            return _told(unit, error=f"{units.named(unit.root, unit.path)}: {type(error).__name__}: {error}")

    @functools.cached_property
    def _black_box(self) -> blackbox.BlackBox:
        devices.check_found()
        with elsewhere(self._model):
            black_box = blackbox.from_identity(self._tuned.black_box, self._tuned.class_names, self._model)
        tuned_model.check_fit(self._tuned, black_box)
        return black_box

    def _label(self, unit: units.Unit) -> int:
        if output.is_there(self._folder, unit.part):  # done before its actor was lost
            return 0
        if output.tries(self._folder, unit.part) > _TRIES:  # Ray Data itself would go on for ever
            raise UserError(
                f"{units.named(unit.root, unit.path)}: {_TRIES} actors were lost at it; see whether it fits their "
                "memory (--engine_option=memory=BYTES), and give the same command again"
            )
        rows, columns = [], reading.Columns(self._how.image_column, self._how.key_column)
        for items in reading.chunks(unit, columns, CHUNK):
            images = [item.image for item in items]
            # Few sizes, for each is compiled: a unit's last chunk is filled up with its last image.
            images += images[-1:] * ((1 << (len(images) - 1).bit_length()) - len(images))
            told = answers(self._tuned, self._black_box, images, top=self._how.top, threshold=self._how.threshold)
            rows += [output.row(item, answer) for item, answer in zip(items, told, strict=False)]
        output.write(self._folder, unit.part, rows)
        return len(rows)


def _told(unit: units.Unit, images: int = 0, error: str = "", of_model: bool = False) -> dict[str, list[Any]]:
    return {"part": [unit.part], "images": [images], "error": [error], "of_model": [of_model]}


def label(
    sources: Sequence[str],
    folder: Path,
    tuned: TunedModel,
    *,
    model: str,
    digest: str,
    how: Labels,
    options: dict[str, Any],
    stream: TextIO,
) -> output.Counts:
    """Labels what is not labelled yet.

    Args:
      sources: folders, Parquet files and tar files, paths or URLs.
      folder: the output.
      tuned: the model.
      model: where its black box lies now; "" is where the checkpoint says.
      digest: of the checkpoint.
      how: the labels.
      options: for Ray Data's map_batches: concurrency, num_gpus, num_cpus, ...
      stream: for progress and for shards that cannot be read.

    Raises:
      UserError: for sources that are not there, an output of other labels, or, at the end, shards that cannot be read.
      Interrupted: by Ctrl-C.
    """
    if blackbox.is_remote(tuned.black_box):
        raise UserError(
            f"--engine=ray: the checkpoint is for {tuned.black_box['model']}, which is asked over HTTP; what was "
            "answered, its ceilings and its rate are kept by one process, and several would pass them; label without "
            "--engine"
        )
    _check_options(options)
    found = [units.find(source) for source in sources]
    _check_apart(folder, found)

    def busy() -> None:
        raise UserError(f"--output={folder}: another command is labelling into it; wait for its end")

    with sole_writer(folder, busy):
        output.begin(folder, _about(digest, how))
        planned = units.plan(found, folder / output.PLAN)
        output.forget_tries(folder)
        waiting = units.missing(planned, output.parts(folder))
        failed = _run(waiting, Actor, (tuned, model, how, folder), options, stream) if waiting else []
        output.forget_tries(folder)
        counts = output.count(folder)
    if failed:
        raise UserError(f"{len(failed)} of {len(planned)} parts could not be labelled; the others are")
    return counts


def _check_options(options: dict[str, Any]) -> None:
    """Raises UserError for what Ray does not take, before anything is begun."""
    remote = {name: value for name, value in options.items() if name != "concurrency"}
    actors = options.get("concurrency", 1)
    least, most = actors if isinstance(actors, tuple) and len(actors) == 2 else (actors, actors)
    try:
        ray.remote(Actor).options(**remote)
        if not (isinstance(least, int) and isinstance(most, int) and 0 < least <= most):
            raise ValueError(f"concurrency={actors} must be a number of actors, or (least,most)")
    except (TypeError, ValueError) as error:
        raise UserError(f"--engine=ray does not take its --engine_option: {first_line(error)}") from error


def _about(digest: str, how: Labels) -> dict[str, Any]:
    return {"checkpoint": digest, **how._asdict()}


def _check_apart(folder: Path, found: Sequence[units.Found]) -> None:
    """Raises UserError where the output lies in a source, whose shards its parts would seem to be."""
    for each in found:
        if "://" not in each.root and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(each.root)):
            raise UserError(f"--output={folder} lies in {each.root}, which is labelled; choose a folder outside")


def _run(
    waiting: Sequence[units.Unit], actor: Any, arguments: tuple, options: dict[str, Any], stream: TextIO
) -> list[str]:
    """Labels the units; returns the errors of those that cannot be labelled, each of which it has said."""
    errors, done, images = [], 0, 0
    try:
        with _cluster(), EncodingProgress(len(waiting), stream, verb="labell", of="parts") as progress:
            for told in _results(waiting, actor, arguments, options, stream):
                if told["of_model"]:
                    raise UserError(told["error"])
                if told["error"]:
                    errors.append(told["error"])
                    progress.say(one_line(told["error"]))
                done, images = done + 1, images + told["images"]
                progress.show(done)
    except KeyboardInterrupt as stop:
        raise Interrupted(f"stopped after {done:,} of {len(waiting):,} parts ({images:,} images)") from stop
    except RayError as error:
        reason = first_line(getattr(error, "cause", None) or error)
        raise UserError(f"--engine=ray: Ray gave up ({reason}); the same command goes on from what is whole") from error
    return errors


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """Inside, Ray has the cluster that RAY_ADDRESS names, or one on this machine, and prints nothing."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        if ray.is_initialized():
            yield
            return
        _connect()
        try:
            yield
        finally:
            ray.shutdown()


def _connect() -> None:
    for name, value in (("RAY_BACKEND_LOG_LEVEL", "fatal"), ("RAY_USAGE_STATS_ENABLED", "0")):
        os.environ.setdefault(name, value)
    sys.stderr.flush()
    screen, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # which says that it heeds that variable
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork")  # what is forked here starts Ray's own programs
            ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "")
        raise UserError(
            f"--engine=ray: no cluster can be joined or started (RAY_ADDRESS={where}: {first_line(error)}); "
            "start it, or unset RAY_ADDRESS to use this machine"
        ) from error
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nothing)


def _results(
    waiting: Sequence[units.Unit], actor: Any, arguments: tuple, options: dict[str, Any], stream: TextIO
) -> Iterator[dict[str, Any]]:
    """What became of each unit, as it is done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if options.get("num_gpus", 0) > gpus:
        print(f"the cluster has {gpus} GPUs; waiting for {options['num_gpus']}", file=stream, flush=True)
    machines = sum(node["Alive"] for node in ray.nodes())
    usual = {"concurrency": gpus, "num_gpus": 1} if gpus else {"concurrency": machines}
    if "concurrency" not in options:
        usual["concurrency"] = min(usual["concurrency"], len(waiting))
    with silenced("ray.data"):
        labelled = ray.data.from_items(
            [unit._asdict() for unit in waiting], override_num_blocks=min(len(waiting), _BLOCKS)
        ).map_batches(actor, batch_size=1, fn_constructor_args=arguments, **usual | options)
        yield from labelled.iter_rows()
