"""A sweep's numbers for people: table.md and table.csv, and for few shots table.png."""

import csv
import io
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from craft_jax.errors import NotInstalled
from craft_jax.files import write_atomically
from craft_jax.sweep import plot, results
from craft_jax.sweep.plan import PlannedRun
from craft_jax.sweep.results import CHOSEN, PROMPT_ONLY, REFINED, ZERO_SHOT, Entry

MARKDOWN, CSV, PLOT = "table.md", "table.csv", "table.png"
_MEASURE_NAMES = {
    ZERO_SHOT: "zero-shot",
    PROMPT_ONLY: "tuned prompt",
    REFINED: "tuned prompt + head",
    CHOSEN: "deployed",
}
_HEADINGS = {
    "base_to_new": "Deployed is the model that each run chose after tuning on the base classes. A head knows these "
    "alone: new classes are predicted by the prompt of the same model.",
    "cross": "Deployed is the model that each run chose on its own set. A head knows the classes of that set alone: "
    "the others are predicted by the prompt of the same model.",
    "shift": "Deployed is the model that each run chose on ImageNet; a variant scores only the classes that it shares "
    "with ImageNet.",
}


def write(entries: list[Entry], runs: Sequence[PlannedRun], protocol: str, workdir: Path) -> str:
    """Writes the tables, and the plot where it is about shots; returns the Markdown."""
    body = _by_shots(entries) if protocol == "few_shot" else _by_target(entries)
    heading = ["Test accuracy in percent, mean ± standard deviation over seeds " + _seeds(runs) + "."]
    heading += [_HEADINGS[protocol]] if protocol in _HEADINGS else []
    page = "\n".join([*heading, "", *body, "", *(f"- {line}" for line in results.about(runs)), ""])
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / MARKDOWN, page)
    write_atomically(workdir / CSV, _csv(entries))
    if protocol == "few_shot" and entries:
        try:
            plot.draw(entries, workdir / PLOT)
        except NotInstalled as error:
            print(f"note: {error}", file=sys.stderr, flush=True)
    return page


def _seeds(runs: Sequence[PlannedRun]) -> str:
    return ", ".join(dict.fromkeys(str(run.config.seed) for run in runs))


def _by_shots(entries: list[Entry]) -> list[str]:
    """A row for each set and its published figures, a column for zero-shot and each number of shots."""
    labels, shots = _distinct(e.label for e in entries), sorted({e.shots for e in entries})
    cells = {(e.label, e.shots): e for e in entries if e.measure == CHOSEN}
    unlearnt = {e.label: e for e in entries if e.measure == ZERO_SHOT}
    rows = []
    for label in labels:
        row = [cells.get((label, k)) for k in shots]
        rows.append([label, f"{unlearnt[label].mean:.1f}", *map(_cell, row)])
        if unlearnt[label].published is not None:
            rows.append(["*published, RN50*", *map(_figure, [unlearnt[label].published, *map(_published, row)])])
    for method in _distinct(e.method for e in entries):
        rows += _means([label for label in labels if unlearnt[label].method == method], shots, cells, unlearnt, method)
    return _markdown(["set", "zero-shot", *(f"{k} shot{'s' * (k > 1)}" for k in shots)], rows)


def _means(
    labels: Sequence[str], shots: Sequence[int], cells: dict, unlearnt: dict[str, Entry], method: str
) -> list[list[str]]:
    """The means of one method over its sets, where it has several and all of their cells."""
    if len(labels) < 2 or not all((label, k) in cells for label in labels for k in shots):
        return []
    columns = [[unlearnt[label] for label in labels], *([cells[label, k] for label in labels] for k in shots)]
    which = f"mean of {len(labels)}" + (f", {method}" if method else "")
    rows = [[f"**{which}**", *(f"{statistics.mean(entry.mean for entry in column):.1f}" for column in columns)]]
    published = [_mean_of_all([entry.published for entry in column]) for column in columns]
    if any(figure is not None for figure in published):
        rows.append([f"*published mean of {len(labels)}, RN50*", *map(_figure, published)])
    return rows


def _by_target(entries: list[Entry]) -> list[str]:
    """A row for each set, number of shots and measure, and for published figures; a column for each target."""
    targets = _distinct(e.target for e in entries)
    cells = {(e.label, e.shots, e.measure, e.target): e for e in entries}
    rows = []
    for label, shots, measure in _distinct((e.label, e.shots, e.measure) for e in entries):
        row = [cells.get((label, shots, measure, target)) for target in targets]
        rows.append([label, str(shots), _MEASURE_NAMES[measure], *map(_cell, row)])
        if any(_published(entry) is not None for entry in row):
            rows.append(["", "", f"*{_MEASURE_NAMES[measure]}, published*", *map(_figure, map(_published, row))])
    return _markdown(["set", "shots", "predictions", *targets], rows)


def _distinct(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    text = f"{entry.mean:.1f}" if entry.std is None else f"{entry.mean:.1f} ± {entry.std:.1f}"
    done = len(entry.by_seed)
    return text if done == entry.planned else f"{text} ({done} of {entry.planned} seeds)"


def _published(entry: Entry | None) -> float | None:
    return entry.published if entry else None


def _mean_of_all(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return statistics.mean(known) if len(known) == len(figures) else None


def _figure(figure: float | None) -> str:
    return "–" if figure is None else f"*{figure:.1f}*"


def _markdown(columns: list[str], rows: list[list[str]]) -> list[str]:
    aligned = ["---"] + ["---:" for _ in columns[1:]]
    return ["| " + " | ".join(row) + " |" for row in [columns, aligned, *rows]]


def _csv(entries: list[Entry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "shots", "predictions", "target", "split", "mean", "std", "seeds", "by_seed", "published"])
    for e in entries:
        by_seed = " ".join(f"{seed}:{accuracy:.4f}" for seed, accuracy in sorted(e.by_seed.items()))
        std = "" if e.std is None else f"{e.std:.4f}"
        published = "" if e.published is None else e.published
        writer.writerow(
            [e.label, e.shots, e.measure, e.target, e.split, f"{e.mean:.4f}", std, len(e.by_seed), by_seed, published]
        )
    return text.getvalue()
