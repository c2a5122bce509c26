"""EuroSAT, 10 kinds of land, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/eurosat.py --config.data.root=DATA

DATA holds `eurosat/2750` and `eurosat/split_zhou_EuroSAT.json`, as CoOp documents them. `configs/eurosat.py:paper`
takes the published runs' settings.

TensorFlow Datasets has no test split of it, so `configs/eurosat.py:tfds`, for images that it has prepared in DATA,
needs `--config.data.split=eurosat/split_zhou_EuroSAT.json` as well.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="eurosat",
    root="data",
    images="eurosat/2750",
    split="eurosat/split_zhou_EuroSAT.json",
    tfds="eurosat/rgb",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
