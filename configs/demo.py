"""The demo: the bundled CLIP and 24 bundled classes of Caltech101, 16 shots, 8,000 queries.

    python -m craft_jax.main --config=configs/demo.py

A minute on two cores. Zero-shot 25.5 %, tuned about 48 % (README). Every setting is the default, chosen on validation
photographs of other shot draws (seeds 11 to 16), never on the test photographs.
"""

import ml_collections

from craft_jax.config import Config
from craft_jax.variants import config_dict


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The default settings; `variant` names recipes, joined by commas."""
    return config_dict(Config(), variant)
