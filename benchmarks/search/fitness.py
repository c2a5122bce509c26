"""Which loss should judge a candidate: its own, that of the refined predictions, or the mean of both.

    python -m benchmarks.search.fitness

On tuning draws of all three tasks (1, 4 and 16 shots, seeds 11 to 13, 2,000 queries), which are tested on training
photographs that were not drawn. `prompt alone` learns no head. Writes benchmarks/results/search_fitness.md; half an
hour on one core. The default of `search.fitness` follows from it.
"""

import itertools
import statistics
from pathlib import Path
from typing import Any

from benchmarks.search import runs, tasks

SHOTS, SEEDS, QUERIES = (1, 4, 16), (11, 12, 13), 2000
RUNS = Path("runs/search_fitness")
TABLE = Path(__file__).parent.parent / "results" / "search_fitness.md"
CONTENDERS: dict[str, dict[str, Any]] = {
    "both": {"search.fitness": "both"},
    "refined": {"search.fitness": "refined"},
    "prompt": {"search.fitness": "prompt"},
    "prompt alone": {"learn": "prompt"},
    "both, 4 views": {"search.fitness": "both", "data.views": 4},
}


def accuracies(name: str, seed: int) -> list[float]:
    """Accuracy of what each run of a seed would deploy."""
    found = []
    for task, shots in itertools.product(tasks.TASKS, SHOTS):
        config = runs.settings("craft", task, shots, seed, QUERIES, CONTENDERS[name])
        folder = RUNS / name / f"{task}-{shots}-shots-seed-{seed}"
        found.append(runs.result(config, tasks.draw_for_tuning(task, shots, seed), folder)["accuracy"])
    return found


def main() -> None:
    """Runs what is missing, prints as it goes, and writes the table."""
    lines = [
        f"Accuracy in percent on undrawn training photographs, mean over {len(tasks.TASKS)} tasks and shots {SHOTS}, "
        f"{QUERIES:,} queries. `python -m benchmarks.search.fitness`.",
        "",
        f"| candidates judged by | mean | {' | '.join(f'seed {seed}' for seed in SEEDS)} |",
        "|---|---|---|---|---|",
    ]
    for name in CONTENDERS:
        by_seed = [statistics.mean(accuracies(name, seed)) for seed in SEEDS]
        cells = " | ".join(f"{mean:.1f}" for mean in by_seed)
        lines.append(f"| {name} | {statistics.mean(by_seed):.1f} | {cells} |")
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
