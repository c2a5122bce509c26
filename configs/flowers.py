"""Oxford Flowers, 102 species, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/flowers.py --config.data.root=DATA

DATA holds `oxford_flowers/jpg` and `oxford_flowers/split_zhou_OxfordFlowers.json`, as CoOp documents them.
`configs/flowers.py:paper` takes the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/flowers.py:tfds`, its own split, and every result
says so; with `--config.data.split=oxford_flowers/split_zhou_OxfordFlowers.json` as well, CoOp's.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="oxford_flowers",
    root="data",
    images="oxford_flowers/jpg",
    split="oxford_flowers/split_zhou_OxfordFlowers.json",
    tfds="oxford_flowers102",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
