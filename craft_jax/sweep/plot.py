"""Accuracy over shots, a panel a set: the sweep's with error bars, zero-shot, and the published where there is one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft_jax.errors import needed
from craft_jax.files import replacing
from craft_jax.sweep.results import CHOSEN, PROMPT_ONLY, ZERO_SHOT, Entry

_COLUMNS = 4


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draws a panel for each set into a PNG file; raises NotInstalled where there is no matplotlib."""
    # Imported here: matplotlib builds a font cache on first use, and only a finished sweep needs it.
    with needed("matplotlib", path.name):
        from matplotlib.figure import Figure

    labels = list(dict.fromkeys(entry.label for entry in entries))
    columns = min(len(labels), _COLUMNS)
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(max(5.5, 3.4 * columns), 3.9 * rows if columns == 1 else 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, label in zip(panels, labels, strict=False):
        _draw_set(panel, label, [entry for entry in entries if entry.label == label])
    for panel in panels[len(labels) :]:
        panel.set_axis_off()
    shown = {name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if columns == 1:
        panels[0].legend(fontsize="small")
    else:
        figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown), fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _draw_set(axes: Any, label: str, entries: Sequence[Entry]) -> None:
    chosen = sorted((e for e in entries if e.measure == CHOSEN), key=lambda e: e.shots)
    prompt = sorted((e for e in entries if e.measure == PROMPT_ONLY), key=lambda e: e.shots)
    zero_shot = next(e for e in entries if e.measure == ZERO_SHOT)
    published = [e for e in chosen if e.published is not None]
    axes.axhline(zero_shot.mean, color="0.4", ls=":", label="zero-shot")
    if published:
        axes.plot(
            [e.shots for e in published], [e.published for e in published], "x--", color="0.6", label="published, RN50"
        )
    for series, style, color, name in (
        (prompt, "s-", "tab:blue", "tuned prompt alone"),
        (chosen, "o-", "tab:red", "deployed"),
    ):
        axes.errorbar(
            [e.shots for e in series],
            [e.mean for e in series],
            yerr=[e.std or 0.0 for e in series],
            fmt=style,
            color=color,
            ms=4,
            capsize=3,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([e.shots for e in chosen], [str(e.shots) for e in chosen])
    axes.minorticks_off()
    axes.set(title=label, xlabel="shots a class", ylabel="test accuracy in %")
    axes.grid(alpha=0.3)
