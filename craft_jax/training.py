"""The loop: encode once, then collaborative steps until the query budget is spent, with resume, log and report.

All side effects of a run live here: its workdir holds checkpoints, metrics.jsonl, result.json, report.md and curve.png.
"""

import dataclasses
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TextIO

import jax.numpy as jnp

from craft_jax import assembly, choice, collaborative, evaluation, report
from craft_jax.assembly import Run
from craft_jax.blackbox.meter import Ledger
from craft_jax.blackbox.wall import BlackBox
from craft_jax.checkpoints import Checkpoints, Restored, TunedModel, open_for_prediction, unflatten
from craft_jax.collaborative import Metrics, Problem, TuningState
from craft_jax.config import Config, flat_settings
from craft_jax.data.fewshot import FewShotSet
from craft_jax.errors import UserError
from craft_jax.metrics_log import MetricsLog, Row, write_atomically
from craft_jax.progress import Progress

RESULT, REPORT, CURVE, METRICS = "result.json", "report.md", "curve.png", "metrics.jsonl"


class Outcome(NamedTuple):
    """What `train` returns: the tuned model, and what result.json holds."""

    tuned: TunedModel
    result: Row


def train(
    black_box: BlackBox, photographs: FewShotSet, config: Config, workdir: str | Path, stream: TextIO | None = None
) -> Outcome:
    """Tunes a soft prompt and a refinement head by queries alone, or resumes where a killed run stopped.

    Args:
      black_box: set up for `photographs.class_names`.
      photographs: with the shots drawn.
      config: the settings; those of `data` and `black_box` that were used to load the two before, as labels.
      workdir: folder of the run; a finished run in it is returned as it is.
      stream: where progress is shown; standard output by default.

    Raises:
      UserError: where the workdir cannot be written or holds a run with other settings, devices are too few, or a
        photograph cannot be read. Nothing is written then.
    """
    workdir, stream, began = Path(workdir), stream or sys.stdout, time.monotonic()
    check_workdir(workdir)
    if (workdir / RESULT).exists():
        return _finished(workdir, black_box, config, stream)
    run = assembly.assemble(black_box, photographs, config)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir) as checkpoints:
        start = _resume(run, checkpoints, workdir, stream) or _begin(run)
        log = MetricsLog(workdir / METRICS, resume_step=int(start.state.step))
        tuned = _loop(run, start, log, checkpoints, began - start.seconds, stream)
        checkpoints.wait()
    seconds = time.monotonic() - began + start.seconds
    result = _result(run, photographs, log.rows[-1], start.zero_shot, seconds)
    _leave(workdir, result, log.rows, config)
    return Outcome(tuned, result)


class _Start(NamedTuple):
    """Where a run begins or resumes; `seconds` were spent before."""

    state: TuningState
    zero_shot: float
    seconds: float


def _begin(run: Run) -> _Start:
    zero_shot = evaluation.zero_shot(run.problem.black_box, run.test, run.test_labels, run.meter)
    return _Start(run.state, zero_shot, seconds=0.0)


def _resume(run: Run, checkpoints: Checkpoints, workdir: Path, stream: TextIO) -> _Start | None:
    restored = checkpoints.restore_latest()
    if restored is None:
        return None
    _check_same_run(restored, run.problem.black_box, run.config, workdir)
    for step in restored.damaged:
        print(f"checkpoint {step} is damaged; falling back to checkpoint {restored.step}", file=stream)
    checkpoints.drop(restored.damaged)
    print(f"resuming {workdir} after step {restored.step} of {run.config.steps}", file=stream, flush=True)
    run.meter.ledger = Ledger(**restored.about["ledger"])
    state = unflatten(restored.state, like=run.state)
    return _Start(state, restored.about["zero_shot"], restored.about["seconds"])


def _loop(
    run: Run, start: _Start, log: MetricsLog, checkpoints: Checkpoints, began: float, stream: TextIO
) -> TunedModel:
    config, problem = run.config, run.problem
    one_step = collaborative.build_step(run.method)
    steps_in_one_call = functools.cache(lambda steps: run.spread.compile(collaborative.run_steps(one_step, steps)))
    everywhere, state = run.spread.replicate(problem), run.spread.mapped(start.state)
    done = int(start.state.step)
    tuned = _tuned(problem, start.state)
    with Progress(config.steps, done, config.query_budget, stream) as progress:
        while done < config.steps:
            steps = min(config.run.steps_per_call, config.steps - done)
            before = run.meter.ledger
            run.meter.admit(run.cost_of_step * steps)
            state, metrics = steps_in_one_call(steps)(everywhere, state)
            rows = _rows(done, before, run.cost_of_step, run.spread.fetch(metrics))
            done += steps

            tested, saved = _due(config.run.eval_every, done, config), _due(config.run.checkpoint_every, done, config)
            if tested or saved:
                reached = run.spread.fetch(state)
                tuned = _tuned(problem, reached)
            if tested:
                accuracy = evaluation.measure(problem.black_box, tuned, run.test, run.test_labels, run.meter)
                rows[-1] |= {"test_prompt_only": accuracy.prompt_only, "test_refined": accuracy.refined}
            if done == config.steps:
                tuned = _choose(run, tuned, rows[-1])
            log.append(rows)
            progress.show(rows[-1], run.meter.ledger)
            if saved:
                about = {
                    "settings": dataclasses.asdict(config),
                    "ledger": dataclasses.asdict(run.meter.ledger),
                    "zero_shot": start.zero_shot,
                    "seconds": time.monotonic() - began,
                }
                checkpoints.save(done, reached, tuned, about, rows[-1]["refined_loss"])
    return tuned


def _choose(run: Run, tuned: TunedModel, row: Row) -> TunedModel:
    """The model to deploy, and in the row which it is and what it reaches."""
    chosen = choice.Choice(choice.REFINED, tuned, {})
    if run.held_out is not None:
        unlearnt = _tuned(run.problem, run.state)
        chosen = choice.choose(run.problem.black_box, tuned, unlearnt, run.held_out, run.held_out_labels, run.meter)
    accuracy = evaluation.measure(run.problem.black_box, chosen.model, run.test, run.test_labels, run.meter)
    row |= {"chosen": chosen.name, "test_chosen": accuracy.refined, "held_out_loss": chosen.losses}
    return chosen.model


def _due(every: int, done: int, config: Config) -> bool:
    return done == config.steps or (every > 0 and done % every == 0)


def _rows(done: int, before: Ledger, cost: Ledger, metrics: Metrics) -> list[Row]:
    rows = []
    for i in range(metrics.loss.size):
        spent = before + cost * (i + 1)
        rows.append(
            {
                "step": done + i + 1,
                "prompts": spent.prompts,
                "predictions": spent.search_predictions,
                "loss": float(metrics.loss[i]),
                "refined_loss": float(metrics.refined_loss[i]),
                "train_prompt_only": 100 * float(metrics.prompt_accuracy[i]),
                "train_refined": 100 * float(metrics.train_accuracy[i]),
            }
        )
    return rows


def _tuned(problem: Problem, state: TuningState) -> TunedModel:
    return TunedModel(
        prompt=problem.generator(jnp.asarray(state.search.z)),
        head=state.head.params,
        black_box=problem.black_box.identity,
        class_names=problem.black_box.class_names,
    )


def check_workdir(workdir: Path) -> None:
    """Raises UserError where a run could not write into `workdir`; leaves nothing behind."""
    existing = workdir.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"--workdir={workdir}: cannot write into {existing} ({error.strerror}); choose another"
        ) from error


def _finished(workdir: Path, black_box: BlackBox, config: Config, stream: TextIO) -> Outcome:
    restored = open_for_prediction(workdir)
    _check_same_run(restored, black_box, config, workdir)
    print(f"{workdir} holds this run, finished; choose another --workdir to run it again", file=stream, flush=True)
    return Outcome(restored.tuned, json.loads((workdir / RESULT).read_text(encoding="utf-8")))


def _check_same_run(restored: Restored, black_box: BlackBox, config: Config, workdir: Path) -> None:
    evaluation.check_fit(restored.tuned, black_box)
    made, asked = flat_settings(restored.about["settings"]), flat_settings(dataclasses.asdict(config))
    for name in sorted(made.keys() | asked.keys()):
        # Any number of devices continues a run with the same bits.
        if name != "run.devices" and made.get(name) != asked.get(name):
            raise UserError(
                f"--workdir={workdir} holds a run with {name}={made.get(name)!r}, not {asked.get(name)!r}; "
                "choose another --workdir"
            )


def _result(run: Run, photographs: FewShotSet, last: Row, zero_shot: float, seconds: float) -> Row:
    ledger, config = run.meter.ledger, run.config
    return {
        "zero_shot": zero_shot,
        "prompt_only": last["test_prompt_only"],
        "refined": last["test_refined"],
        "accuracy": last["test_chosen"],
        "chosen": last["chosen"],
        "held_out": {"images": int(run.held_out_labels.size), "loss": last["held_out_loss"]},
        "recipe": {"estimator": config.search.estimator, "context": config.prompt.context},
        "queries": ledger.prompts,
        "predictions": ledger.search_predictions,
        "seconds": seconds,
        "seed": config.seed,
        "shots": config.data.shots,
        "black_box": run.problem.black_box.identity["model"],
        "split": photographs.split,
        "classes": len(photographs.class_names),
        "train_images": len(photographs.train),
        "test_images": len(photographs.test),
        "learn": config.learn,
        "ledger": dataclasses.asdict(ledger),
        "notes": list(photographs.notes),
    }


def _leave(workdir: Path, result: Row, rows: list[Row], config: Config) -> None:
    report.draw_curve(workdir / CURVE, rows, result["zero_shot"])
    page = report.markdown(result, flat_settings(dataclasses.asdict(config)), curve=CURVE)
    write_atomically(workdir / REPORT, page)
    write_atomically(workdir / RESULT, json.dumps(result, indent=2) + "\n")
