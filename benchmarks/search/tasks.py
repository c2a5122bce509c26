"""The study's tasks: three small sets of real photographs that the bundled CLIP can do better than chance.

`caltech24` is the bundled set, the other two lie in benchmarks/search/data (its README says where they come from).
"""

import dataclasses
from pathlib import Path

from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data import FewShotSet

_DATA = Path(__file__).parent / "data"


def _own(name: str) -> DataConfig:
    return DataConfig(name=name, root=str(_DATA / name), images="images.zip", split=f"split_{name}_64px.json")


TASKS = {"caltech24": DataConfig(), "caltech12": _own("caltech12"), "trashnet6": _own("trashnet6")}


def settings(task: str, shots: int) -> DataConfig:
    """Where the task's photographs are, and how many to draw."""
    return dataclasses.replace(TASKS[task], shots=shots)


def draw(task: str, shots: int, seed: int) -> FewShotSet:
    """The task's few-shot set."""
    return data.load(settings(task, shots), seed)


def draw_for_tuning(task: str, shots: int, seed: int) -> FewShotSet:
    """A few-shot set that is tested on the training photographs that were not drawn: no test photograph is opened."""
    drawn = draw(task, shots, seed)
    taken = {item.image.name for item in drawn.train}
    rest = [item for item in data.read(TASKS[task]).train if item.image.name not in taken]
    return dataclasses.replace(drawn, test=tuple(rest), split=f"{drawn.split}, undrawn training photographs")
