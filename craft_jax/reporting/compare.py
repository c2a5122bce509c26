"""Two finished runs side by side, and whether they differ on the test's photographs: craft-jax compare runs/a runs/b"""

import csv
import itertools
import json
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from craft_jax.cli import called, parse
from craft_jax.errors import UserError, on_command_line
from craft_jax.files import one_line, shown
from craft_jax.reporting import measures
from craft_jax.reporting.predictions import PREDICTIONS

_USAGE = "usage: {} WORKDIR WORKDIR"
_COLUMN = 30  # columns of a run in the table


class Run(NamedTuple):
    """What a finished run has left: result.json, and of each test photograph its truth and prediction, by path."""

    workdir: str
    result: dict[str, Any]
    answers: dict[str, tuple[str, str]]


class Verdict(NamedTuple):
    """Photographs that both runs have right, one alone, and neither; the p-value that they are right equally often."""

    both: int
    first_alone: int
    second_alone: int
    neither: int
    p: float


def read(workdir: Path) -> Run:
    """What a run has left.

    Raises:
      UserError: where the folder holds no finished run, or one of a version that left no predictions.csv.
    """
    try:
        result = {**json.loads((workdir / "result.json").read_text(encoding="utf-8"))}
        with (workdir / PREDICTIONS).open(encoding="utf-8", newline="") as file:
            answers = {row["path"]: (row["truth"], row["prediction"]) for row in csv.DictReader(file)}
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(f"{shown(workdir)} has no {missing}; give the --workdir of a finished run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{shown(workdir)}: result.json or {PREDICTIONS} is damaged; run it again") from error
    return Run(shown(workdir), result, answers)


def judge(first: Run, second: Run) -> Verdict:
    """McNemar's exact test on the photographs of two runs.

    Raises:
      UserError: where they were not tested on the same ones, by path and label.
    """
    apart = first.answers.keys() ^ second.answers.keys()
    labelled = {path for path in first.answers if path not in apart and _truths_differ(first, second, path)}
    if apart or labelled:
        raise UserError(
            f"{first.workdir} and {second.workdir} were not tested on the same photographs: {len(apart)} are in one "
            f"alone and {len(labelled)} labelled otherwise, such as {min(apart or labelled)}; compare runs on one test"
        )
    counts = [[0, 0], [0, 0]]
    for path in first.answers:
        one, other = ((truth == answer) for truth, answer in (first.answers[path], second.answers[path]))
        counts[one][other] += 1
    (neither, second_alone), (first_alone, both) = counts
    return Verdict(both, first_alone, second_alone, neither, measures.mcnemar(first_alone, second_alone))


def _truths_differ(first: Run, second: Run, path: str) -> bool:
    return first.answers[path][0] != second.answers[path][0]


def table(first: Run, second: Run) -> str:
    """Both runs' figures, a line each."""
    rows: list[tuple[str, ...]] = [("", "a", "b")]
    for title, name, style in (
        ("zero-shot %", "zero_shot", ".1f"), ("accuracy %", "accuracy", ".1f"), ("deployed", "chosen", ""),
        ("shots", "shots", ""), ("classes", "classes", ""), ("seed", "seed", ""), ("queries", "queries", ","),
        ("predictions in all", "ledger", ","),
        ("seconds", "seconds", ".0f"), ("black box", "black_box", ""), ("split", "split", ""),
    ):  # fmt: skip
        found = [_predictions(run) if name == "ledger" else run.result.get(name) for run in (first, second)]
        rows.append((title, *(_figure(value, style) for value in found)))
    of_both = [measures.interval(_right(run), len(run.answers)) for run in (first, second)]
    rows.insert(3, ("95 % interval", *(f"{low:.1f} to {high:.1f}" for low, high in of_both)))
    rows = [line for row in rows for line in _lines(row)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _lines(row: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A row whose long cells go on in further lines."""
    cells = [textwrap.wrap(cell, _COLUMN) or [""] for cell in row]
    return list(itertools.zip_longest(*cells, fillvalue=""))


def _predictions(run: Run) -> int | None:
    """Prompts x images in all."""
    ledger = run.result.get("ledger") or {}
    return sum(count for name, count in ledger.items() if name.endswith("_predictions")) or None


def _figure(value: Any, style: str) -> str:
    if value is None:
        return "-"
    return format(value, style) if isinstance(value, (int, float)) else one_line(str(value))


def _right(run: Run) -> int:
    return sum(truth == answer for truth, answer in run.answers.values())


def sentence(verdict: Verdict) -> str:
    """What the test says, in words."""
    found = "differ" if verdict.p < 0.05 else "may well be equally good"
    return (
        f"Both have {verdict.both:,} photographs right, a alone {verdict.first_alone:,}, b alone "
        f"{verdict.second_alone:,}, neither {verdict.neither:,}.\nMcNemar's exact test: p = {verdict.p:.3g}; "
        f"the two {found} (at 5 %)."
    )


@on_command_line()
def main(argv: list[str]) -> None:
    """Compares the runs that the command line names.

    Raises:
      UserError: for anything but two finished runs that were tested on the same photographs.
    """
    usage = _USAGE.format(called(argv, "craft_jax.reporting.compare"))
    _, given = parse(flags.FlagValues(), argv, usage=usage)
    if len(given) != 2:
        raise UserError(f"two runs are needed, and {len(given)} given; {usage}")
    first, second = (read(Path(folder).expanduser()) for folder in given)
    verdict = judge(first, second)
    print(f"a: {one_line(first.workdir)}\nb: {one_line(second.workdir)}\n\n{table(first, second)}\n")
    print(sentence(verdict))
