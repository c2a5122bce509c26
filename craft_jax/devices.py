"""Where a step runs: one function over (problem, state) on several devices at once. The one place that knows pmap."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"

F = TypeVar("F", bound=Callable[..., Any])


class Spread:
    """Runs a function over (problem, state) on several devices at once.

    Args:
      devices: at least one, all of a kind.
    """

    def __init__(self, devices: Sequence[jax.Device]) -> None:
        self.devices = tuple(devices)
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._one_each = NamedSharding(mesh, PartitionSpec(AXIS))

    def compile(self, run: F) -> F:
        """The pmap of `run`; its state argument is donated."""
        return jax.pmap(run, axis_name=AXIS, in_axes=(None, 0), devices=self.devices, donate_argnums=(1,))

    def replicate(self, tree: Any) -> Any:
        """Puts a whole tree on every device, for arguments that are not mapped."""
        return jax.device_put(tree, self._everywhere)

    def mapped(self, tree: Any) -> Any:
        """Puts a copy of the tree on every device, with the leading device axis of mapped arguments."""
        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self.devices), *jnp.shape(leaf))), tree)
        return jax.device_put(copies, self._one_each)

    def fetch(self, tree: Any) -> Any:
        """The first device's copy of a mapped tree, on the host; all devices hold the same."""
        return jax.device_get(jax.tree.map(lambda leaf: leaf[0], tree))
