"""UCF101, 101 actions, as middle frames, at 16 shots, as CoOp splits it.

    python -m craft_jax.main --config=configs/ucf.py --config.data.root=DATA

DATA holds `ucf101/UCF-101-midframes` and `ucf101/split_zhou_UCF101.json`, as CoOp documents them.
`configs/ucf.py:paper` takes the published runs' settings.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="ucf101",
    root="data",
    images="ucf101/UCF-101-midframes",
    split="ucf101/split_zhou_UCF101.json",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes and sources, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
