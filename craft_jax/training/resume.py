"""Where a run starts: anew, after the last whole checkpoint of the same run, or nowhere, since it is finished.

What makes two runs the same: their black box (`tuned_model.check_fit`), their settings (`config.identity`), and the
content of their photographs.
"""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple, TextIO

from craft_jax import evaluation, tuned_model
from craft_jax.blackbox import BlackBox, Ledger
from craft_jax.config import Config, flat_settings, identity
from craft_jax.data import FewShotSet
from craft_jax.distributed import hosts
from craft_jax.errors import UserError, worded
from craft_jax.files import one_line
from craft_jax.method import TuningState
from craft_jax.training.assembly import Run
from craft_jax.training.checkpoints import CHECKPOINTS, Checkpoints, Restored, open_for_prediction, unflatten
from craft_jax.training.finished import RESULT, Outcome, Result
from craft_jax.training.metrics_log import Row


class Start(NamedTuple):
    """Where a run begins or resumes; `seconds` were spent before."""

    state: TuningState
    zero_shot: float
    seconds: float
    rows: list[Row] | None


def kept(workdir: Path, black_box: BlackBox, dataset: FewShotSet, config: Config, stream: TextIO) -> Row:
    """What the newest readable checkpoint holds of this run, with its flattened state; empty where there is none."""
    if not (workdir / CHECKPOINTS).is_dir():
        return {}
    with Checkpoints(workdir) as checkpoints:
        restored = checkpoints.restore_latest()
        if restored is None:
            return {}
        _check_same_run(restored, black_box, dataset, config, workdir)
        for line in restored.warnings():
            print(line, file=stream)
        checkpoints.drop(restored.damaged)
    reached = f"after step {restored.step} of {_steps(restored, config)}"
    print(f"resuming {one_line(str(workdir))} {reached}", file=stream, flush=True)
    about = {name: restored.about[name] for name in ("prompt_std", "zero_shot", "seconds", "ledger")}
    return about | {"state": restored.state, "metrics": restored.about.get("metrics")}


def go_on(run: Run, kept: Row) -> Start:
    """The state that `kept` has found, and what had been asked until then."""
    run.black_box.meter.ledger = Ledger(**kept["ledger"]) + run.black_box.meter.sent
    return Start(unflatten(kept["state"], like=run.state), kept["zero_shot"], kept["seconds"], kept["metrics"])


def begin(run: Run) -> Start:
    """Host 0 asks for the unlearnt prompt's accuracy; it alone knows what has been asked until then."""

    def ask() -> Row:
        zero_shot = evaluation.zero_shot(run.black_box, run.test, run.test_labels)
        return {"zero_shot": zero_shot, "ledger": dataclasses.asdict(run.black_box.meter.ledger)}

    asked = hosts.first_alone(ask)
    run.black_box.meter.ledger = Ledger(**asked["ledger"])
    return Start(run.state, asked["zero_shot"], seconds=0.0, rows=[])


def finished(workdir: Path, black_box: BlackBox, dataset: FewShotSet, config: Config, stream: TextIO) -> Outcome | None:
    """The run that is finished; None where its last checkpoint is damaged, so that it has to go on from one before."""

    def find() -> Row | None:
        restored = open_for_prediction(workdir)
        _check_same_run(restored, black_box, dataset, config, workdir)
        if restored.step < _steps(restored, config):
            return None
        line = f"{workdir} holds this run, finished; choose another --workdir to run it again"
        print(worded(line), file=stream, flush=True)
        result = json.loads((workdir / RESULT).read_text(encoding="utf-8"))
        return tuned_model.arrays(restored.tuned) | {"texts": json.dumps(restored.tuned.texts), "result": result}

    found = hosts.first_alone(find)
    if found is None:
        return None
    tuned = tuned_model.from_arrays(found, black_box.identity, black_box.class_names, json.loads(found["texts"]))
    return Outcome(tuned, Result.of(found["result"]))


def _steps(restored: Restored, config: Config) -> int:
    """Of the whole run, which what was asked before the first step left room for; older versions asked no texts."""
    return int(restored.about.get("steps", config.steps))


def _check_same_run(
    restored: Restored, black_box: BlackBox, dataset: FewShotSet, config: Config, workdir: Path
) -> None:
    """Raises UserError where a checkpoint is of a run on another black box, other settings or other photographs."""
    tuned_model.check_fit(restored.tuned, black_box)
    made, asked = flat_settings(restored.about["settings"]), flat_settings(dataclasses.asdict(config))
    identity.check_settings(made, asked, workdir)
    # A finished run that lies where it lay need not read its photographs; older versions kept no digest of content.
    over = restored.step == _steps(restored, config)
    unread = "content" not in restored.about or over and not identity.moved(made, asked)
    same = restored.about["photographs"] == dataset.digest() if unread else False
    if not same and restored.about.get("content") != dataset.content():
        raise UserError(
            f"--workdir={workdir} holds a run on other photographs (some were added, removed, changed or labelled "
            "anew); choose another --workdir"
        )
