"""Stanford Cars, 196 models, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/cars.py --config.data.root=DATA

DATA holds `stanford_cars` and `stanford_cars/split_zhou_StanfordCars.json`, as CoOp documents them.
`configs/cars.py:paper` takes the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/cars.py:tfds`, its own split, and every result says
so; with `--config.data.split=stanford_cars/split_zhou_StanfordCars.json` as well, CoOp's, whose images are found by
part and file name, for TFDS numbers those of each part from 1.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="stanford_cars",
    root="data",
    images="stanford_cars",
    split="stanford_cars/split_zhou_StanfordCars.json",
    tfds="cars196",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
