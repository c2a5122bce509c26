"""Charts as shapes with coordinates, which the page's template draws as SVG in the colours of light or dark."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from craft_jax.reporting.measures import Bin

WIDTH, HEIGHT = 660, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 14, 44


class Tick(NamedTuple):
    """A place on an axis, and what stands at it."""

    at: float
    text: str


class Line(NamedTuple):
    """A series: its name, the CSS class that colours it, its points, and these as SVG's polyline takes them."""

    name: str
    style: str
    points: list[tuple[float, float]]
    path: str


class Chart(NamedTuple):
    """A frame with axes and series.

    Attributes:
      x_label, y_label: of the axes.
      x_ticks, y_ticks: on them.
      lines: the series.
      deployed: where the deployed model stands.
      accuracy: its text.
    """

    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    deployed: tuple[float, float] | None = None
    accuracy: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


Series = tuple[str, str, Sequence[tuple[float, float]]]


def curve(rows: Sequence[dict[str, Any]], zero_shot: float | None, deployed: float | None, by_texts: bool) -> Chart:
    """Accuracy over queries.

    Args:
      rows: of the log.
      zero_shot: accuracy in percent; None where it is not known yet.
      deployed: the same, of the deployed model; None while there is none.
      by_texts: whether that asks texts, and so was there before the first step.
    """
    count = "prompts" if rows[-1]["prompts"] else "step"
    tested = [row for row in rows if "test_refined" in row and row["step"]]
    last = rows[-1][count]
    start = [] if zero_shot is None else [(0, zero_shot)]
    series: list[Series] = [
        ("test, zero-shot", "quiet dotted", [(at, zero_shot) for at in (0, last) if zero_shot is not None]),
        ("shots, prompt + refinement", "faint", [(row[count], row["train_refined"]) for row in rows if row["step"]]),
    ]
    if tested:
        series += [
            ("test, prompt alone", "first", [*start, *((row[count], row["test_prompt_only"]) for row in tested)]),
            ("test, prompt + refinement", "second", [*start, *((row[count], row["test_refined"]) for row in tested)]),
        ]
    if "test_probes" in rows[0]:
        series.append(("test, probes + head", "third", [(rows[0][count], rows[0]["test_probes"])]))
    at = rows[0][count] if by_texts else last
    x_label = "queries (prompts evaluated)" if count == "prompts" else "steps"
    mark = None if deployed is None else (at, deployed)
    return _chart(x_label, "accuracy in %", series, mark, "" if mark is None else f"{deployed:.1f} %")


def diagram(plain: Sequence[Bin], tempered: Sequence[Bin]) -> Chart:
    """Accuracy over confidence in percent, in bins: on the diagonal where a model's confidence is what it claims."""
    series: list[Series] = [("as confident as right", "quiet dotted", [(0, 0), (100, 100)])]
    for name, style, bins in (("as it answers", "first", plain), ("at the temperature", "second", tempered)):
        if bins:
            series.append((name, style, [(100 * b.confidence, 100 * b.accuracy) for b in bins]))
    return _chart("confidence in %", "accuracy in %", series, None, "")


def _chart(x_label: str, y_label: str, series: Sequence[Series], mark: tuple[float, float] | None, text: str) -> Chart:
    series = [one for one in series if one[2]]
    points = [point for _, _, line in series for point in line] + ([mark] if mark else [])
    x_end = max(*(x for x, _ in points), 1e-9)
    x_ticks, y_ticks = _steps(0.0, x_end), _steps(min(y for _, y in points), max(y for _, y in points))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = point[0] / x_end
        up = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        x, y = _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    lines = []
    for name, style, line in series:
        placed = [place(point) for point in line]
        lines.append(Line(name, style, placed, " ".join(f"{x},{y}" for x, y in placed)))
    return Chart(
        x_label,
        y_label,
        [Tick(place((x, y_ticks[0]))[0], f"{x:,.0f}") for x in x_ticks if x <= x_end],
        [Tick(place((0, y))[1], f"{y:,.0f}") for y in y_ticks],
        lines,
        mark and place(mark),
        text,
    )


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, some five of them."""
    span = max(high - low, 1.0)
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times * 5 >= span)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [step * i for i in range(first, last + 1)]
