"""What makes two runs the same: what they learn and what from, not where it lies, nor how they are carried out.

Photographs and black box are told by content; the settings that only say where these lie may change between the parts
of a run, and so may those of `run`, but for the one that changes bits. Resuming, sweeps, reports and studies all go by
what is said here.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from craft_jax.config.api import SHAPES_ANSWERS, ApiConfig
from craft_jax.config.language import ChatConfig, LanguageConfig
from craft_jax.config.mappings import flat_settings
from craft_jax.config.settings import BlackBoxConfig, Config, RunConfig
from craft_jax.errors import UserError

PLACES = frozenset({"data.root", "data.images", "data.split", "black_box.model"})
_LANGUAGE = ("language.", "chat.")  # have a part where learn=texts, and nowhere else
_CHAT = ("chat.model", "chat.calls", "chat.reply_tokens")
_BEFORE_PROBES = {"probe.texts": 0, "deploy.prompts_per_image": 0}
_MOST_VIEWS = "probe.most_views"  # has a part where texts are asked
_CHUNK_PAIRS = "run.chunk_pairs"  # sums in other groups round otherwise
_OF_ANSWERS = frozenset(f"api.{name}" for name in SHAPES_ANSWERS)
_BEFORE = {  # what runs of older versions did not write
    **_BEFORE_PROBES,
    _MOST_VIEWS: 0,
    _CHUNK_PAIRS: RunConfig().chunk_pairs,
    "black_box.api": BlackBoxConfig().api,
    **{f"api.{name}": getattr(ApiConfig(), name) for name in SHAPES_ANSWERS},
    **flat_settings({"language": dataclasses.asdict(LanguageConfig()), "chat": dataclasses.asdict(ChatConfig())}),
}


def is_learnt_by(name: str) -> bool:
    """Whether a setting, by its full name, has a part in what a run learns."""
    carried_out = name.startswith(("run.", "api.", "chat.")) and name not in (_CHUNK_PAIRS, *_CHAT)
    return not carried_out or name in _OF_ANSWERS


def learnt_by(config: Config) -> dict[str, Any]:
    """The settings that decide what a run learns, by full name: all but those of how it is carried out."""
    flat = flat_settings(dataclasses.asdict(config))
    idle = _idle(flat)
    return {name: value for name, value in flat.items() if is_learnt_by(name) and not name.startswith(idle)}


def _idle(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Of flat settings, the beginnings of the names of those that the others leave without a part."""
    language = () if settings.get("learn") == "texts" else _LANGUAGE
    return language if settings.get("probe.texts") else (*language, _MOST_VIEWS)


def tested_on(config: Config) -> dict[str, Any]:
    """The settings that decide which photographs a test is made on."""
    return dataclasses.asdict(config.data)


def digest(config: Config) -> str:
    """Of what a run learns, wherever its photographs and its model lie."""
    settings = {
        name: value
        for name, value in learnt_by(config).items()
        if name not in PLACES and (name, value) not in _BEFORE_PROBES.items()
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def moved(made: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether photographs or model lie elsewhere than they did, so that content must tell if they are the same."""
    return any(made.get(name) != asked.get(name) for name in PLACES)


def check_settings(made: Mapping[str, Any], asked: Mapping[str, Any], workdir: Path) -> None:
    """Raises UserError where flat settings differ in what is learnt, those of places apart.

    Args:
      made: of the run in `workdir`.
      asked: that are to go on with it.
      workdir: as messages call it.
    """
    made = {**_BEFORE, **made}
    idle = _idle(made) + _idle(asked)
    for name in sorted(made.keys() | asked.keys()):
        if name in PLACES or not is_learnt_by(name) or name.startswith(idle):
            continue
        if made.get(name) == asked.get(name):
            continue
        why = ""
        if name == "query_budget":
            why = ": learning rates fall to zero over the budget, so that no run can go on with another"
        raise UserError(
            f"--workdir={workdir} holds a run with {name}={made.get(name)!r}, not {asked.get(name)!r}{why}; choose "
            "another --workdir"
        )
