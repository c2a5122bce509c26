"""Black-box tuning of vision-language models in JAX: CraFT, collaborative fine-tuning through queries alone.

What this module names is the public API; the rest may change.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from craft_jax.errors import Interrupted, UserError

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox, BudgetExceeded, GradientRefused, Ledger, Owner, connect_api
    from craft_jax.blackbox import connect as connect_black_box
    from craft_jax.blackbox import load as load_black_box
    from craft_jax.config import (
        ApiConfig,
        BlackBoxConfig,
        ChatConfig,
        Config,
        ConsistencyConfig,
        DataConfig,
        DeployConfig,
        LanguageConfig,
        ProbeConfig,
        PromptConfig,
        RefinementConfig,
        RunConfig,
        SearchConfig,
    )
    from craft_jax.data import FewShotSet, draw_shots, from_arrays
    from craft_jax.data import load as load_dataset
    from craft_jax.evaluation import Accuracy, evaluate
    from craft_jax.prediction import predict
    from craft_jax.training import Outcome, Result, load_run, train
    from craft_jax.tuned_model import TunedModel

__all__ = [
    "Accuracy",
    "ApiConfig",
    "BlackBox",
    "BlackBoxConfig",
    "BudgetExceeded",
    "ChatConfig",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DeployConfig",
    "FewShotSet",
    "GradientRefused",
    "Interrupted",
    "LanguageConfig",
    "Ledger",
    "Outcome",
    "Owner",
    "ProbeConfig",
    "PromptConfig",
    "RefinementConfig",
    "Result",
    "RunConfig",
    "SearchConfig",
    "TunedModel",
    "UserError",
    "connect_api",
    "connect_black_box",
    "draw_shots",
    "evaluate",
    "from_arrays",
    "load_black_box",
    "load_dataset",
    "load_run",
    "predict",
    "train",
]

# Loaded on first use, so that `--help` and errors in settings do not wait for JAX.
_HOMES = {
    "Accuracy": ("evaluation", "Accuracy"),
    "ApiConfig": ("config", "ApiConfig"),
    "BlackBox": ("blackbox", "BlackBox"),
    "BlackBoxConfig": ("config", "BlackBoxConfig"),
    "BudgetExceeded": ("blackbox", "BudgetExceeded"),
    "ChatConfig": ("config", "ChatConfig"),
    "Config": ("config", "Config"),
    "ConsistencyConfig": ("config", "ConsistencyConfig"),
    "DataConfig": ("config", "DataConfig"),
    "DeployConfig": ("config", "DeployConfig"),
    "FewShotSet": ("data", "FewShotSet"),
    "GradientRefused": ("blackbox", "GradientRefused"),
    "LanguageConfig": ("config", "LanguageConfig"),
    "Ledger": ("blackbox", "Ledger"),
    "Outcome": ("training", "Outcome"),
    "Owner": ("blackbox", "Owner"),
    "ProbeConfig": ("config", "ProbeConfig"),
    "PromptConfig": ("config", "PromptConfig"),
    "RefinementConfig": ("config", "RefinementConfig"),
    "Result": ("training", "Result"),
    "RunConfig": ("config", "RunConfig"),
    "SearchConfig": ("config", "SearchConfig"),
    "TunedModel": ("tuned_model", "TunedModel"),
    "connect_api": ("blackbox", "connect_api"),
    "connect_black_box": ("blackbox", "connect"),
    "draw_shots": ("data", "draw_shots"),
    "evaluate": ("evaluation", "evaluate"),
    "from_arrays": ("data", "from_arrays"),
    "load_black_box": ("blackbox", "load"),
    "load_dataset": ("data", "load"),
    "load_run": ("training", "load_run"),
    "predict": ("prediction", "predict"),
    "train": ("training", "train"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("craft_jax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
