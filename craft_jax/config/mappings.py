"""Settings as ConfigDicts, which the command line can override, and back; and flat, by full name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from craft_jax.config.language import check_language
from craft_jax.config.settings import Config
from craft_jax.config.validation import build


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The settings as a ConfigDict, which the command line can override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
    """Validated settings from a ConfigDict or nested mapping; what is left out takes its default.

    Raises:
      UserError: for an unknown setting (with the nearest known one), a wrong type, a value out of range, or a
        language model that is to be asked and has no address.
    """
    config: Config = build(Config, values, prefix="")
    check_language(
        config.learn, config.language, config.chat
    )  # here, as a recipe names a chat before it has an address
    return config


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full name, such as `data.shots`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
