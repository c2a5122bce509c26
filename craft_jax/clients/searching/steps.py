"""Steps of many clients at once: a few vmapped on each device.

How few does not depend on the devices, so neither do the bits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import Handle
from craft_jax.config import Config
from craft_jax.distributed import devices
from craft_jax.method import AXIS, Method, Problem, TuningState, collaborative, estimators, refinement
from craft_jax.randomness import Stream, stream_key

_CHUNKS = 8  # as many devices have work


class Party(NamedTuple):
    """What simulated clients have, each leaf with the leading axis M.

    Attributes:
      views: of their photographs, [M, V, N, ...]; a client with fewer than N has some of its own again.
      labels: [M, N].
      number: of the client, which its randomness is drawn by.
      state: of its search and head.
    """

    views: Handle
    labels: Any
    number: Any
    state: TuningState


def over_devices(spread: devices.Spread, one: Callable[..., Any], shared: Any, party: Any) -> Any:
    """one(shared, what a client has) for M clients, leaves [M, ...] in and out, on the host; vmapped chunk by chunk."""
    party = jax.device_get(party)
    clients = jax.tree.leaves(party)[0].shape[0]
    together = -(-clients // _CHUNKS)

    def chunk(first: int) -> Any:
        taken = np.minimum(np.arange(first, first + together), clients - 1)  # the last again, which is cut away
        return jax.tree.map(lambda leaf: leaf[taken], party)

    done = spread.each(_of_chunk(one), shared, [chunk(first) for first in range(0, clients, together)])
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:clients], *done)


@functools.cache
def _of_chunk(one: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


@functools.cache
def local(method: Method, config: Config, whole: int, steps: int) -> Callable[..., TuningState]:
    """((problem, nothing), party of one) -> its state after `steps` of the `whole` run's."""

    def one(shared: tuple[Problem, None], party: Party) -> TuningState:
        problem, _ = shared
        own = problem.replace(
            views=party.views, labels=party.labels, seed_key=jax.random.fold_in(problem.seed_key, party.number)
        )
        key = jax.random.fold_in(stream_key(config.seed, Stream.DIRECTIONS), party.number)
        search = estimators.build(config.search, key, problem.generator.origin, whole)
        many = collaborative.run_steps(collaborative.build_step(method._replace(search=search)), steps)
        # An axis of one: clients are spread over devices, and candidates are not.
        alone = jax.vmap(many, in_axes=(None, 0), axis_name=AXIS)
        state, _ = alone(own, jax.tree.map(lambda leaf: leaf[None], party.state))
        return jax.tree.map(lambda leaf: leaf[0], state)

    return one


def answers(shared: tuple[Problem, Handle], state: TuningState) -> Float[Any, "N C"]:
    """A client's refined logits of N images."""
    problem, handle = shared
    logits = problem.black_box.predict(problem.generator(state.search.z)[None], handle)[0]
    return refinement.apply(state.head.params, logits)


def answers_of_own(shared: tuple[Problem, None], own: tuple[TuningState, Handle]) -> Float[Any, "N C"]:
    """A client's refined logits of N images of its own."""
    state, handle = own
    return answers((shared[0], handle), state)
