"""Any folder of photographs, one sub-folder a class, at 4 shots.

    python -m craft_jax.main --config=configs/folder.py --config.data.root=PHOTOS

The sub-folders' names are the class names. Half of each class's photographs are there to train on, a fifth to
validate and three tenths to test, drawn by `data.split_seed`; sub-folders `train`, `test` and perhaps `val` with the
classes in them are taken as they are. A list of path,label instead, in PHOTOS/list.csv:

    python -m craft_jax.main --config=configs/folder.py --config.data.root=PHOTOS \\
        --config.data.source=csv --config.data.split=list.csv
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(source="folder", root="photos", shots=4)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes, joined by commas."""
    config = Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16"))
    return config_dict(config, variant)
