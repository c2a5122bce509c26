"""Oxford Pets, 37 breeds, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/pets.py --config.data.root=DATA

DATA holds `oxford_pets/images` and `oxford_pets/split_zhou_OxfordPets.json`, as CoOp documents them.
`configs/pets.py:paper` takes the published runs' settings.

From a set that TensorFlow Datasets has prepared in DATA: `configs/pets.py:tfds`, its own split, and every result says
so; with `--config.data.split=oxford_pets/split_zhou_OxfordPets.json` as well, CoOp's.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="oxford_pets",
    root="data",
    images="oxford_pets/images",
    split="oxford_pets/split_zhou_OxfordPets.json",
    tfds="oxford_iiit_pet",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
