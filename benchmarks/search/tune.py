"""Settings of every recipe, chosen with equal effort: the same number of settings, draws and queries for each.

    python -m benchmarks.search.tune [RECIPE ...]

Each recipe's six settings run on two draws of caltech24, 4 shots (seed 11) and 16 shots (seed 12), with 2,000 queries,
and are judged on training photographs that were not drawn. Writes benchmarks/results/search_tuning.md. About an hour on
two cores; finished runs under runs/search_tuning are kept.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.search import runs, tasks

TASK, DRAWS, QUERIES = "caltech24", ((4, 11), (16, 12)), 2000
RUNS = Path("runs/search_tuning")
TABLE = Path(__file__).parent.parent / "results" / "search_tuning.md"
INTRO = (
    "Refined accuracy in percent on training photographs that were not drawn: caltech24, 2,000 queries, 4 shots (seed "
    "11) and 16 shots (seed 12); six settings and twelve runs a recipe. `python -m benchmarks.search.tune`. A tenth of "
    "a point was no reason to leave a default."
)

_RATE, _HEAD, _EPOCHS = "search.learning_rate", "refinement.learning_rate", "refinement.epochs"


def _grid(first: str, ones: tuple, second: str, others: tuple) -> list[dict[str, Any]]:
    return [{first: one, second: other} for one, other in itertools.product(ones, others)]


# First the published values and one step from them, then a step further where the best lay at an edge.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "by-class": _grid("search.population_size", (10, 20), _RATE, (0.3, 1.0, 3.0)),
    "paper": _grid("search.sigma", (0.1, 1.0), _HEAD, (1e-3, 3e-3, 1e-2)),
    "bbt": _grid("prompt.std", (0.02, 0.2, 1.0), "search.sigma", (0.1, 1.0)),
    "zip": _grid("prompt.std", (0.02, 0.1), _RATE, (0.01, 0.1, 1.0)),
    # Its 7 steps of 257 queries are few: with 25 epochs in each, its head trains about as long as that of others.
    "cbbt": [{_RATE: 2e-3, _HEAD: 1e-3, _EPOCHS: 1}, {_RATE: 1e-2, _HEAD: 1e-3, _EPOCHS: 1},
             *({_RATE: rate, _HEAD: 3e-3, _EPOCHS: epochs} for rate in (1e-2, 5e-2) for epochs in (1, 25))],
    "head-only": _grid(_HEAD, (1e-3, 3e-3, 1e-2), _EPOCHS, (1, 3)),
    "white-box": _grid("search.fitness", ("both", "refined"), _RATE, (0.03, 0.1, 0.3)),
}  # fmt: skip


def accuracies(recipe: str, changes: dict[str, Any]) -> list[float]:
    """Refined accuracy of every draw under the settings."""
    label = "_".join(f"{name}={value}" for name, value in changes.items())
    found = []
    for shots, seed in DRAWS:
        config = runs.settings(recipe, TASK, shots, seed, QUERIES, {**changes, "held_out": "none"})
        folder = RUNS / recipe / label / f"{shots}-shots-seed-{seed}"
        found.append(runs.result(config, tasks.draw_for_tuning(TASK, shots, seed), folder)["refined"])
    return found


def main(chosen: list[str]) -> None:
    """Runs what is missing, prints as it goes, and writes the table."""
    command.check_recipes(chosen, GRIDS)
    lines = [INTRO, "", "| recipe | settings | mean | 4 shots | 16 shots |", "|---|---|---|---|---|"]
    for recipe in chosen or list(GRIDS):
        for changes in GRIDS[recipe]:
            few, many = accuracies(recipe, changes)
            settings = ", ".join(f"{name}={value}" for name, value in changes.items())
            lines.append(f"| {recipe} | {settings} | {(few + many) / 2:.1f} | {few:.1f} | {many:.1f} |")
            print(lines[-1], flush=True)
    if not chosen:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
