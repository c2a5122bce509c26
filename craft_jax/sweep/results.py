"""What the finished runs of a sweep found, by set, shots, measure and target, each with its seeds."""

import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from craft_jax.config import PUBLISHED, SHIFTS
from craft_jax.sweep import plan
from craft_jax.sweep.plan import PlannedRun
from craft_jax.sweep.protocols import harmonic_mean

ZERO_SHOT, PROMPT_ONLY, REFINED, CHOSEN = "zero_shot", "prompt_only", "refined", "accuracy"
MEASURES = (ZERO_SHOT, PROMPT_ONLY, REFINED, CHOSEN)


class Entry(NamedTuple):
    """One number of a table.

    Attributes:
      label: of the settings file: the set.
      method: its variant.
      shots: a class.
      measure: one of MEASURES.
      target: what was tested on.
      split: which of its images those are; empty for a mean over several.
      by_seed: accuracy in percent of each finished run.
      planned: runs that the sweep plans for it.
      published: the paper's figure, where it has one.
    """

    label: str
    method: str
    shots: int
    measure: str
    target: str
    split: str
    by_seed: dict[int, float]
    planned: int
    published: float | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.by_seed.values())

    @property
    def std(self) -> float | None:
        """The sample's standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


def collect(runs: Sequence[PlannedRun], protocol: str) -> list[Entry]:
    """The numbers of the runs that are done, in the order of the plan."""
    found: dict[tuple[str, str, int, str, str], dict[int, float]] = {}
    fixed: dict[tuple[str, str, int, str, str], tuple[str, float | None]] = {}
    for run in filter(plan.is_done, runs):
        for target, row in _tests(run, protocol).items():
            for measure in MEASURES:
                if measure in row:
                    key = (run.label, run.method, run.config.data.shots, measure, target)
                    found.setdefault(key, {})[run.config.seed] = row[measure]
                    fixed[key] = row.get("split", ""), _published(run, protocol, measure, target)
    seeds = len({run.config.seed for run in runs})
    return [
        Entry(*key, split=fixed[key][0], by_seed=by_seed, planned=seeds, published=fixed[key][1])
        for key, by_seed in found.items()
    ]


def about(runs: Sequence[PlannedRun]) -> list[str]:
    """What a reader must know of each set's numbers and of what else was tested on: black box, split, size, notes."""
    lines: dict[str, None] = {}
    for run in filter(plan.is_done, runs):
        result = _read(run, "result.json")
        lines[
            f"{run.label}: {result['black_box']}, {result['split']}, {result['classes']} classes, "
            f"{result['test_images']} test images"
        ] = None
        for name in run.transfers:
            other = _read(run, plan.transfer_file(run, name).name)
            tested = f"{other['split']}, {other['classes']} classes, {other['test_images']} test images"
            lines[f"{run.label} tested on {name}: {tested}"] = None
    failed = [
        f"{run.label}, {run.config.data.shots} shots, seed {run.config.seed} failed: {plan.failure(run)}"
        for run in runs
        if plan.failure(run)
    ]
    return [*lines, *_notes([run for run in runs if plan.is_done(run)]), *failed]


def _notes(runs: Sequence[PlannedRun]) -> list[str]:
    """Each note once, with the sets, and the shots where not all have it, that it holds for."""
    shots = {label: {run.config.data.shots for run in runs if run.label == label} for label in (r.label for r in runs)}
    found: dict[str, dict[str, set[int]]] = {}
    for run in runs:
        for note in _read(run, "result.json")["notes"]:
            found.setdefault(note, {}).setdefault(run.label, set()).add(run.config.data.shots)
    lines = []
    for note, where in found.items():
        places = [
            label if noted == shots[label] else f"{label}, {', '.join(map(str, sorted(noted)))} shots"
            for label, noted in where.items()
        ]
        lines.append(f"{'; '.join(places)}: {note}")
    return lines


def _tests(run: PlannedRun, protocol: str) -> dict[str, dict[str, Any]]:
    """Rows of accuracies by target."""
    own = _read(run, "result.json")
    others = {name: _read(run, plan.transfer_file(run, name).name) for name in run.transfers}
    if protocol == "few_shot":
        return {"test": own}
    # Elsewhere only the model that the run chose is tested, so its own row must be that model's too.
    deployed = {name: own[name] for name in (ZERO_SHOT, CHOSEN, "split")}
    if protocol == "base_to_new":
        return _base_to_new(deployed, others[plan.NEW])
    return {"imagenet" if protocol == "shift" else run.label: deployed, **others}


def _base_to_new(base: dict[str, Any], new: dict[str, Any]) -> dict[str, dict[str, Any]]:
    both = {measure: harmonic_mean(base[measure], new[measure]) for measure in (ZERO_SHOT, CHOSEN)}
    return {"base": base, "new": new, "harmonic mean": both}


def _published(run: PlannedRun, protocol: str, measure: str, target: str) -> float | None:
    name, shots = run.config.data.name, run.config.data.shots
    if protocol == "few_shot" and name in PUBLISHED:
        its = PUBLISHED[name]
        return {
            ZERO_SHOT: its["zero_shot"],
            REFINED: its["accuracy"].get(shots),
            CHOSEN: its["accuracy"].get(shots),
        }.get(measure)
    if protocol == "shift" and shots == 16:
        kind = "zero_shot" if measure == ZERO_SHOT else "tuned" if measure == CHOSEN else ""
        return SHIFTS.get(backbone(run.config.black_box.model), {}).get(kind, {}).get(target)
    return None


def backbone(model: str) -> str:
    """How papers call a model of OpenAI's, or its own name."""
    return "ViT-B/16" if model.rstrip("/").endswith("clip-vit-base-patch16") else model


def _read(run: PlannedRun, name: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((run.workdir / name).read_text(encoding="utf-8"))
    return row
