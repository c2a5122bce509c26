"""Every recipe on three tasks at equal budgets: accuracy over queries and over predictions, and wins.

    python -m benchmarks.search.study [--processes=1] [RECIPE ...]

Recipes run with the settings that `benchmarks.search.tune` chose. Finished runs are kept, under runs/search_study and
in the committed search.json (delete both to begin anew), so that recipes can run side by side and a second call only
reports. Recipes whose schedules stretch over the budget are run anew for each; those of `ANYTIME` are read off along
one run. Writes benchmarks/results/search.md, search.json, search.png and search_cost.png. About eight hours on one
core; --processes run side by side, each on a core of its own.
"""

import itertools
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command
from benchmarks.search import runs, tasks
from craft_jax.config import Config

SHOTS, SEEDS, BUDGETS = (1, 4, 16), (1, 2, 3), (5, 10, 25, 100, 500, 1000, 2000, 4000, 8000)
RUNS = Path("runs/search_study")

# By `benchmarks.search.tune`; benchmarks/results/search_tuning.md.
TUNED: dict[str, dict[str, Any]] = {
    "craft": {},
    "probe": {},
    "by-class": {},
    "prompt-only": {"learn": "prompt"},
    "paper": {"refinement.learning_rate": 3e-3},
    "bbt": {"search.sigma": 0.1},
    "zip": {"prompt.std": 0.1, "search.learning_rate": 0.1},
    "cbbt": {"search.learning_rate": 1e-2, "refinement.learning_rate": 3e-3, "refinement.epochs": 25},
    "head-only": {},
    "white-box": {"search.fitness": "refined", "search.learning_rate": 0.1},
}
RECIPE = {"prompt-only": "by-class"}
BLACK_BOX = [recipe for recipe in TUNED if recipe != "white-box"]

# The budgets that a recipe is run at; searches that learn from losses alone have learnt nothing at 100.
RUN_AT: dict[str, tuple[int, ...]] = {
    "craft": (5, 10, 25, 100, 500, 2000, 8000),
    "probe": (5, 10, 25, 100),
    "bbt": (8000,),
    "zip": (8000,),
    "white-box": (2000,),
}
_SEARCHES = (500, 1000, 2000, 4000, 8000)
ANYTIME = ("bbt", "zip")


class Cell(NamedTuple):
    """One run of the study."""

    recipe: str
    task: str
    shots: int
    seed: int
    queries: int


def cells() -> Iterator[Cell]:
    """Every run, seed by seed and the middle budget first, so that an interrupted study is a smaller one."""
    for queries in sorted(BUDGETS, key=(500, 25, 100, 5, 10, 2000, 8000, 1000, 4000).index):
        for seed, recipe, task, shots in itertools.product(SEEDS, TUNED, tasks.TASKS, SHOTS):
            if queries in RUN_AT.get(recipe, _SEARCHES):
                yield Cell(recipe, task, shots, seed, queries)


def settings(cell: Cell) -> Config:
    """The recipe's, as they were tuned, for the cell's task."""
    name = RECIPE.get(cell.recipe, cell.recipe)
    return runs.settings(name, cell.task, cell.shots, cell.seed, cell.queries, TUNED[cell.recipe])


def run(cell: Cell) -> dict[str, Any]:
    """The result of a run; a finished one is read back."""
    return runs.result(settings(cell), tasks.draw(cell.task, cell.shots, cell.seed), folder(cell))


def folder(cell: Cell) -> Path:
    """Where a run is kept."""
    return RUNS / cell.recipe / f"{cell.task}-{cell.shots}-shots-seed-{cell.seed}-{cell.queries}-queries"


def main(arguments: list[str]) -> None:
    """Runs what is missing of the recipes, and reports on all that is there."""
    from benchmarks.search import verdict  # which reads this module

    chosen = [word for word in arguments if not word.startswith("--")]
    command.check_recipes(chosen, TUNED)
    known = verdict.read()
    missing = [cell for cell in cells() if cell.recipe in (chosen or TUNED) and cell not in known]
    for cell, found in _results(missing, _processes(arguments)):
        print(f"{' '.join(map(str, cell))}: {found['accuracy']:.1f} %", flush=True)
    here = {cell: runs.finished(settings(cell), folder(cell)) for cell in cells()}
    verdict.write(known | {cell: found for cell, found in here.items() if found})


def _processes(arguments: list[str]) -> int:
    given = [word.partition("=")[2] for word in arguments if word.startswith("--processes")]
    if given and not re.fullmatch("[1-9][0-9]*", given[-1]):
        command.refuse(f"--processes={given[-1]} must be a number of processes, 1 at least")
    return int(given[-1]) if given else 1


def _results(missing: list[Cell], processes: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Each run's result when it is there."""
    if processes == 1:
        yield from ((cell, run(cell)) for cell in missing)
        return
    context, cores = multiprocessing.get_context("spawn"), itertools.cycle(sorted(os.sched_getaffinity(0)))
    queue = context.Queue()
    for core in itertools.islice(cores, processes):
        queue.put(core)
    with futures.ProcessPoolExecutor(processes, context, _stay_on_a_core, (queue,)) as pool:
        running = {pool.submit(run, cell): cell for cell in missing}
        for done in futures.as_completed(running):
            yield running[done], done.result()


def _stay_on_a_core(cores: Any) -> None:
    """Before JAX counts the cores that it has."""
    os.sched_setaffinity(0, {cores.get()})


if __name__ == "__main__":
    main(sys.argv[1:])
