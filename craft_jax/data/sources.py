"""From settings to a few-shot set: picks the reader that the settings name, and draws the shots."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from craft_jax import folders
from craft_jax.config import BUNDLED, DataConfig
from craft_jax.data.checks import told
from craft_jax.data.fewshot import FewShotSet, draw_shots, half
from craft_jax.data.readers import coop, csv_file, fgvc, folder, imagenet, tfds
from craft_jax.errors import UserError

_BUNDLED_SET = Path(__file__).parent.parent / "assets" / "caltech24"
_BUNDLED_IMAGES, _BUNDLED_SPLIT = "images.zip", "split_caltech24_64px.json"


def load(config: DataConfig, seed: int) -> FewShotSet:
    """The few-shot set that the settings name, its shots drawn with `seed`, its classes all or a half of them.

    Raises:
      UserError: where the data cannot be read or does not hold the shots.
    """
    return draw(read(config), config, seed)


def draw(whole: FewShotSet, config: DataConfig, seed: int) -> FewShotSet:
    """The shots of a whole set, drawn with `seed`; its classes all or a half of them.

    Raises:
      UserError: where the set does not hold the shots.
    """
    # Drawn before the classes are halved, as CoOp does: the same seed draws the same photographs either way.
    drawn = draw_shots(whole, config.shots, seed, with_replacement=config.with_replacement)
    named = drawn if config.classes == "all" else half(drawn, config.classes)
    return dataclasses.replace(named, settings=config)


def read(config: DataConfig) -> FewShotSet:
    """The whole set that the settings name: all its classes, and all training photographs to draw shots from.

    Raises:
      UserError: where the data cannot be read.
    """
    if config.source == "tfds":
        return told(_read_prepared(config))
    images, split = paths(config)
    return told(_READERS[config.source](images, split, config.split_seed))


def paths(config: DataConfig) -> tuple[Path, Path]:
    """Where the images and the split are that the settings name; raises UserError where the root is not there."""
    if config.root == BUNDLED:
        return _BUNDLED_SET / (config.images or _BUNDLED_IMAGES), _BUNDLED_SET / (config.split or _BUNDLED_SPLIT)
    root = folders.expanded(config.root, "data.root")
    if not root.is_dir():
        raise UserError(f"data.root={config.root}: no such folder; set it to the one that holds the data")
    if not config.split and config.source != "folder":
        raise UserError(f"data.split is empty; name the {_SPLITS[config.source]}, below data.root")
    return root / config.images, root / config.split


def _read_prepared(config: DataConfig) -> FewShotSet:
    root = "" if config.root == BUNDLED else config.root
    if not config.split:
        return tfds.load(config.tfds, root)
    return tfds.load_joined(config.tfds, root, folders.expanded(root, "data.root") / config.split)


_SPLITS = {
    "coop": "split file, such as split_zhou_Caltech101.json",
    "fgvc": "folder of variants.txt and its lists",
    "imagenet": "file of class names, classnames.txt",
    "csv": "list, a CSV file with the columns path,label",
}

_READERS: dict[str, Callable[[Path, Path, int], FewShotSet]] = {
    "coop": lambda images, split, _: coop.load(images, split),
    "fgvc": lambda images, lists, _: fgvc.load(images, lists),
    "imagenet": lambda images, names, _: imagenet.load(images, names),
    "folder": lambda images, _, split_seed: folder.load(images, split_seed),
    "csv": csv_file.load,
}
