"""Few-shot sets: where images come from, how shots are drawn, how pixels are prepared."""

from pathlib import Path

from craft_jax.config import BUNDLED, DataConfig
from craft_jax.data import coop, prepared
from craft_jax.data.fewshot import FewShotSet, Labelled, draw_shots
from craft_jax.data.photographs import Photograph, PhotographFile

__all__ = ["FewShotSet", "Labelled", "Photograph", "PhotographFile", "draw_shots", "load"]

BUNDLED_SET = Path(__file__).parent.parent / "assets" / "caltech24"


def load(config: DataConfig, seed: int) -> FewShotSet:
    """The few-shot set that the settings name, its shots drawn with `seed`.

    Raises:
      UserError: where the data cannot be read or does not hold the shots.
    """
    if config.source == "tfds":
        pool = prepared.load(config.name, config.root)
    else:
        root = BUNDLED_SET if config.root == BUNDLED else Path(config.root).expanduser()
        pool = coop.load(root / config.images, root / config.split)
    return draw_shots(pool, config.shots, seed, with_replacement=config.with_replacement)
