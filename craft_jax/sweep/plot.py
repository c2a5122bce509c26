"""Accuracy over shots: a panel a set with a line a method, and where there are several sets a panel of their means.

Of one method alone a panel also has the tuned prompt, without its head and with it: one prompt an image. Error bars are
standard deviations over seeds.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax.errors import needed
from craft_jax.files import replacing
from craft_jax.sweep.results import CHOSEN, PROMPT_ONLY, REFINED, ZERO_SHOT, Entry

_COLUMNS = 4
_COLOURS = ("tab:red", "tab:blue", "tab:green", "tab:purple", "tab:orange", "tab:brown", "tab:pink", "tab:olive")
_OWN = "default"  # the method of a settings file without a variant


class _Line(NamedTuple):
    """One of a panel: its points (shots, accuracy in percent, standard deviation or None), and how it is drawn."""

    name: str
    style: str
    colour: str
    points: list[tuple[int, float, float | None]]


class _Panel(NamedTuple):
    """A set's, or that of the means: a title, zero-shot accuracies by method, and lines."""

    title: str
    zero_shot: dict[str, float]
    lines: list[_Line]


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draws a sweep into a PNG file; raises NotInstalled where there is no matplotlib."""
    # Imported here: matplotlib builds a font cache on first use, and only a finished sweep needs it.
    with needed("matplotlib", path.name):
        from matplotlib.figure import Figure

    shown = panels(entries)
    columns = min(len(shown), _COLUMNS)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(max(5.5, 3.4 * columns), 3.9 * rows if columns == 1 else 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for one, panel in zip(axes, shown, strict=False):
        _draw_panel(one, panel)
    for one in axes[len(shown) :]:
        one.set_axis_off()
    legend = {name: handle for one in axes for handle, name in zip(*one.get_legend_handles_labels(), strict=True)}
    if columns == 1:
        axes[0].legend(fontsize="small")
    else:
        ncols = min(len(legend), 2 * columns)
        figure.legend(legend.values(), legend, loc="outside lower center", ncols=ncols, fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def panels(entries: Sequence[Entry]) -> list[_Panel]:
    """A panel a set, and that of the means over sets where there are several."""
    methods = list(dict.fromkeys(entry.method for entry in entries))
    sets = list(dict.fromkeys(map(_set, entries)))
    found = [_panel_of_set(name, [e for e in entries if _set(e) == name], methods) for name in sets]
    return [*found, *_means(found)] if len(found) > 1 else found


def _set(entry: Entry) -> str:
    """The settings file without the variant, which its label ends with."""
    return entry.label.removesuffix("".join(f"-{part}" for part in entry.method.split(",") if part))


def _panel_of_set(name: str, entries: Sequence[Entry], methods: Sequence[str]) -> _Panel:
    zero_shot: dict[str, float] = {}
    lines = []
    for entry in entries:
        if entry.measure == ZERO_SHOT:
            zero_shot.setdefault(entry.method or _OWN, entry.mean)
    published = {e.shots: e.published for e in entries if e.measure == CHOSEN and e.published is not None}
    if published:
        points: list[tuple[int, float, float | None]] = [(k, published[k], None) for k in sorted(published)]
        lines.append(_Line("published, RN50", "x--", "0.6", points))
    if len(methods) == 1:
        lines.append(_line("tuned prompt alone", "s-", _COLOURS[1], entries, PROMPT_ONLY))
        lines.append(_line("tuned prompt + refinement", "^-", _COLOURS[4], entries, REFINED))
        lines.append(_line("deployed", "o-", _COLOURS[0], entries, CHOSEN))
    else:
        for place, method in enumerate(methods):
            own = [entry for entry in entries if entry.method == method]
            lines.append(_line(method or _OWN, "o-", _COLOURS[place % len(_COLOURS)], own, CHOSEN))
    return _Panel(name, zero_shot, [line for line in lines if line.points])


def _line(name: str, style: str, colour: str, entries: Sequence[Entry], measure: str) -> _Line:
    found = sorted((e for e in entries if e.measure == measure), key=lambda e: e.shots)
    return _Line(name, style, colour, [(e.shots, e.mean, e.std) for e in found])


def _means(sets: Sequence[_Panel]) -> list[_Panel]:
    """The panel of means, of the lines that every set has, at the shots that all of these have."""
    by_name = [{line.name: line for line in panel.lines} for panel in sets]
    lines = []
    for line in sets[0].lines:
        if not all(line.name in of for of in by_name):
            continue
        points = [{shots: accuracy for shots, accuracy, _ in of[line.name].points} for of in by_name]
        common = sorted(set.intersection(*map(set, points)))
        lines.append(line._replace(points=[(k, statistics.mean(of[k] for of in points), None) for k in common]))
    lines = [line for line in lines if line.points]
    unlearnt = {
        method: statistics.mean(panel.zero_shot[method] for panel in sets)
        for method in sets[0].zero_shot
        if all(method in panel.zero_shot for panel in sets)
    }
    return [_Panel(f"mean of {len(sets)} sets", unlearnt, lines)] if lines else []


def _draw_panel(axes: Any, panel: _Panel) -> None:
    for accuracy in dict.fromkeys(panel.zero_shot.values()):
        axes.axhline(accuracy, color="0.4", ls=":", label="zero-shot")
    for line in panel.lines:
        shots, accuracies, deviations = zip(*line.points, strict=True)
        bars = [deviation or 0.0 for deviation in deviations]
        axes.errorbar(
            shots, accuracies, yerr=bars, fmt=line.style, color=line.colour, ms=4, capsize=3, label=_legend(line.name)
        )
    ticks = sorted({shots for line in panel.lines for shots, _, _ in line.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(shots) for shots in ticks])
    axes.minorticks_off()
    axes.set(xlabel="shots a class", ylabel="test accuracy in %")
    axes.set_title(panel.title, parse_math=False)
    axes.grid(alpha=0.3)


def _legend(name: str) -> str:
    """A name as a legend shows it: matplotlib would leave out one with an underscore first, and set $ as formulas."""
    return name.lstrip("_").replace("$", r"\$")
