"""Settings: defaults, ranges, recipes and the published ones, read once at the edge, checked, then frozen.

A new setting goes to `settings`, a new method to `recipes`; `identity` says which settings make two runs the same.
Knows nothing of JAX, so that `--help` answers at once.
"""

from craft_jax.config import identity, packaged
from craft_jax.config.api import FORMS, MOST_MARKS, SHAPES_ANSWERS, ApiConfig, check_api
from craft_jax.config.language import ASKS_CHAT, TEXTS_ALONE, ChatConfig, LanguageConfig, check_language
from craft_jax.config.mappings import flat_settings, from_config_dict, to_config_dict
from craft_jax.config.probes import DeployConfig, ProbeConfig
from craft_jax.config.published import PUBLISHED, SHIFTS, query_budget
from craft_jax.config.settings import (
    BUNDLED,
    CALIBRATION_PROMPTS,
    GAUSS_NEWTON,
    BlackBoxConfig,
    Config,
    ConsistencyConfig,
    DataConfig,
    PromptConfig,
    RefinementConfig,
    RunConfig,
    SearchConfig,
)
from craft_jax.config.variants import config_dict

__all__ = [
    "ASKS_CHAT",
    "ApiConfig",
    "BUNDLED",
    "BlackBoxConfig",
    "CALIBRATION_PROMPTS",
    "ChatConfig",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DeployConfig",
    "FORMS",
    "GAUSS_NEWTON",
    "LanguageConfig",
    "MOST_MARKS",
    "PUBLISHED",
    "ProbeConfig",
    "PromptConfig",
    "RefinementConfig",
    "RunConfig",
    "SHAPES_ANSWERS",
    "SHIFTS",
    "SearchConfig",
    "TEXTS_ALONE",
    "check_api",
    "check_language",
    "config_dict",
    "flat_settings",
    "from_config_dict",
    "identity",
    "packaged",
    "query_budget",
    "to_config_dict",
]
