"""What a run leaves on disk and on the screen while it goes, kept by host 0: log, tests, checkpoints, progress."""

import dataclasses
import functools
import math
import time
from pathlib import Path
from typing import TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax import evaluation, language
from craft_jax.blackbox import Ledger
from craft_jax.config import TEXTS_ALONE
from craft_jax.errors import UserError
from craft_jax.method import Metrics, TuningState, objectives
from craft_jax.progress import Progress
from craft_jax.reporting import answers
from craft_jax.training import selection
from craft_jax.training.assembly import Run
from craft_jax.training.checkpoints import Checkpoints
from craft_jax.training.metrics_log import MetricsLog, Row
from craft_jax.tuned_model import TunedModel


class Recorder:
    """The record of a run. Use as a context manager.

    Args:
      run: whose record it is.
      step: that the run starts or resumes at; later lines of an earlier log are dropped.
      log: path of metrics.jsonl.
      checkpoints: where states are kept.
      carried: what every checkpoint carries beside its own: digests of the photographs, the zero-shot accuracy.
      kept: rows of the log as the checkpoint that is resumed has them; None where it has none.
      began: time.monotonic() of the start, less the seconds that earlier parts of the run took.
      stream: where progress is shown.
    """

    def __init__(
        self,
        run: Run,
        step: int,
        log: Path,
        *,
        checkpoints: Checkpoints,
        carried: Row,
        kept: list[Row] | None,
        began: float,
        stream: TextIO,
    ) -> None:
        self._run, self._checkpoints, self._carried, self._began = run, checkpoints, carried, began
        self._log = MetricsLog(log, step, kept, functools.partial(print, file=stream, flush=True))
        if step == run.steps and kept != [] and "test_chosen" not in (self.rows or [{}])[-1]:
            raise UserError(
                f"{log} lacks the last step, which this checkpoint of an older version does not hold; remove "
                f"{checkpoints.folder / str(step)}, and the same command makes its steps again"
            )
        self._progress = Progress(run.steps, step, run.config.budget, stream)
        self._saved = step if kept != [] else -1

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    @property
    def rows(self) -> list[Row]:
        """The logged steps, from the first of the run on."""
        return self._log.rows

    def add(self, rows: list[Row], to_test: TuningState | None) -> None:
        """Logs and shows steps; tests the state that they led to, where it is given."""
        run = self._run
        if to_test:
            tuned = model_of(run, to_test)
            accuracy = evaluation.measure(run.black_box, tuned, run.test, run.test_labels)
            rows[-1] |= {"test_prompt_only": accuracy.prompt_only, "test_refined": accuracy.deployed}
            if rows[-1]["step"] == run.steps:
                rows[-1] |= self._choose(to_test)
        self._log.append(rows)
        self._progress.show(rows[-1], run.black_box.meter.ledger)

    def add_probes(self) -> None:
        """Logs and shows what the probes have found, before the first step."""
        run = self._run
        assert run.probed is not None
        model = candidate_models(run, run.state)[selection.PROBES]
        accuracy = evaluation.measure(run.black_box, model, run.test, run.test_labels)
        ledger = run.black_box.meter.ledger
        target = jnp.asarray(run.probed.target[: run.method.labelled_views])
        row: Row = {
            "step": 0,
            "prompts": ledger.prompts,
            "predictions": ledger.search_predictions,
            "loss": float(jnp.mean(jax.vmap(objectives.cross_entropy, (0, None))(target, run.problem.labels))),
            "train_refined": 100 * float(jnp.mean(jnp.argmax(target, axis=-1) == run.problem.labels[None])),
            "damping": 1.0,
            "test_prompt_only": self._carried["zero_shot"],
            "test_refined": self._carried["zero_shot"],
            "test_probes": accuracy.deployed,
        }
        if run.worded:
            row["test_wordings"] = {
                name: self._deployed(candidate_models(run, run.state)[name])
                for name in (language.BEST, language.COMBINED)
            }
        row["refined_loss"] = row["loss"]
        if run.steps == 0:
            row |= self._choose(run.state)
        self._log.append([row])
        self._progress.show(row, ledger)

    def _deployed(self, model: TunedModel) -> float:
        """Test accuracy of a model."""
        run = self._run
        return evaluation.measure(run.black_box, model, run.test, run.test_labels).deployed

    def _choose(self, reached: TuningState) -> Row:
        """Which candidate model the run ends with, what held-out photographs said of each, and what it reaches."""
        run, said = self._run, {}
        models = candidate_models(run, reached)
        if run.held_out is not None:
            held_out = run.held_out, int(run.held_out_labels.size)
            said = selection.answers(run.black_box, models, *held_out)
        losses = selection.losses(said, run.held_out_labels)
        name = selection.choose(models, losses, int(run.held_out_labels.size), run.config.deploy.prompts_per_image)
        judged, accuracy = _judge(run, name, models[name], said.get(name))
        judged.save(self._log.path.parent)
        return {"chosen": name, "test_chosen": accuracy, "held_out_loss": losses}

    def judged(self, reached: TuningState) -> answers.Judged:
        """What the chosen model says of the test's photographs, asked anew only where its file is not whole."""
        run, name = self._run, self.rows[-1]["chosen"]
        kept = answers.read(self._log.path.parent, name, run.test_labels.size, run.held_out_labels.size)
        return kept or _judge(run, name, candidate_models(run, reached)[name], None)[0]

    def save(self, reached: TuningState) -> None:
        """Starts saving a checkpoint, where this step has none yet."""
        step = int(reached.step)
        if step == self._saved:
            return
        self._saved = step
        about = {
            **self._carried,
            "metrics": list(self.rows),  # written while the run goes on
            "settings": dataclasses.asdict(self._run.config),
            "ledger": dataclasses.asdict(self._run.black_box.meter.ledger),
            "prompt_std": self._run.prompt_std,
            "steps": self._run.steps,
            "seconds": time.monotonic() - self._began,
        }
        models = candidate_models(self._run, reached)
        limit = self._run.config.deploy.prompts_per_image
        chosen = self.rows[-1].get("chosen") if self.rows else None
        tuned = models[chosen or selection.choose(models, {}, 0, limit)]
        self._checkpoints.save(step, reached, tuned, about, self.rows[-1]["refined_loss"] if self.rows else math.inf)


def _judge(
    run: Run, name: str, model: TunedModel, held_out: Float[Array, "H C"] | None
) -> tuple[answers.Judged, float]:
    """What a model says of test and held-out photographs, the latter's logits as given or asked; its test accuracy."""
    if held_out is None and run.held_out is not None:
        _, held_out = evaluation.logits(run.black_box, model, run.held_out, int(run.held_out_labels.size))
    _, test = evaluation.logits(run.black_box, model, run.test, int(run.test_labels.size))
    logits = [test, test[:0] if held_out is None else held_out]
    labels = [run.test_labels, run.held_out_labels]
    judged = answers.judge(name, *(np.asarray(part) for pair in zip(logits, labels, strict=True) for part in pair))
    return judged, 100 * float(objectives.accuracy(test, run.test_labels))


def candidate_models(run: Run, state: TuningState) -> selection.Models:
    """What may be deployed at a state, by name."""
    tuned, unlearnt = model_of(run, state), model_of(run, run.state)
    models = {selection.ZERO_SHOT: unlearnt}
    if run.config.learn not in TEXTS_ALONE:
        models[selection.PROMPT] = tuned._replace(head=unlearnt.head)
        models[selection.REFINED] = tuned
    if run.probed is not None:
        models[selection.PROBES] = tuned._replace(texts=run.probed.texts, stacked=run.probed.head)
    for name, (texts, head) in run.worded.heads.items() if run.worded else ():
        models[name] = tuned._replace(texts=texts, stacked=head)
    return models


def model_of(run: Run, state: TuningState) -> TunedModel:
    """What a state has tuned so far."""
    return TunedModel(
        prompt=run.problem.generator(jnp.asarray(state.search.z)),
        head=state.head.params,
        black_box=run.black_box.identity,
        class_names=run.black_box.class_names,
    )


def rows_of(metrics: Metrics, done: int, before: Ledger, cost: Ledger) -> list[Row]:
    """The log lines of the steps after `done`, each of which cost `cost` on top of `before`."""
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
                "damping": float(metrics.damping[i]),
            }
        )
    return rows
