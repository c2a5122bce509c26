"""The loop: encode once, then collaborative steps until the query budget is spent, with resume, log and report.

All side effects of a run live here: its workdir holds checkpoints, metrics.jsonl, result.json, predictions.csv,
report.html, report.md and curve.png.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from craft_jax import folders
from craft_jax.blackbox import BlackBox, check_finite, is_remote, owners_errors
from craft_jax.config import Config, RunConfig
from craft_jax.data import FewShotSet, notes_of
from craft_jax.distributed import hosts
from craft_jax.errors import Interrupted
from craft_jax.files import json_text, sole_writer, write_atomically
from craft_jax.method import TuningState
from craft_jax.precision import in_32_bits
from craft_jax.reporting import PREDICTIONS, write_predictions
from craft_jax.training import assembly, report, resume
from craft_jax.training.assembly import Run
from craft_jax.training.checkpoints import Checkpoints, checksum
from craft_jax.training.finished import CURVE, METRICS, PAGE, REPORT, RESULT, Outcome, Result
from craft_jax.training.metrics_log import Row
from craft_jax.training.recorder import Recorder, candidate_models, rows_of
from craft_jax.training.resume import Start

_POINTS = 6  # of a curve, at least where the run has the steps for them


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
      config: the settings. Results and reports say of the set and the black box what these are, whatever is set of
        `data` and `black_box`; but a run is resumed only with the same settings.
      workdir: folder of the run, no URL; a finished run in it is returned as it is.
      stream: where progress is shown, by host 0; standard output by default.
      stop: asked between compiled calls; True on any host saves a checkpoint and stops the run on all.

    Raises:
      Interrupted: where `stop` said so; the same call resumes the run.
      UserError: where the workdir cannot be written, another run is writing into it, or it holds a run with other
        settings or photographs; where devices are too few, or a photograph cannot be read. Nothing is written then.
    """
    workdir = folders.named(workdir, "--workdir")
    hosts.first_alone(lambda: folders.check_writable(workdir))
    with contextlib.ExitStack() as alone:
        hosts.first_alone(lambda: alone.enter_context(sole_writer(workdir)))
        return train_alone(black_box, dataset, config, workdir, stream, stop)


@hosts.watched()
@in_32_bits
def train_alone(
    black_box: BlackBox,
    dataset: FewShotSet,
    config: Config,
    workdir: Path,
    stream: TextIO | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """`train` for whoever keeps others out of the workdir already, by `files.sole_writer`."""
    stream, began = stream or sys.stdout, time.monotonic()
    config = dataclasses.replace(config, query_budget=config.budget)
    hosts.check_alike("settings", str(config))
    seen = dataset.digest()
    hosts.check_alike("photographs", seen)
    hosts.check_alike("black boxes", str(black_box.identity), "give every host the same model")
    if hosts.first_alone(lambda: report.is_whole(workdir / RESULT, stream)):
        finished = resume.finished(workdir, black_box, dataset, config, stream)
        if finished:
            return finished
    kept = hosts.first_alone(lambda: resume.kept(workdir, black_box, dataset, config, stream))
    run = assembly.assemble(black_box, dataset, config, kept.get("prompt_std", 0.0), workdir, stream)
    start = resume.go_on(run, kept) if kept else resume.begin(run)
    with _open(workdir) as checkpoints:
        recorder = None if checkpoints is None else _recorder(run, start, dataset, workdir, checkpoints, began, stream)
        with recorder or contextlib.nullcontext(), owners_errors(black_box):
            reached = _loop(run, start, recorder, stop)
    result = hosts.first_alone(
        lambda: _leave(run, dataset, start, recorder, reached, workdir, time.monotonic() - began)
    )
    return Outcome(candidate_models(run, reached)[result["chosen"]], Result.of(result))


def _open(workdir: Path) -> contextlib.AbstractContextManager[Checkpoints | None]:
    """The run's checkpoints on host 0, nothing elsewhere."""
    if not hosts.is_first():
        return contextlib.nullcontext()
    return Checkpoints(workdir)


def _recorder(
    run: Run,
    start: Start,
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


def _loop(run: Run, start: Start, recorder: Recorder | None, stop: Callable[[], bool]) -> TuningState:
    """Steps until the budget is spent; every host takes the same, and host 0 keeps the record.

    Returns:
      The last state, on the host.
    """
    config = run.config
    make_steps = assembly.steps_of(run)
    test_every = curve_every(config.run, run.steps, remote=is_remote(run.black_box.identity))
    state = run.spread.mapped(start.state)
    done = int(start.state.step)
    if recorder and run.probed and not recorder.rows:
        recorder.add_probes()
        recorder.save(run.spread.fetch(state))
    while done < run.steps:
        if hosts.any_of(stop()):
            if recorder:
                recorder.save(run.spread.fetch(state))
            raise Interrupted(f"stopped after step {done} of {run.steps}")
        steps = min(config.run.steps_per_call - done % config.run.steps_per_call, run.steps - done)
        before = run.black_box.meter.ledger
        state, metrics = make_steps(run.cost_of_step * steps, steps, state)
        check_finite(run.spread.fetch(metrics.loss), run.black_box)
        rows = rows_of(run.spread.fetch(metrics), done, before, run.cost_of_step)
        done += steps

        tested, saved = _due(test_every, done, run.steps), _due(config.run.checkpoint_every, done, run.steps)
        if saved and hosts.several():
            reached = checksum(run.spread.fetch(state))
            hosts.check_alike(f"states after step {done}", reached, "make their machines and software equal")
        if recorder:
            recorder.add(rows, run.spread.fetch(state) if tested else None)
            if saved:
                recorder.save(run.spread.fetch(state))
    return run.spread.fetch(state)


def curve_every(config: RunConfig, steps: int, *, remote: bool) -> int:
    """Steps between two tests for the curve: `run.eval_every`, or fewer in a short run of a local model.

    So that a curve has some six points. Whoever pays for answers gets no test that was not asked for.

    Args:
      config: how the run is carried out.
      steps: of the whole run.
      remote: whether the black box is asked over a network, or from Python.
    """
    if config.eval_every == 0 or remote:
        return config.eval_every
    calls = max(1, steps // (_POINTS * config.steps_per_call))
    return min(config.eval_every, calls * config.steps_per_call)


def _due(every: int, done: int, steps: int) -> bool:
    return done == steps or (every > 0 and done % every == 0)


def _result(run: Run, dataset: FewShotSet, rows: list[Row], start: Start, seconds: float) -> Row:
    ledger, config, last, models = run.black_box.meter.ledger, run.config, rows[-1], candidate_models(run, run.state)
    return {
        "zero_shot": start.zero_shot,
        "prompt_only": last["test_prompt_only"],
        "refined": last["test_refined"],
        "accuracy": last["test_chosen"],
        "probes": None if run.probed is None else rows[0]["test_probes"],
        "wordings": run.worded and {"accuracy": rows[0]["test_wordings"], **run.worded.told},
        "chosen": last["chosen"],
        "prompts_per_image": {name: model.prompts_per_image for name, model in models.items()},
        "held_out": {"images": int(run.held_out_labels.size), "loss": last["held_out_loss"]},
        "queries": ledger.prompts,
        "predictions": ledger.search_predictions,
        "seconds": seconds + start.seconds,
        "seed": config.seed,
        "shots": dataset.shots,
        "black_box": run.black_box.identity["model"],
        "split": dataset.split,
        "classes": len(dataset.class_names),
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "learn": config.learn,
        "estimator": config.search.estimator,
        "context": config.prompt.context,
        "ledger": dataclasses.asdict(ledger),
        "notes": list(notes_of(dataset, config.held_out)),
    }


def _leave(
    run: Run,
    dataset: FewShotSet,
    start: Start,
    recorder: Recorder | None,
    reached: TuningState,
    workdir: Path,
    seconds: float,
) -> Row:
    """Writes predictions, reports, curve and result; the result last, for it says that the run is finished."""
    assert recorder is not None
    judged = recorder.judged(reached)
    result = _result(run, dataset, recorder.rows, start, seconds)
    settings = report.settings_used(run.config, dataset, run.black_box)
    write_predictions(workdir / PREDICTIONS, dataset.test, dataset.class_names, judged.test)
    curve = report.curve(workdir / CURVE, recorder.rows, start.zero_shot)
    suggested = report.advice(judged, dataset, run.config)
    write_atomically(workdir / REPORT, report.markdown(result, settings, suggested, curve))
    write_atomically(workdir / PAGE, report.page(result, settings, recorder.rows, judged, suggested, dataset, workdir))
    write_atomically(workdir / RESULT, json_text(result, indent=2) + "\n")
    return result
