import ml_collections

from craft_jax.config import Config, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(Config())
