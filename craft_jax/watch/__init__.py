"""A page on this machine that shows a run while it goes, from the log that the run writes.

`watched` serves it for as long as a block lasts.
"""

from craft_jax.watch.server import watched

__all__ = ["watched"]
