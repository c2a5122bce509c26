"""The study's tasks: three small sets of real photographs that the bundled CLIP can do better than chance.

`caltech24` is the bundled set, the other two lie in benchmarks/search/data (its README says where they come from).
"""

import dataclasses
from pathlib import Path

from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data import FewShotSet, coop

_DATA = Path(__file__).parent / "data"
TASKS = {
    "caltech24": DataConfig(),
    "caltech12": DataConfig(root=str(_DATA / "caltech12"), split="split_caltech12_64px.json"),
    "trashnet6": DataConfig(root=str(_DATA / "trashnet6"), split="split_trashnet6_64px.json"),
}


def settings(task: str, shots: int) -> DataConfig:
    """Where the task's photographs are, and how many to draw."""
    return dataclasses.replace(TASKS[task], shots=shots)


def draw(task: str, shots: int, seed: int) -> FewShotSet:
    """The task's few-shot set."""
    return data.load(settings(task, shots), seed)


def draw_for_tuning(task: str, shots: int, seed: int) -> FewShotSet:
    """A few-shot set that is tested on the training photographs that were not drawn: no test photograph is opened."""
    drawn = draw(task, shots, seed)
    taken = {item.photograph.name for item in drawn.train}
    rest = [item for item in _pool(task).train if item.photograph.name not in taken]
    return dataclasses.replace(drawn, test=tuple(rest), split=f"{drawn.split}, undrawn training photographs")


def _pool(task: str) -> FewShotSet:
    where = TASKS[task]
    root = data.BUNDLED_SET if where.root == "bundled" else Path(where.root)
    return coop.load(root / where.images, root / where.split)
