"""What an exchange leaves for people: result.json, report.md and clients.png, with the trust matrix as a heat map."""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import Ledger
from craft_jax.clients import trust
from craft_jax.clients.client import Item
from craft_jax.clients.measures import Measured
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Federation
from craft_jax.errors import NotInstalled, needed
from craft_jax.files import json_text, replacing, write_atomically

RESULT, REPORT, PICTURE = "result.json", "report.md", "clients.png"
_MEASURES = {"own_mix": "own mix", "uniform": "all classes alike", "unseen": "unseen classes"}


class Found(NamedTuple):
    """What a simulation has found.

    Attributes:
      measured: accuracies by what a row of the report is called; the last is what was asked for.
      trust: that row gives to column, in [0, 1].
      lost: clients that did not answer.
      ledgers: what each client asked.
      logs: what has left each client and come to it.
    """

    measured: dict[str, Measured]
    trust: Float[np.ndarray, "M M"]
    lost: tuple[int, ...]
    ledgers: Sequence[Ledger]
    logs: Sequence[Sequence[Item]]


def write(outcome: Found, federation: Federation, how: ClientsConfig, settings: dict[str, Any], workdir: Path) -> str:
    """Writes all three; returns the table."""
    result = as_result(outcome, federation, how, settings)
    picture = _draw(outcome, workdir / PICTURE)
    write_atomically(workdir / REPORT, page(outcome, federation, how, picture))
    write_atomically(workdir / RESULT, json_text(result, indent=2) + "\n")
    return table(outcome.measured)


def as_result(outcome: Found, federation: Federation, how: ClientsConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    groups = [holding.group for holding in federation.holdings]
    return {
        "split": federation.split,
        "trust": how.trust,
        "exchange": how.exchange,
        "accuracy": {name: measured._asdict() for name, measured in outcome.measured.items()},
        "trust_matrix": trust.rows_of_one(_with_self(outcome.trust)).round(6).tolist(),
        "groups": groups,
        "trust_inside_group": trust.inside(_with_self(outcome.trust), groups),
        "lost": list(outcome.lost),
        "clients": [
            {
                "name": holding.name,
                "photographs": len(holding.train),
                "ledger": dataclasses.asdict(ledger),
                "bytes_sent": traffic(log, "out"),
                "bytes_received": traffic(log, "in"),
            }
            for ledger, log, holding in zip(outcome.ledgers, outcome.logs, federation.holdings, strict=True)
        ],
        "settings": settings,
    }


def table(measured: dict[str, Measured]) -> str:
    """Mean and worst client by row and measure, as Markdown."""
    head = [f"{name}: {part}" for name in _MEASURES.values() for part in ("mean", "worst")]
    rows = [["trust", *head], ["---", *["---:"] * len(head)]]
    names = list(measured)
    for name in names:
        cells = [_cell(getattr(measured[name], measure), of) for measure in _MEASURES for of in (statistics.mean, min)]
        rows.append([f"**{name}**" if name == names[-1] else name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def traffic(log: Sequence[Item], direction: str) -> int:
    """Bytes that have left a client (`out`) or come to it (`in`)."""
    return sum(item.bytes for item in log if item.direction == direction)


def listed(log: Sequence[Item]) -> list[str]:
    """What has left a client, a line each."""
    return [
        f"{item.step}: {item.name} {'x'.join(map(str, item.shape)) or 'a number'}, {item.bytes:,} bytes"
        for item in log
        if item.direction == "out"
    ]


def page(outcome: Found, federation: Federation, how: ClientsConfig, picture: bool) -> str:
    """The report."""
    groups = [holding.group for holding in federation.holdings]
    clients = len(groups)
    lines = [
        f"# {clients} clients, {federation.split}, trust by {how.trust}",
        "",
        "Test accuracy in percent; the last row is what was exchanged, the others are what it is measured against.",
        "",
        table(outcome.measured),
        "",
    ]
    if len(set(groups)) > 1:
        inside = 100 * trust.inside(_with_self(outcome.trust), groups)
        lines += [f"Trust inside the true group: {inside:.1f} %.", ""]
    if outcome.lost:
        lines += [f"Lost on the way: {', '.join(federation.holdings[i].name for i in outcome.lost)}.", ""]
    lines += [f"![Accuracies and trust]({PICTURE})", ""] if picture else []
    lines += [
        "## What each client asked and sent",
        "",
        "| client | photographs | prompts | predictions | bytes sent | bytes received |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for ledger, log, holding in zip(outcome.ledgers, outcome.logs, federation.holdings, strict=True):
        learning = ledger.probe_predictions + ledger.search_predictions + ledger.centre_predictions
        asked = learning + ledger.evaluation_predictions
        sent, received = traffic(log, "out"), traffic(log, "in")
        cells = f"{len(holding.train)} | {ledger.prompts} | {asked:,} | {sent:,} | {received:,}"
        lines.append(f"| {holding.name} | {cells} |")
    lines += ["", "What left the first client, and no image, label or prediction of a photograph of its own:", ""]
    lines += [f"- {line}" for line in listed(outcome.logs[0])] or ["- nothing"]
    return "\n".join([*lines, ""])


def _cell(figures: Sequence[float | None], of: Any) -> str:
    known = [figure for figure in figures if figure is not None]
    return f"{of(known):.1f}" if known else "–"


def _with_self(matrix: np.ndarray) -> np.ndarray:
    """A client that was lost has itself alone."""
    whole = matrix.copy()
    np.fill_diagonal(whole, np.maximum(np.diagonal(whole), 1.0))
    return whole


def _draw(outcome: Found, path: Path) -> bool:
    """Draws accuracies by row and the trust matrix; False, with a note, where there is no matplotlib."""
    try:
        with needed("matplotlib", path.name):
            from matplotlib.figure import Figure
    except NotInstalled as error:
        print(f"note: {error}", file=sys.stderr, flush=True)
        return False
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_accuracies(left, outcome.measured)
    shares = trust.rows_of_one(_with_self(outcome.trust))
    shown = right.imshow(shares, cmap="viridis", vmin=0.0, vmax=max(shares.max(), 1e-6))
    ticks = range(0, len(shares), max(1, len(shares) // 10))
    right.set(title="share of trust", xlabel="in client", ylabel="of client", xticks=ticks, yticks=ticks)
    figure.colorbar(shown, ax=right, shrink=0.85)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return True


def _draw_accuracies(axes: Any, measured: dict[str, Measured]) -> None:
    """Bars for the means, a point for each client."""
    width = 0.8 / len(_MEASURES)
    for number, (measure, title) in enumerate(_MEASURES.items()):
        color = f"C{number}"
        known = [[f for f in getattr(one, measure) if f is not None] for one in measured.values()]
        places = np.arange(len(known)) + (number - 1) * width
        means = [statistics.mean(figures) if figures else 0.0 for figures in known]
        axes.bar(places, means, width * 0.92, color=color, alpha=0.55, label=title)
        for place, figures in zip(places, known, strict=True):
            axes.plot([place] * len(figures), figures, ".", color=color, ms=4)
    axes.set_xticks(range(len(measured)), list(measured))
    axes.set(ylabel="test accuracy in %", ylim=(0, 100), title="mean of the clients, and each")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small", loc="upper left")
