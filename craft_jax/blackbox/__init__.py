"""The model that may only be queried: its wall, its meter, a local CLIP behind it, and a remote one."""

from craft_jax.blackbox.loading import load
from craft_jax.blackbox.meter import BudgetExceeded, Ledger, Meter
from craft_jax.blackbox.remote import Owner, connect, is_remote
from craft_jax.blackbox.wall import BlackBox, GradientRefused, Handle

__all__ = [
    "BlackBox",
    "BudgetExceeded",
    "GradientRefused",
    "Handle",
    "Ledger",
    "Meter",
    "Owner",
    "connect",
    "is_remote",
    "load",
]
