"""What choosing the head's shrinkage and weight without the test costs: the rule, and held-out photographs beside it.

    python -m benchmarks.search.regret

The study's tasks and draws; regret is the accuracy of the best of the grid, by the test and the mean of the seeds, less
that of the head that is fitted. The grid reaches from a tenth of the rule's shrinkage and a quarter of its weight to
ten and four times. Writes benchmarks/results/search_regret.md. Five minutes on one core.
"""

import statistics
from pathlib import Path

import jax
import numpy as np

from benchmarks.page import table
from benchmarks.search import draws, study, tasks
from craft_jax.config import Config
from craft_jax.method import stacked

TABLE = Path(__file__).parent.parent / "results" / "search_regret.md"
UNSEEN, SEEN = "by the rule alone", "with at most four validation photographs a class"


def accuracies(task: str, shots: int, seed: int) -> tuple[dict[str, float], dict[tuple[float, float], float]]:
    """Test accuracy in percent of the heads as they are fitted, and of every head of the grid."""
    views = Config().data.views
    draw = draws.encode(tasks.draw(task, shots, seed), seed, views)
    texts = draws.probe(draw, seed, views).texts
    classes = len(draw.black_box.class_names)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draw.train.handle)
    training, held_out, test = (
        np.asarray(draw.black_box.predict_texts(texts, handle)) if handle is not None else None
        for handle in (rows, draw.held_out.handle, draw.test.handle)
    )
    of = stacked.statistics(training, np.tile(draw.train.labels, views), classes)
    images = len(draw.train.labels) / classes
    fitted = {UNSEEN: stacked.fit(of, images)}
    if held_out is not None:
        fitted[SEEN] = stacked.fit(of, images, held_out, draw.held_out.labels)
    grid = stacked.grid(of, images)

    def accuracy(head: stacked.StackedHead) -> float:
        return draws.accuracy(stacked.apply(head, test), draw.test)

    return {key: accuracy(head) for key, head in fitted.items()}, {key: accuracy(head) for key, head in grid.items()}


def main() -> None:
    """Runs every draw, and writes the table."""
    rows: list[list[str]] = []
    regrets: dict[str, list[float]] = {UNSEEN: [], SEEN: []}
    for task in tasks.TASKS:
        for shots in study.SHOTS:
            of_seeds = [accuracies(task, shots, seed) for seed in study.SEEDS]
            jax.clear_caches()
            best = max(statistics.mean(grid[key] for _, grid in of_seeds) for key in of_seeds[0][1])
            cells = [f"{task}, {shots} shots", f"{best:.1f}"]
            for way, all_of_it in regrets.items():
                values = [found[way] for found, _ in of_seeds if way in found]
                cells.append(f"{statistics.mean(values):.1f}" if values else "–")
                if values:
                    all_of_it.append(best - statistics.mean(values))
            rows.append(cells)
            print(*cells, flush=True)
    rows.append(["mean regret", "", *(f"{statistics.mean(values):.1f}" for values in regrets.values())])
    page = table(["", "best of the grid, by the test", *regrets], rows)
    TABLE.write_text(page + "\n", encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
