"""What views of the training photographs are worth: the head in closed form on probes, by how many there are of each.

    python -m benchmarks.search.views [--set=ROOT,IMAGES,SPLIT]

The study's tasks and draws, or a set in CoOp's layout that is named by its folder and, in it, the images and the split
file. The first view is the centre crop, the second its mirror image, the rest are random crops. Writes
benchmarks/results/search_views.md. Ten minutes on one core.
"""

import dataclasses
import statistics
import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks import command
from benchmarks.page import table
from benchmarks.search import draws, study, tasks
from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data import FewShotSet
from craft_jax.method import stacked

TABLE = Path(__file__).parent.parent / "results" / "search_views.md"
VIEWS = (1, 2, 3, 4, 8, 16)


def accuracies(few: FewShotSet, seed: int) -> list[float]:
    """Test accuracy in percent by the first views of each photograph, as many as `VIEWS` says."""
    draw = draws.encode(few, seed, max(VIEWS))
    found = []
    for views in VIEWS:
        probed = draws.probe(draw, seed, views)
        answers = np.asarray(draw.black_box.predict_texts(probed.texts, draw.test.handle))
        found.append(draws.accuracy(stacked.apply(probed.head, answers), draw.test))
    return found


def sets(flags: list[str]) -> dict[str, DataConfig]:
    """The study's tasks, or the set that a flag names."""
    found = tasks.TASKS
    for flag in flags:
        root, *rest = flag.removeprefix("--set=").split(",")
        if len(rest) != 2:
            command.refuse(f"{flag} must be --set=ROOT,IMAGES,SPLIT")
        name = Path(rest[1]).stem
        found = {name: DataConfig(name=name, root=root, images=rest[0], split=rest[1])}
    return found


def main(flags: list[str]) -> None:
    """Runs every draw, and writes the table."""
    rows = []
    for name, source in sets(flags).items():
        for shots in study.SHOTS:
            of_seeds = []
            for seed in study.SEEDS:
                few = data.load(dataclasses.replace(source, shots=shots), seed)
                of_seeds.append(accuracies(few, seed))
                print(name, shots, seed, *(f"{value:.1f}" for value in of_seeds[-1]), flush=True)
                jax.clear_caches()
            means = [statistics.mean(values) for values in zip(*of_seeds, strict=True)]
            rows.append([f"{name}, {shots} shots", len(few.train), *(f"{mean:.1f}" for mean in means)])
    page = table(["", "photographs", *(f"{count} views" if count > 1 else "1 view" for count in VIEWS)], rows)
    if not flags:
        TABLE.write_text(page + "\n", encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
