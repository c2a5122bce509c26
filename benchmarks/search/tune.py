"""Settings of every recipe, chosen with equal effort: the same number of settings, draws and queries for each.

    python -m benchmarks.search.tune [RECIPE ...]

Each recipe's six settings run on two draws of caltech24, 4 shots (seed 11) and 16 shots (seed 12), with 2,000 queries,
and are judged on training photographs that were not drawn. Writes benchmarks/results/search_tuning.md.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

from benchmarks.search import runs, tasks
from craft_jax.entry import pay_compilation_once

TASK, DRAWS, QUERIES = "caltech24", ((4, 11), (16, 12)), 2000
RUNS = Path("runs/search_tuning")
TABLE = Path(__file__).parent.parent / "results" / "search_tuning.md"


def _grid(**values: tuple) -> list[dict[str, Any]]:
    names = [name.replace("__", ".") for name in values]
    return [dict(zip(names, row, strict=True)) for row in itertools.product(*values.values())]


GRIDS: dict[str, list[dict[str, Any]]] = {
    "craft": _grid(search__population_size=(10, 20), search__learning_rate=(0.3, 1.0, 3.0)),
    "paper": _grid(prompt__std=(0.02, 0.2), search__sigma=(0.1, 0.3, 1.0)),
    "bbt": _grid(prompt__std=(0.02, 0.2), search__sigma=(0.1, 0.3, 1.0)),
    "zip": _grid(prompt__std=(0.003, 0.02, 0.1), search__learning_rate=(0.01, 0.1)),
    "cbbt": _grid(search__learning_rate=(2e-3, 1e-2), refinement__learning_rate=(1e-3, 3e-3, 1e-2)),
    "head-only": _grid(refinement__learning_rate=(1e-3, 3e-3, 1e-2), refinement__epochs=(1, 3)),
    "white-box": _grid(search__population_size=(10, 20), search__learning_rate=(0.1, 0.3, 1.0)),
}


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
    lines = ["| recipe | settings | mean | 4 shots | 16 shots |", "|---|---|---|---|---|"]
    for recipe in chosen or list(GRIDS):
        for changes in GRIDS[recipe]:
            few, many = accuracies(recipe, changes)
            settings = ", ".join(f"{name}={value}" for name, value in changes.items())
            lines.append(f"| {recipe} | {settings} | {(few + many) / 2:.1f} | {few:.1f} | {many:.1f} |")
            print(lines[-1], flush=True)
    if not chosen:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    pay_compilation_once()
    main(sys.argv[1:])
