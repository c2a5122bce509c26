"""Caltech101 at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/caltech.py --config.data.root=DATA

DATA holds `caltech-101/101_ObjectCategories` and `caltech-101/split_zhou_Caltech101.json`, as CoOp documents them. From
a set that TensorFlow Datasets has prepared in DATA (its own split, and every result says so):

    python -m craft_jax.main --config=configs/caltech.py:tfds --config.data.root=DATA
"""

import dataclasses

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, to_config_dict


def get_config(source: str = "coop") -> ml_collections.ConfigDict:
    """The settings; `source` is coop or tfds."""
    data = DataConfig(
        source=source,
        root="data" if source == "coop" else "",
        images="caltech-101/101_ObjectCategories",
        split="caltech-101/split_zhou_Caltech101.json",
        name="caltech101",
        shots=16,
        with_replacement=True,
    )
    return to_config_dict(
        dataclasses.replace(Config(), data=data, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16"))
    )
