"""The machines: devices (the one place that knows pmap), hosts that act as one, SIGTERM (`preemption`).

Submodules are imported by name, so that those who listen for a signal need not wait for JAX.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from craft_jax.distributed import devices, hosts, initialize, preemption

__all__ = [
    "devices",
    "hosts",
    "initialize",
    "preemption",
]
