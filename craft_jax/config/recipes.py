"""Published black-box methods, and ours, as settings: `--config=configs/demo.py:zip`.

What a recipe does not name stays as it was, the data, the black box, the budget and the seed among it.
"""

import dataclasses
from typing import Any

from craft_jax.config.published import PUBLISHED
from craft_jax.config.settings import Config
from craft_jax.errors import UserError

_SEARCH_ALONE: dict[str, Any] = {"probe": {"texts": 0}, "data": {"views": 32}}
_BY_CLASS = {"estimator": "antithetic", "population_size": 10, "sigma": 1.0}
_PUBLISHED_HEAD = {"dropout": 0.0, "mixup": False, "epochs": 1, "learning_rate": 1e-3}
_PUBLISHED_PROMPT = {"context": "unified", "intrinsic_dim": 512, "std": 0.2, "bound": 5.0}
_CMA_ES = {"estimator": "cma-es", "population_size": 40, "sigma": 1.0, "fitness": "prompt", "guarded": False}

RECIPES: dict[str, dict[str, Any]] = {
    # Ours: the defaults of `config`, which the study in benchmarks/search chose.
    "craft": {},
    # Its first part alone: texts asked once, and a head in closed form; needs no soft prompts.
    "probe": {"learn": "probes"},
    # The same for a model that is billed by requests: each training image as it is, in one of them.
    "api": {"learn": "probes", "data": {"views": 1}},
    # Our antithetic search, which credits each class's own soft prompt with what it did to its class.
    "by-class": {**_SEARCH_ALONE, "search": _BY_CLASS},
    # The same with one soft prompt for all classes, which can go to other classes and other data sets.
    "unified": {
        **_SEARCH_ALONE,
        "prompt": {"context": "unified", "intrinsic_dim": 512},
        "search": {**_BY_CLASS, "population_size": 40, "shaping": "ranks", "learning_rate": 0.5},
    },
    # CraFT as published (Wang et al., ICML 2024), for a set that it does not have; else see `_published_numbers`.
    "paper": {
        **_SEARCH_ALONE,
        "held_out": "none",
        "prompt": _PUBLISHED_PROMPT,
        "search": _CMA_ES,
        "refinement": _PUBLISHED_HEAD,
        "consistency": {"weight": 0.1, "head_share": 0.25},
    },
    # BBT / BPT-VLM (Sun et al., ICML 2022; Yu et al., IJCAI 2023): the prompt alone.
    "bbt": {**_SEARCH_ALONE, "learn": "prompt", "held_out": "none", "prompt": _PUBLISHED_PROMPT, "search": _CMA_ES},
    # ZIP (Park et al., ICLR 2025), on the template's tokens; a query is a minibatch of 128.
    "zip": {
        **_SEARCH_ALONE,
        "learn": "prompt",
        "held_out": "none",
        "prompt": {"context": "low-rank", "intrinsic_dim": 62, "rank": 5, "std": 0.02, "bound": 0.0},
        "search": {
            "estimator": "spsa",
            "population_size": 10,
            "query_images": 128,
            "sigma": 0.01,
            "optimizer": "sgd",
            "schedule": "spall",
            "learning_rate": 0.01,
            "clip": -1.0,
            "guarded": False,
        },
    },
    # CBBT (Guo et al., EMNLP Findings 2023), its adapter on the predictions; eps = sigma sqrt(dim) is about 1e-3.
    "cbbt": {
        **_SEARCH_ALONE,
        "held_out": "none",
        "prompt": {"context": "full", "std": 1.0, "bound": 0.0},
        "search": {
            "estimator": "one-sided",
            "directions": "sphere",
            "population_size": 257,
            "query_images": 32,
            "sigma": 4e-5,
            "learning_rate": 2e-3,
            "clip": 5.0,
            "fitness": "refined",
            "guarded": False,
        },
        "refinement": _PUBLISHED_HEAD,
        "consistency": {"weight": 0.0, "head_share": 0.0},
    },
    # The refinement head alone, on zero-shot predictions.
    "head-only": {**_SEARCH_ALONE, "learn": "refinement", "search": _BY_CLASS},
    # An upper bound for studies: the true gradient of a local model in the place of its estimate.
    "white-box": {**_SEARCH_ALONE, "search": {**_BY_CLASS, "estimator": "white-box"}},
    # A search over texts, by a language model that `chat.address` names, or by changing words; `docs/language.md`.
    "llm": {"learn": "texts", "language": {"proposer": "chat"}},
    "mutation": {"learn": "texts"},
    # Language models as black-box optimisers as published (Liu et al., CVPR 2024): the best template alone.
    "llm-published": {
        "learn": "texts",
        "held_out": "none",
        "deploy": {"prompts_per_image": 1},
        "language": {"proposer": "published", "wordings": 90, "start": 80, "each_round": 1},
    },
}


def apply(config: Config, name: str) -> Config:
    """The settings with a recipe's in their place.

    Raises:
      UserError: where there is no such recipe, or it does not fit the other settings.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    changed = _changed(config, RECIPES[name])
    if name in ("paper", "bbt") and config.data.name in PUBLISHED:
        return _changed(changed, _published_numbers(PUBLISHED[config.data.name]["settings"]))
    return changed


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    return dataclasses.replace(
        config,
        **{
            key: dataclasses.replace(getattr(config, key), **value) if isinstance(value, dict) else value
            for key, value in changes.items()
        },
    )


def _published_numbers(its: dict[str, Any]) -> dict[str, Any]:
    """The published runs' backbone, and their numbers for a set."""
    return {
        "black_box": {"model": "RN50"},
        "prompt": {"std": its["std"], "bound": its["bound"]},
        "search": {"sigma": its["sigma"]},
        "refinement": {"hidden": its.get("hidden", 256), "batch_size": its["batch_size"]},
        "consistency": {"weight": its["consistency"], "head_share": 1 / its["n"]},
    }
