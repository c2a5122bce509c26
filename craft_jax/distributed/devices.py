"""Where a step runs: one function over (problem, state) on all devices of all hosts. The one place that knows pmap.

Each process feeds its own devices alone; what the function gathers on the axis `AXIS` comes from every device.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from craft_jax.errors import UserError
from craft_jax.method import AXIS

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def choose(wanted: int) -> list[jax.Device]:
    """The first devices of every host, host after host: `wanted` in all, or every device for 0.

    Raises:
      UserError: where there are fewer, or hosts cannot take equal shares.
    """
    hosts, found = jax.process_count(), len(jax.devices())
    by_host = [jax.local_devices(host) for host in range(hosts)]
    platform = jax.devices()[0].platform
    if wanted > found:
        where = f"on {hosts} hosts" if hosts > 1 else "here"
        raise UserError(f"run.devices={wanted}, and JAX finds {found} {where} ({platform}); lower it, or use 0 for all")
    if len({len(own) for own in by_host}) > 1:
        counts = ", ".join(str(len(own)) for own in by_host)
        raise UserError(f"the hosts have different numbers of devices ({counts}); give every host as many")
    if wanted % hosts:
        raise UserError(f"run.devices={wanted} is no multiple of {hosts} hosts, which take equal shares; use 0 for all")
    return [device for own in by_host for device in own[: wanted // hosts or None]]


def check_found() -> None:
    """Raises UserError where JAX finds no device of the kind that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where it knows no such platform's plugin
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).strip() or "none was found").splitlines()[0]
        raise UserError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device here ({reason}); unset it, or set it to cpu, or install "
            "what the platform needs, such as jax[cuda12]"
        ) from error


class Spread:
    """Runs a function over (problem, state) on several devices at once.

    Args:
      devices: at least one, all of a kind, as many of every host, and the same on every host.
    """

    def __init__(self, devices: Sequence[jax.Device]) -> None:
        self.devices = tuple(devices)
        self.own = [device for device in self.devices if device.process_index == jax.process_index()]
        mesh = Mesh(np.array(self.own), (AXIS,))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._one_each = NamedSharding(mesh, PartitionSpec(AXIS))

    def compile(self, run: F, problem_axes: Any = None) -> F:
        """The pmap of `run`; its state argument is donated.

        Args:
          run: (problem, state) -> anything, mapped.
          problem_axes: None where every device sees the whole problem, or a tree of its form with 0 for parts `split`.
        """
        return jax.pmap(run, axis_name=AXIS, in_axes=(problem_axes, 0), devices=self.devices, donate_argnums=(1,))

    def on_own(self, run: F) -> F:
        """The pmap of `run` on this host's devices alone, which asks no other host; the same for the same function.

        Args:
          run: (tree, batch) -> anything; every device sees the whole tree, as `replicate` puts it, and its own batch.
        """
        return _mapped(run, tuple(self.own))

    def each(self, run: Callable[..., T], tree: Any, batches: Sequence[Any]) -> list[T]:
        """`run(tree, batch)` of each batch, in turn on this host's devices, by a program that knows no other device.

        So its bits do not depend on how many devices there are, where a pmap over one is compiled otherwise than over
        several.

        Args:
          run: compiled, by jax.jit.
          tree: put whole on every device.
          batches: any number of them, of one form.

        Returns:
          What each batch gave, in the host's memory.
        """
        placed = [jax.device_put(tree, device) for device in self.own]
        done: list[T] = []
        for first in range(0, len(batches), len(self.own)):
            group = batches[first : first + len(self.own)]
            devices = zip(group, placed, self.own, strict=False)
            done += jax.device_get([run(whole, jax.device_put(batch, device)) for batch, whole, device in devices])
        return done

    def replicate(self, tree: Any) -> Any:
        """Puts a whole tree on every device of this host, for arguments that are not mapped."""
        return jax.device_put(tree, self._everywhere)

    def mapped(self, tree: Any) -> Any:
        """Puts a copy of the tree on every device of this host, with the leading axis of mapped arguments."""
        copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(self.own), *jnp.shape(leaf))), tree)
        return jax.device_put(copies, self._one_each)

    def split(self, tree: Any, axis: int) -> Any:
        """Puts an equal share of every leaf on each device, padded with zeros; this host keeps its devices' alone.

        The shares lie along `axis` in the order of the devices, as `all_gather` joins them.
        """
        mine = [i for i, device in enumerate(self.devices) if device.process_index == jax.process_index()]

        def shares(leaf: Any) -> np.ndarray:
            size = -(-np.shape(leaf)[axis] // len(self.devices))
            padding = [(0, 0)] * np.ndim(leaf)
            padding[axis] = (0, size * len(self.devices) - np.shape(leaf)[axis])
            parts = np.split(np.pad(leaf, padding), len(self.devices), axis)
            return np.stack([parts[i] for i in mine])

        return jax.device_put(jax.tree.map(shares, tree), self._one_each)

    def fetch(self, tree: Any) -> Any:
        """One device's copy of a mapped tree, in this host's memory; all devices hold the same."""
        return jax.tree.map(lambda leaf: leaf[0], jax.device_get(jax.tree.map(_first_copy, tree)))


@functools.cache
def _mapped(run: Any, devices: tuple[jax.Device, ...]) -> Any:
    return jax.pmap(run, in_axes=(None, 0), devices=devices)


def _first_copy(leaf: jax.Array) -> jax.Array:
    return leaf.addressable_data(0)
