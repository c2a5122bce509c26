"""The loop: encode once, then collaborative steps until the query budget is spent, with resume, log and report.

All side effects of a run live here: its workdir holds checkpoints, metrics.jsonl, result.json, report.md and curve.png.
"""

import contextlib
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

from craft_jax import evaluation, folders, tuned_model
from craft_jax.blackbox import BlackBox, Ledger, check_finite, owners_errors
from craft_jax.config import Config, flat_settings, identity
from craft_jax.data import FewShotSet
from craft_jax.distributed import hosts
from craft_jax.errors import Interrupted, UserError, worded
from craft_jax.files import json_text, sole_writer, write_atomically
from craft_jax.method import TuningState, collaborative
from craft_jax.precision import in_32_bits
from craft_jax.training import assembly, report, selection
from craft_jax.training.assembly import Run
from craft_jax.training.checkpoints import (
    CHECKPOINTS,
    Checkpoints,
    Restored,
    checksum,
    open_for_prediction,
    unflatten,
)
from craft_jax.training.metrics_log import Row
from craft_jax.training.recorder import Recorder, ends, rows_of
from craft_jax.tuned_model import TunedModel

RESULT, REPORT, CURVE, METRICS = "result.json", "report.md", "curve.png", "metrics.jsonl"


class Outcome(NamedTuple):
    """What `train` returns: the tuned model, and what result.json holds."""

    tuned: TunedModel
    result: Row


@hosts.watched()
@in_32_bits
def train(
    black_box: BlackBox,
    dataset: FewShotSet,
    config: Config,
    workdir: str | Path,
    stream: TextIO | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Tunes a soft prompt and a refinement head by queries alone, or resumes where a killed run stopped.

    On several hosts each calls it with the same arguments; only host 0 reads and writes the workdir.

    Args:
      black_box: set up for `dataset.class_names`.
      dataset: with the shots drawn.
      config: the settings; those of `data` and `black_box` that were used to load the two before, as labels.
      workdir: folder of the run, no URL; a finished run in it is returned as it is.
      stream: where progress is shown, by host 0; standard output by default.
      stop: asked between compiled calls; True on any host saves a checkpoint and stops the run on all.

    Raises:
      Interrupted: where `stop` said so; the same call resumes the run.
      UserError: where the workdir cannot be written, another run is writing into it, or it holds a run with other
        settings or photographs; where devices are too few, or a photograph cannot be read. Nothing is written then.
    """
    workdir, stream, began = folders.named(workdir, "--workdir"), stream or sys.stdout, time.monotonic()
    config = dataclasses.replace(config, query_budget=config.budget)
    hosts.check_alike("settings", str(config))
    seen = dataset.digest()
    hosts.check_alike("photographs", seen)
    hosts.check_alike("black boxes", str(black_box.identity), "give every host the same model")
    hosts.first_alone(lambda: folders.check_writable(workdir))
    with contextlib.ExitStack() as alone:
        hosts.first_alone(lambda: alone.enter_context(sole_writer(workdir)))
        if hosts.first_alone(lambda: report.is_whole(workdir / RESULT, stream)):
            finished = _finished(workdir, black_box, dataset, config, stream)
            if finished:
                return finished
        kept = hosts.first_alone(lambda: _kept(workdir, black_box, dataset, config, stream))
        run = assembly.assemble(black_box, dataset, config, kept.get("prompt_std", 0.0), stream)
        start = _resume(run, kept) if kept else _begin(run)
        with _open(workdir) as checkpoints:
            recorder = (
                None if checkpoints is None else _recorder(run, start, dataset, workdir, checkpoints, began, stream)
            )
            with recorder or contextlib.nullcontext(), owners_errors(black_box):
                reached = _loop(run, start, recorder, stop)
        result = hosts.first_alone(lambda: _leave(run, dataset, start, recorder, workdir, time.monotonic() - began))
    return Outcome(selection.candidate_model(result["chosen"], *ends(run, reached)), result)


class _Start(NamedTuple):
    """Where a run begins or resumes; `seconds` were spent before."""

    state: TuningState
    zero_shot: float
    seconds: float
    rows: list[Row] | None


def _kept(workdir: Path, black_box: BlackBox, dataset: FewShotSet, config: Config, stream: TextIO) -> Row:
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
    print(f"resuming {workdir} after step {restored.step} of {config.steps}", file=stream, flush=True)
    about = {name: restored.about[name] for name in ("prompt_std", "zero_shot", "seconds", "ledger")}
    return about | {"state": restored.state, "metrics": restored.about.get("metrics")}


def _resume(run: Run, kept: Row) -> _Start:
    run.meter.ledger = Ledger(**kept["ledger"])
    return _Start(unflatten(kept["state"], like=run.state), kept["zero_shot"], kept["seconds"], kept["metrics"])


def _begin(run: Run) -> _Start:
    """Host 0 asks for the unlearnt prompt's accuracy; it alone knows what has been asked until then."""

    def ask() -> Row:
        zero_shot = evaluation.zero_shot(run.problem.black_box, run.test, run.test_labels, run.meter)
        return {"zero_shot": zero_shot, "ledger": dataclasses.asdict(run.meter.ledger)}

    asked = hosts.first_alone(ask)
    run.meter.ledger = Ledger(**asked["ledger"])
    return _Start(run.state, asked["zero_shot"], seconds=0.0, rows=[])


def _open(workdir: Path) -> contextlib.AbstractContextManager[Checkpoints | None]:
    """The run's checkpoints on host 0, nothing elsewhere."""
    if not hosts.is_first():
        return contextlib.nullcontext()
    return Checkpoints(workdir)


def _recorder(
    run: Run,
    start: _Start,
    dataset: FewShotSet,
    workdir: Path,
    checkpoints: Checkpoints,
    began: float,
    stream: TextIO,
) -> Recorder:
    return Recorder(
        run,
        int(start.state.step),
        workdir / METRICS,
        checkpoints=checkpoints,
        carried={
            "photographs": dataset.digest(),
            "content": dataset.content(),
            "zero_shot": start.zero_shot,
        },
        kept=start.rows,
        began=began - start.seconds,
        stream=stream,
    )


def _loop(run: Run, start: _Start, recorder: Recorder | None, stop: Callable[[], bool]) -> TuningState:
    """Steps until the budget is spent; every host takes the same, and host 0 keeps the record.

    Returns:
      The last state, on the host.
    """
    config = run.config
    one_step = collaborative.build_step(run.method)
    placed, axes = assembly.place(run)
    steps_in_one_call = functools.cache(
        lambda steps: run.spread.compile(collaborative.run_steps(one_step, steps), axes)
    )
    state = run.spread.mapped(start.state)
    done = int(start.state.step)
    while done < config.steps:
        if hosts.any_of(stop()):
            if recorder:
                recorder.save(run.spread.fetch(state))
            raise Interrupted(f"stopped after step {done} of {config.steps}")
        steps = min(config.run.steps_per_call - done % config.run.steps_per_call, config.steps - done)
        before = run.meter.ledger
        run.meter.admit(run.cost_of_step * steps)
        state, metrics = steps_in_one_call(steps)(placed, state)
        check_finite(run.spread.fetch(metrics.loss), run.problem.black_box)
        rows = rows_of(run.spread.fetch(metrics), done, before, run.cost_of_step)
        done += steps

        tested, saved = _due(config.run.eval_every, done, config), _due(config.run.checkpoint_every, done, config)
        if saved and hosts.several():
            reached = checksum(run.spread.fetch(state))
            hosts.check_alike(f"states after step {done}", reached, "make their machines and software equal")
        if recorder:
            recorder.add(rows, run.spread.fetch(state) if tested else None)
            if saved:
                recorder.save(run.spread.fetch(state))
    return run.spread.fetch(state)


def _due(every: int, done: int, config: Config) -> bool:
    return done == config.steps or (every > 0 and done % every == 0)


def _finished(
    workdir: Path, black_box: BlackBox, dataset: FewShotSet, config: Config, stream: TextIO
) -> Outcome | None:
    """The run that is finished; None where its last checkpoint is damaged, so that it has to go on from one before."""

    def find() -> Row | None:
        restored = open_for_prediction(workdir)
        _check_same_run(restored, black_box, dataset, config, workdir)
        if restored.step < config.steps:
            return None
        line = f"{workdir} holds this run, finished; choose another --workdir to run it again"
        print(worded(line), file=stream, flush=True)
        result = json.loads((workdir / RESULT).read_text(encoding="utf-8"))
        return {"prompt": restored.tuned.prompt, "head": restored.tuned.head, "result": result}

    found = hosts.first_alone(find)
    if found is None:
        return None
    tuned = TunedModel(found["prompt"], found["head"], black_box.identity, black_box.class_names)
    return Outcome(tuned, found["result"])


def _check_same_run(
    restored: Restored, black_box: BlackBox, dataset: FewShotSet, config: Config, workdir: Path
) -> None:
    tuned_model.check_fit(restored.tuned, black_box)
    made, asked = flat_settings(restored.about["settings"]), flat_settings(dataclasses.asdict(config))
    identity.check_settings(made, asked, workdir)
    # A finished run that lies where it lay need not read its photographs; older versions kept no digest of content.
    unread = "content" not in restored.about or restored.step == config.steps and not identity.moved(made, asked)
    same = restored.about["photographs"] == dataset.digest() if unread else False
    if not same and restored.about.get("content") != dataset.content():
        raise UserError(
            f"--workdir={workdir} holds a run on other photographs (some were added, removed, changed or labelled "
            "anew); choose another --workdir"
        )


def _result(run: Run, dataset: FewShotSet, last: Row, start: _Start, seconds: float) -> Row:
    ledger, config = run.meter.ledger, run.config
    return {
        "zero_shot": start.zero_shot,
        "prompt_only": last["test_prompt_only"],
        "refined": last["test_refined"],
        "accuracy": last["test_chosen"],
        "chosen": last["chosen"],
        "held_out": {"images": int(run.held_out_labels.size), "loss": last["held_out_loss"]},
        "queries": ledger.prompts,
        "predictions": ledger.search_predictions,
        "seconds": seconds + start.seconds,
        "seed": config.seed,
        "shots": dataset.shots,
        "black_box": run.problem.black_box.identity["model"],
        "split": dataset.split,
        "classes": len(dataset.class_names),
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "learn": config.learn,
        "estimator": config.search.estimator,
        "context": config.prompt.context,
        "ledger": dataclasses.asdict(ledger),
        "notes": list(dataset.notes),
    }


def _leave(
    run: Run, dataset: FewShotSet, start: _Start, recorder: Recorder | None, workdir: Path, seconds: float
) -> Row:
    """Writes report, curve and result; the result last, for it says that the run is finished."""
    assert recorder is not None
    result = _result(run, dataset, recorder.rows[-1], start, seconds)
    curve = report.curve(workdir / CURVE, recorder.rows, start.zero_shot)
    page = report.markdown(result, flat_settings(dataclasses.asdict(run.config)), curve)
    write_atomically(workdir / REPORT, page)
    write_atomically(workdir / RESULT, json_text(result, indent=2) + "\n")
    return result
