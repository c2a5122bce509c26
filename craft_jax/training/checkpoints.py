"""Checkpoints by orbax: atomic, resumable, and enough by themselves to predict with.

A checkpoint holds the run's state, the tuned prompt and head, and as JSON which black box, class names and settings
they belong to, all under one digest: what a disk or a copy changed is passed over, for the checkpoint before. The two
latest and the one with the lowest training loss are kept.
"""

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from craft_jax import tuned_model
from craft_jax.errors import UserError, first_line, silenced
from craft_jax.files import naming_full_disk
from craft_jax.tuned_model import TunedModel

FORMAT = 6
_WITHOUT_DIGEST = 4
_OLDER = (5, _WITHOUT_DIGEST)  # the formats before, which are still read
CHECKPOINTS = "checkpoints"  # folder in a workdir
_ITEMS = ("state", "tuned", "about")


class Restored(NamedTuple):
    """A checkpoint's content; arrays are NumPy's. `damaged` are the newer ones that were passed over."""

    step: int
    state: dict[str, np.ndarray]
    tuned: TunedModel
    about: dict[str, Any]
    damaged: tuple[int, ...]

    def warnings(self) -> list[str]:
        """What whoever goes on from it should know."""
        lines = [f"checkpoint {step} is damaged; falling back to checkpoint {self.step}" for step in self.damaged]
        if self.about["format"] == _WITHOUT_DIGEST:
            lines.append(
                f"checkpoint {self.step} is of an older version of craft_jax, without a digest: damage would go unseen"
            )
        return lines


class _Damaged(Exception):
    """A checkpoint that can be read, but does not hold what was written."""


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """A tree's leaves by path, on the host."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def checksum(tree: Any) -> str:
    """Of every bit of a tree's leaves."""
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in flatten(tree).values())).hexdigest()


def _digest(state: Mapping[str, Any], tuned: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Of all that a checkpoint holds: every array's path, dtype, shape and bits, and the JSON beside them."""
    digest = hashlib.sha256(json.dumps({**about, "digest": None}, sort_keys=True).encode())
    for path, leaf in sorted(flatten({"state": state, "tuned": tuned}).items()):
        digest.update(f"{path} {leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest()


def unflatten(leaves: dict[str, np.ndarray], like: Any) -> Any:
    """The tree of `like` with the given leaves.

    Raises:
      UserError: where a leaf is missing, left over, or of another shape or dtype.
    """
    wanted = flatten(like)
    if set(wanted) != set(leaves):
        raise UserError(
            f"the checkpoint does not fit these settings: it differs in {sorted(set(wanted) ^ set(leaves))[0]}; "
            "use the settings that it was made with, or another --workdir"
        )
    for path, leaf in wanted.items():
        found = leaves[path]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise UserError(
                f"the checkpoint does not fit these settings: {path} is {found.dtype}{list(found.shape)}, not "
                f"{leaf.dtype}{list(leaf.shape)}; use the settings that it was made with, or another --workdir"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in wanted])


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: saves are asynchronous and must be waited for.

    One host opens them: host 0, or whichever predicts.

    Args:
      workdir: the run's folder; checkpoints live in its sub-folder `checkpoints`.
      read_only: opens for restoring only; nothing is created or tidied away.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(silenced("absl"))  # orbax narrates every save, and we every failure
        _silence_stragglers()
        self.folder = (workdir / CHECKPOINTS).absolute()
        if not read_only:
            self.folder.mkdir(parents=True, exist_ok=True)
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(2),
                preservation_policy.BestN(n=1, get_metric_fn=lambda metrics: metrics["refined_loss"], reverse=True),
            ]
        )
        # Orbax would wait for the other hosts at every save, and they have nothing to say.
        host = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"host{host}"
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            read_only=read_only,
            create=False,
            cleanup_tmp_directories=not read_only,
            multiprocessing_options=alone,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=_ITEMS)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._quiet, naming_full_disk(self.folder):
            self._manager.close()

    def save(self, step: int, state: Any, tuned: TunedModel, about: dict[str, Any], refined_loss: float) -> None:
        """Starts saving; returns before it is done. A kill in the middle leaves the checkpoints before untouched."""
        leaves = flatten(state)
        learnt = jax.tree.map(np.asarray, tuned_model.arrays(tuned))
        about = {
            "format": FORMAT,
            "black_box": tuned.black_box,
            "class_names": tuned.class_names,
            "texts": tuned.texts,
            **about,
        }
        about["digest"] = _digest(leaves, learnt, about)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(leaves),
            tuned=ocp.args.StandardSave(learnt),
            about=ocp.args.JsonSave(about),
        )
        with naming_full_disk(self.folder):
            self._manager.save(step, args=items, metrics={"refined_loss": refined_loss})

    def wait(self) -> None:
        """Returns once every save is on disk."""
        with naming_full_disk(self.folder):
            self._manager.wait_until_finished()

    def restore_latest(self) -> Restored | None:
        """The newest checkpoint that can be read, or None where there is none at all.

        Raises:
          UserError: where there are checkpoints and every one of them is damaged.
        """
        damaged: list[int] = []
        reason = ""
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(step)._replace(damaged=tuple(damaged))
            except UserError:
                raise
            except Exception as error:  # whatever tensorstore, orbax or JSON make of damaged bytes
                damaged.append(step)
                reason = first_line(error)[:200]
        if damaged:
            raise UserError(f"{self.folder}: no checkpoint can be read ({reason}); choose another --workdir")
        return None

    def drop(self, steps: tuple[int, ...]) -> None:
        """Removes damaged checkpoints, so that their steps can be saved again."""
        for step in steps:
            self._manager.delete(step)

    def _restore(self, step: int) -> Restored:
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(), tuned=ocp.args.StandardRestore(), about=ocp.args.JsonRestore()
            ),
        )
        written = items.about.get("format")
        without = written == _WITHOUT_DIGEST and "digest" not in items.about
        if not without and items.about.get("digest") != _digest(items.state, items.tuned, items.about):
            raise _Damaged(f"checkpoint {step} does not hold what was written")
        if written not in (FORMAT, *_OLDER):
            raise UserError(
                f"{self.folder / str(step)}: checkpoint format {written}, and this version of craft_jax reads format "
                f"{FORMAT}; use the version that wrote it"
            )
        about = items.about
        tuned = tuned_model.from_arrays(items.tuned, about["black_box"], about["class_names"], about.get("texts", ()))
        return Restored(step=step, state=dict(items.state), tuned=tuned, about=items.about, damaged=())


def _silence_stragglers() -> None:
    """Keeps quiet, for good, about reads and writes still under way when another of the same checkpoint has failed.

    Orbax closes the event loop that they report to; they do so whenever they end, some not before they are collected.
    """
    report = sys.unraisablehook
    if getattr(report, "leaves_out_stragglers", False):
        return

    def report_others(event: Any) -> None:
        if "Event loop is closed" not in str(event.exc_value):
            report(event)

    report_others.leaves_out_stragglers = True  # type: ignore[attr-defined]
    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(_is_no_straggler)


def _is_no_straggler(record: logging.LogRecord) -> bool:
    """Whether asyncio speaks of something else than a task of orbax's whose failure nobody waited for."""
    message = record.getMessage()
    unwaited = message.startswith(("Task exception was never retrieved", "Future exception was never retrieved"))
    return not (unwaited and ("orbax" in message or "tensorstore" in message))


def open_for_prediction(workdir: Path) -> Restored:
    """The newest readable checkpoint of a run; says on standard error where newer ones are damaged.

    Args:
      workdir: the run's, or its folder of checkpoints.

    Raises:
      UserError: where the folder holds no checkpoint.
    """
    if workdir.name == CHECKPOINTS and not (workdir / CHECKPOINTS).is_dir():
        workdir = workdir.parent
    if not (workdir / CHECKPOINTS).is_dir():
        raise UserError(f"{workdir} holds no checkpoints; give the --workdir of a run, such as runs/demo")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest()
    if restored is None:
        raise UserError(f"{workdir} holds no finished checkpoint yet; let its run get further")
    for line in restored.warnings():
        print(f"{workdir}: {line}", file=sys.stderr)
    return restored
