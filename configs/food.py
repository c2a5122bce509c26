"""Food101, 101 dishes, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/food.py --config.data.root=DATA

DATA holds `food-101/images` and `food-101/split_zhou_Food101.json`, as CoOp documents them. `configs/food.py:paper`
takes the published runs' settings.

TensorFlow Datasets has no test split of it, so `configs/food.py:tfds`, for images that it has prepared in DATA, needs
`--config.data.split=food-101/split_zhou_Food101.json` as well; and it must be version 2.1.0, which names the images.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="food101",
    root="data",
    images="food-101/images",
    split="food-101/split_zhou_Food101.json",
    tfds="food101:2.1.0",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
