"""What the page says: figures of the last logged step, and accuracy over queries so far."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax import reporting
from craft_jax.progress import Pace
from craft_jax.training import read_log

Row = dict[str, Any]


class Figure(NamedTuple):
    """A number and what it is of."""

    value: str
    name: str


def page(log: Path, budget: int, pace: Pace) -> str:
    """The page as HTML.

    Args:
      log: metrics.jsonl of the run, which may not be there yet.
      budget: prompts that the run may query.
      pace: of its queries, as far as they were looked at.
    """
    rows = read_log(log)
    zero_shot = rows[0]["test_prompt_only"] if rows and rows[0]["step"] == 0 else None
    html: str = reporting.template("watch.html.jinja").render(
        title=log.absolute().parent.name,
        figures=_figures(rows, budget, pace),
        curve=reporting.charts.curve(rows, zero_shot, None, by_texts=False) if rows else None,
    )
    return html


def _figures(rows: Sequence[Row], budget: int, pace: Pace) -> list[Figure]:
    if not rows:
        return []
    last = rows[-1]
    tested = [row for row in rows if "test_refined" in row and row["step"]]
    found = [Figure(pace.left(last["prompts"] if last["step"] else 0), "left")]
    if "test_probes" in rows[0]:
        found.append(Figure(f"{rows[0]['test_probes']:.1f} %", "of the test, by the probes' head"))
    if tested:
        found.append(Figure(f"{tested[-1]['test_refined']:.1f} %", f"of the test, at step {tested[-1]['step']:,}"))
    found += [Figure(f"{last['train_refined']:.1f} %", "of the shots"), Figure(f"{last['loss']:.3f}", "loss")]
    return [*found, Figure(f"{last['prompts']:,}", f"of {budget:,} queries")]
