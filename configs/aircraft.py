"""FGVC-Aircraft, 100 variants, at 16 shots, by its own lists.

    python -m craft_jax.main --config=configs/aircraft.py --config.data.root=DATA

DATA holds `fgvc_aircraft`, the archive's folder `data` renamed, as CoOp documents it. `configs/aircraft.py:paper`
takes the published runs' settings.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, config_dict

DATA = DataConfig(
    name="fgvc_aircraft",
    source="fgvc",
    root="data",
    images="fgvc_aircraft/images",
    split="fgvc_aircraft",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes, joined by commas."""
    return config_dict(Config(data=DATA, black_box=BlackBoxConfig(model="openai/clip-vit-base-patch16")), variant)
