"""Caltech101, 100 classes, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/caltech.py --config.data.root=DATA

DATA holds `caltech-101/101_ObjectCategories` and `caltech-101/split_zhou_Caltech101.json`, as CoOp documents them.
`configs/caltech.py:paper` takes the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/caltech.py:tfds`, its own split, and every result
says so; with `--config.data.split=caltech-101/split_zhou_Caltech101.json` as well, CoOp's.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="caltech101",
    root="data",
    images="caltech-101/101_ObjectCategories",
    split="caltech-101/split_zhou_Caltech101.json",
    tfds="caltech101",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
