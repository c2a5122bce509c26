"""SUN397, 397 scenes, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/sun.py --config.data.root=DATA

DATA holds `sun397/SUN397` and `sun397/split_zhou_SUN397.json`, as CoOp documents them. `configs/sun.py:paper` takes
the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/sun.py:tfds`, its own split, and every result says
so; with `--config.data.split=sun397/split_zhou_SUN397.json` as well, CoOp's.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="sun397",
    root="data",
    images="sun397/SUN397",
    split="sun397/split_zhou_SUN397.json",
    tfds="sun397",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
