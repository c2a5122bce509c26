"""What may stand after the colon of --config=configs/caltech.py:paper: recipes and sources, joined by commas."""

import dataclasses

import ml_collections

from craft_jax.config import recipes
from craft_jax.config.mappings import to_config_dict
from craft_jax.config.settings import Config
from craft_jax.errors import UserError


def config_dict(config: Config, variant: str) -> ml_collections.ConfigDict:
    """The settings under a variant, as a settings file returns them.

    Args:
      config: the plain settings.
      variant: empty, or names joined by commas: `tfds` takes the images from TensorFlow Datasets, others are recipes.

    Raises:
      UserError: for an unknown name.
    """
    for name in filter(None, variant.split(",")):
        config = _from_tfds(config) if name == "tfds" else recipes.apply(config, name)
    return to_config_dict(config)


def _from_tfds(config: Config) -> Config:
    # It has UCF101 as videos, and ImageNet with WordNet ids for names.
    if not config.data.tfds:
        raise UserError(
            f"variant tfds: TensorFlow Datasets has no {config.data.name or 'such set'} of still images whose class "
            "names a prompt can read; leave it out"
        )
    data = dataclasses.replace(config.data, source="tfds", root="", images="", split="")
    return dataclasses.replace(config, data=data)
