"""The model that may only be queried: its wall, its meter, and a local CLIP behind it."""

from craft_jax.blackbox.loading import load
from craft_jax.blackbox.meter import BudgetExceeded, Ledger, Meter
from craft_jax.blackbox.wall import BlackBox, GradientRefused, Handle

__all__ = ["BlackBox", "BudgetExceeded", "GradientRefused", "Handle", "Ledger", "Meter", "load"]
