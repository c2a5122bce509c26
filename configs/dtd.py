"""DTD, 47 textures, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/dtd.py --config.data.root=DATA

DATA holds `dtd/images` and `dtd/split_zhou_DescribableTextures.json`, as CoOp documents them. `configs/dtd.py:paper`
takes the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/dtd.py:tfds`, its own split, and every result says
so; with `--config.data.split=dtd/split_zhou_DescribableTextures.json` as well, CoOp's.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="dtd",
    root="data",
    images="dtd/images",
    split="dtd/split_zhou_DescribableTextures.json",
    tfds="dtd",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
