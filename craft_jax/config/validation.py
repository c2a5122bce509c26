"""Checked settings: rules for values, and dataclasses built from nested mappings, with one clear error for a mistake.

A setting is a dataclass field made by `setting`; a group of settings is a field whose type is another such dataclass.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from craft_jax.errors import UserError

Rule = tuple[Callable[[Any], bool], str]
LARGEST = 2**32 - 1  # of whole numbers: what a seed may be, and far beyond what any other setting is of use for


def one_of(*allowed: str) -> Rule:
    """One of the texts named."""
    return (lambda value: value in allowed), "must be one of " + ", ".join(allowed)


def at_least(low: int) -> Rule:
    """No lower than `low`."""
    return (lambda value: value >= low), f"must be at least {low}"


POSITIVE: Rule = (lambda value: value > 0), "must be above 0"
NOT_NEGATIVE: Rule = (lambda value: value >= 0), "must be 0 or more"
SHARE: Rule = (lambda value: 0 <= value <= 1), "must lie between 0 and 1"
SEED: Rule = (lambda value: 0 <= value < 2**32), "must lie between 0 and 2**32 - 1"
CLIP: Rule = (lambda value: value >= 0 or value == -1), "must be 0, above 0, or -1"
TEMPLATE: Rule = (
    lambda value: value.count("{}") == 1 and bool(value.split("{}")[0].strip()),
    "must hold {} once, with words before it that start the soft prompt",
)


def setting(default: Any, rule: Rule | None = None) -> Any:
    """A field with a default and, perhaps, a rule that its values must meet."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def check(section: Any, prefix: str) -> None:
    """Raises UserError where a value of `section`, or of a group in it, has the wrong type or breaks its rule."""
    for field in dataclasses.fields(section):
        name, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check(value, prefix=f"{name}.")
            continue
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UserError(f"{name}={_shortened(value)} is too large; {name} may be {LARGEST} at most")
        if field.type is float and isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value!r} must be a finite number")
        if not _has_type(value, field.type):
            raise UserError(f"{name}={value!r} must be {_type_name(field.type)}, not {type(value).__name__}")
        rule = field.metadata.get("rule")
        if rule and not rule[0](value):
            raise UserError(f"{name}={value!r} {rule[1]}")


def _shortened(value: int) -> str:
    return str(value) if abs(value) < 10**30 else f"a number of {value.bit_length()} bits"


def _type_name(expected: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}.get(expected, str(expected))


def _has_type(value: Any, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    """A `cls` from nested values; raises UserError for an unknown name, with the nearest known one."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"unknown setting {prefix}{name}{_did_you_mean(name, known)}")
        section = known[name].type
        if isinstance(section, type) and dataclasses.is_dataclass(section):
            if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
                raise UserError(
                    f"{prefix}{name} is a group of settings; set one of them, as in {prefix}{name}.NAME=..."
                )
            value = build(section, value, prefix=f"{prefix}{name}.")
        arguments[name] = value
    return cls(**arguments)


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known here: {', '.join(known)}"
