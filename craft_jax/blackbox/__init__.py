"""The model that may only be queried: its interface, local and remote ones behind it, the meter before it.

A run has it as `Metered`, which alone asks, and books first in its `Meter`. `loaders/` read weights, `towers/` compute
features, `apis/` ask over HTTP. Only this room imports transformers.
"""

from craft_jax.blackbox import apis, interface
from craft_jax.blackbox.apis import connect_api
from craft_jax.blackbox.billing import CeilingReached, Estimate, cost_of
from craft_jax.blackbox.features import Features, features_of
from craft_jax.blackbox.interface import (
    SOFT_PROMPTS,
    TEXTS,
    BlackBox,
    Described,
    GradientRefused,
    Handle,
    captions,
    check_finite,
    draw_views,
    join_handles,
)
from craft_jax.blackbox.loading import from_identity, from_settings, load
from craft_jax.blackbox.meter import BudgetExceeded, Ledger, Meter, prompts_for
from craft_jax.blackbox.metered import Metered
from craft_jax.blackbox.owned import Owned, TextFeature
from craft_jax.blackbox.remote import Owner, connect, is_remote, owners_errors

__all__ = [
    "CeilingReached",
    "apis",
    "Estimate",
    "Features",
    "features_of",
    "cost_of",
    "SOFT_PROMPTS",
    "TEXTS",
    "TextFeature",
    "BlackBox",
    "BudgetExceeded",
    "Described",
    "GradientRefused",
    "Handle",
    "Ledger",
    "Meter",
    "Metered",
    "Owned",
    "Owner",
    "captions",
    "check_finite",
    "connect",
    "connect_api",
    "draw_views",
    "from_identity",
    "from_settings",
    "interface",
    "is_remote",
    "join_handles",
    "load",
    "owners_errors",
    "prompts_for",
]
