"""What the study's runs say: tables at equal queries and at equal predictions, wins, and curves over both."""

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.search import study, tasks
from benchmarks.search.study import ANYTIME, BLACK_BOX, BUDGETS, SEEDS, SHOTS, TUNED, Cell
from craft_jax.config import identity

RESULTS = Path(__file__).parent.parent / "results"
Done = Mapping[Cell, dict[str, Any]]
Point = tuple[float, float]  # mean over all draws, and its standard error


def accuracies(done: Done, recipe: str, budget: int) -> dict[tuple[str, int, int], float]:
    """Test accuracy of every draw (task, shots, seed) that the recipe has been run on with at least that budget."""
    found = {}
    for cell, result in done.items():
        if cell.recipe == recipe and (cell.queries == budget or (recipe in ANYTIME and cell.queries >= budget)):
            along = [accuracy for prompts, _, accuracy in result["curve"] if prompts <= budget]
            at_end = cell.queries == budget
            if at_end or along:
                found[cell[1:4]] = result["accuracy"] if at_end else along[-1]
    return found


def summary(values: Mapping[tuple[str, int, int], float]) -> Point | None:
    """Mean over tasks and shots, and its standard error from the spread over seeds; None where a draw is missing."""
    if len(values) < len(tasks.TASKS) * len(SHOTS) * len(SEEDS):
        return None
    by_seed = [statistics.mean(value for key, value in values.items() if key[2] == seed) for seed in SEEDS]
    return statistics.mean(by_seed), statistics.stdev(by_seed) / len(SEEDS) ** 0.5


def read() -> dict[Cell, dict[str, Any]]:
    """The runs that search.json holds, but for those that the study would not make, or with other settings."""
    path = RESULTS / "search.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    known = {Cell(*(row.pop(name) for name in Cell._fields)): row for row in rows}
    wanted = set(study.cells())
    return {
        cell: row
        for cell, row in known.items()
        if cell in wanted and row["settings"] == identity.digest(study.settings(cell))
    }


def write(done: Done) -> None:
    """Writes search.json, search.md and search.png."""
    points = {
        recipe: {budget: point for budget in BUDGETS if (point := summary(accuracies(done, recipe, budget)))}
        for recipe in TUNED
    }
    kept = [{**cell._asdict(), **{k: result[k] for k in _KEPT if k in result}} for cell, result in done.items()]
    (RESULTS / "search.json").write_text("[\n" + ",\n".join(map(json.dumps, kept)) + "\n]\n", encoding="utf-8")
    _draw(points, done)
    _draw_costs(done)
    tables = (_means(points, done), _by_shots(done), _wins(done), _at_equal_predictions(done))
    page = "\n".join([*(line for table in tables for line in [*table, ""]), _PICTURE, ""])
    (RESULTS / "search.md").write_text(page, encoding="utf-8")
    print(page)


_KEPT = (
    "settings",
    "zero_shot",
    "prompt_only",
    "refined",
    "probes",
    "prompts_per_image",
    "accuracy",
    "chosen",
    "predictions",
    "ledger",
    "steps",
    "seconds",
    "curve",
)
_PICTURE = "![test accuracy over queries](search.png)\n\n![test accuracy over the cost of an image](search_cost.png)"


def _means(points: dict[str, dict[int, Point]], done: Done) -> list[str]:
    header = ["recipe", *(f"{budget:,} queries" for budget in BUDGETS)]
    rows = [[recipe, *(_cell(points[recipe].get(budget)) for budget in BUDGETS)] for recipe in TUNED]
    rows.insert(1, ["craft, one prompt an image", *(_cell(summary(one_prompt(done, b))) for b in BUDGETS)])
    intro = (
        f"Test accuracy in percent, mean over {len(tasks.TASKS)} tasks, shots {SHOTS} and seeds {SEEDS}, ± the "
        "standard error of that mean over the seeds. `white-box` sees gradients: it is a bound, no rival. An empty "
        "cell was not run. `paper`, `bbt`, `zip` and `cbbt` deploy what they end with; the others what validation "
        "photographs choose among zero-shot, prompt, prompt with head, and the probes' head. `craft` and `probe` may "
        "ask as many prompts for an image as they like; with one prompt an image `craft` has its prompt and head."
    )
    return [intro, "", *_table(header, rows)]


def one_prompt(done: Done, budget: int) -> dict[tuple[str, int, int], float]:
    """What `craft` reaches on every draw with its prompt and its head, which ask one prompt an image."""
    return {c[1:4]: run["refined"] for c, run in done.items() if (c.recipe, c.queries) == ("craft", budget)}


def _by_shots(done: Done, budget: int = 2000) -> list[str]:
    header = [f"{budget:,} queries", *(f"{task}, {shots} shots" for task in tasks.TASKS for shots in SHOTS)]
    rows = [["zero-shot", *_each(lambda task, shots: _zero_shot(done, task))]]
    for recipe in TUNED:
        values = accuracies(done, recipe, budget)

        def mean(task: str, shots: int, values: dict = values) -> float | None:
            drawn = [value for key, value in values.items() if key[:2] == (task, shots)]
            return statistics.mean(drawn) if drawn else None

        rows.append([f"{recipe} ({len(values)} draws)", *_each(mean)])
    return _table(header, rows)


def _zero_shot(done: Done, task: str) -> float:
    return next((result["zero_shot"] for cell, result in done.items() if cell.task == task), float("nan"))


def _each(value: Callable[[str, int], float | None]) -> list[str]:
    found = [value(task, shots) for task in tasks.TASKS for shots in SHOTS]
    return ["" if one is None else f"{one:.1f}" for one in found]


def _wins(done: Done) -> list[str]:
    """On how many draws `craft` is above, level with and below each other recipe at the same budget."""
    header = ["craft against", *(f"{budget:,} queries: above / level / below" for budget in BUDGETS)]
    rows = []
    for recipe in [name for name in BLACK_BOX if name != "craft"]:
        row = [recipe]
        for budget in BUDGETS:
            ours, theirs = accuracies(done, "craft", budget), accuracies(done, recipe, budget)
            shared = [ours[key] - theirs[key] for key in ours.keys() & theirs.keys()]
            counts = (sum(d > 0 for d in shared), sum(d == 0 for d in shared), sum(d < 0 for d in shared))
            row.append(" / ".join(map(str, counts)) if shared else "")
        rows.append(row)
    return _table(header, rows)


def _at_equal_predictions(done: Done) -> list[str]:
    """Each rival's largest budget beside `craft` with the largest that asks no more predictions, draw by draw."""
    header = ["at equal predictions", "predictions", "accuracy", "craft's queries", "predictions", "accuracy"]
    ours = {cell: result for cell, result in done.items() if cell.recipe == "craft"}
    rows = []
    for recipe in [name for name in BLACK_BOX if name != "craft"]:
        pairs = []
        for cell, theirs in done.items():
            if cell.recipe == recipe and cell.queries == BUDGETS[-1]:
                same_draw = (own for c, own in ours.items() if c[1:4] == cell[1:4] and _asked(own) <= _asked(theirs))
                pairs.append((theirs, max(same_draw, key=_asked, default=None)))
        if not pairs or any(own is None for _, own in pairs):
            continue
        columns = [[theirs for theirs, _ in pairs], [own for _, own in pairs if own]]
        asked = [f"{statistics.mean(map(_asked, column)):,.0f}" for column in columns]
        accuracy = [f"{statistics.mean(one['accuracy'] for one in column):.1f}" for column in columns]
        queries = sorted({one["ledger"]["prompts"] for one in columns[1]})
        told = f"{queries[0]:,}" if len(queries) == 1 else f"{queries[0]:,} to {queries[-1]:,}"
        name = f"{recipe}, {BUDGETS[-1]:,} queries"
        rows.append([name, asked[0], accuracy[0], told, asked[1], accuracy[1]])
    return _table(header, rows)


def _asked(result: dict[str, Any]) -> int:
    """Predictions that a run asked for, those that train the head and centre the search too, without tests."""
    ledger = result["ledger"]
    total: int = ledger["search_predictions"] + ledger["centre_predictions"] + ledger.get("probe_predictions", 0)
    return total


def _draw(points: dict[str, dict[int, Point]], done: Done) -> None:
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    by_queries, by_predictions = figure.subplots(1, 2, sharey=True)
    for recipe, at in points.items():
        if not at:
            continue
        style = "k*:" if recipe == "white-box" else "o-"
        budgets = sorted(at)
        means, errors = [at[b][0] for b in budgets], [at[b][1] for b in budgets]
        asked = [_predictions(done, recipe, budget) for budget in budgets]
        for axes, x in ((by_queries, budgets), (by_predictions, asked)):
            (line,) = axes.plot(x, means, style, ms=4, label=recipe)
            low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    zero_shot = statistics.mean(_zero_shot(done, task) for task in tasks.TASKS)
    for axes, label in (
        (by_queries, "queries (prompts)"),
        (by_predictions, "predictions asked, those for the head too"),
    ):
        axes.axhline(zero_shot, color="0.4", ls="--", label="zero-shot")
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    by_queries.set_xticks(BUDGETS, labels=[f"{budget:,}" for budget in BUDGETS])
    by_queries.minorticks_off()
    by_queries.set_ylabel("test accuracy in %, mean of all draws")
    figure.legend(*by_queries.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(RESULTS / "search.png", dpi=120)


def _draw_costs(done: Done) -> None:
    """Accuracy over what a labelled image costs: zero-shot and one prompt, and the probes' head at each budget."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for recipe in ("by-class", "craft", "probe"):
        for budget in BUDGETS:
            at = [run for cell, run in done.items() if (cell.recipe, cell.queries) == (recipe, budget)]
            point = summary(accuracies(done, recipe, budget))
            single = summary(one_prompt(done, budget)) if recipe == "craft" else None
            right = recipe != "by-class"
            side: dict[str, Any] = {"xytext": (5 if right else -5, -2), "ha": "left" if right else "right"}
            if point:
                cost = statistics.mean((run.get("prompts_per_image") or {}).get(run["chosen"], 1) for run in at)
                axes.errorbar(cost, point[0], point[1], fmt="os"[recipe == "probe"], color=_COLOURS[recipe], ms=4)
                if recipe != "craft":  # whose budgets all lie on one point there
                    axes.annotate(f"{budget:,}", (cost, point[0]), textcoords="offset points", fontsize=7, **side)
            if single:
                axes.errorbar(1, single[0], single[1], fmt="o", color=_COLOURS[recipe], ms=4)
                axes.annotate(f"{budget:,}", (1, single[0]), textcoords="offset points", fontsize=7, **side)
    for recipe, colour in _COLOURS.items():
        axes.plot([], [], "o", color=colour, label=f"{recipe}, by queries spent")
    axes.axhline(statistics.mean(_zero_shot(done, task) for task in tasks.TASKS), color="0.4", ls="--")
    axes.set(xscale="log", xlabel="prompts asked for each labelled image", ylabel="test accuracy in %")
    axes.grid(alpha=0.3)
    axes.set_xlim(0.6, 60)
    axes.legend(fontsize="small", loc="center")
    figure.savefig(RESULTS / "search_cost.png", dpi=120)


_COLOURS = {"by-class": "tab:grey", "craft": "tab:blue", "probe": "tab:red"}


def _predictions(done: Done, recipe: str, budget: int) -> float:
    """Mean over draws of what a run with that budget asked, without tests."""
    asked = []
    for cell, result in done.items():
        if cell.recipe == recipe and cell.queries >= budget and (recipe in ANYTIME or cell.queries == budget):
            asked.append(budget / cell.queries * _asked(result))
    return statistics.mean(asked)


def _cell(point: Point | None) -> str:
    return f"{point[0]:.1f} ± {point[1]:.1f}" if point else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
