"""Clients that search, and exchange z, heads or both: the simulation, its parts, steps and means."""

from craft_jax.clients.searching.simulation import simulate

__all__ = [
    "simulate",
]
