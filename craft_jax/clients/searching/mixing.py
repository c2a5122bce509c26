"""Who trusts whom by what clients have learnt, and the means that replace it."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from craft_jax.clients import trust
from craft_jax.clients.searching.parts import Run
from craft_jax.clients.settings import ClientsConfig
from craft_jax.method import TuningState

_LAST = "Dense_1"  # layer of the refinement head that has a column a class


def mixed(
    state: TuningState, believed: Float[np.ndarray, "M M"], counts: Float[np.ndarray, "M C"], how: ClientsConfig
) -> TuningState:
    """Every client's z, head or both as the means by trust; moments of optimisers stay at home.

    What belongs to one class, its soft prompt and its column of the head's last layer, is averaged over those who have
    photographs of it, by how many; for the plain average over all.
    """
    plain = trust.rows_of_one(believed)
    by_class = plain[..., None] if how.trust == "average" else _by_class(believed, counts)

    def rows(leaf: np.ndarray) -> np.ndarray:  # [M, C, ...]
        shares = np.broadcast_to(by_class, (*plain.shape, leaf.shape[1]))
        return np.einsum("ijc,jc...->ic...", shares, leaf).astype(leaf.dtype)

    def whole(leaf: np.ndarray) -> np.ndarray:
        return np.einsum("ij,j...->i...", plain, leaf).astype(leaf.dtype)

    if how.exchange in ("prompt", "both"):
        z = np.asarray(state.search.z)
        mean: Any = rows(z) if z.shape[1] == counts.shape[1] else whole(z)
        state = state._replace(search=state.search._replace(z=mean))
    if how.exchange in ("head", "both"):
        layers = dict(jax.tree.map(whole, state.head.params["params"]))
        last = state.head.params["params"][_LAST]
        layers[_LAST] = {"kernel": rows(last["kernel"].swapaxes(1, 2)).swapaxes(1, 2), "bias": rows(last["bias"])}
        state = state._replace(head=state.head._replace(params={"params": layers}))
    return state


def _by_class(believed: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, "M M C"]:
    """Shares of trust among those who have a class, by how many photographs; plain where nobody has."""
    weighted = believed[..., None] * counts[None]
    total = weighted.sum(axis=1, keepdims=True)
    plain = np.broadcast_to(trust.rows_of_one(believed)[..., None], weighted.shape)
    return np.where(total > 0, weighted / np.where(total > 0, total, 1.0), plain)


def believed_by(run: Run, state: TuningState) -> Float[np.ndarray, "M M"]:
    """The trust matrix by the settings' way: the probability that row and column mean the same by the classes."""
    way, held = run.how.trust, run.counts > 0
    if way in ("average", "pooled"):
        return np.ones((run.clients, run.clients))
    if way == "oracle":
        return np.equal.outer(run.groups, run.groups).astype(float)
    if way == "weights":
        changes = _changes(run, state)
        pairs = [[trust.cosines(one, other) for other in changes] for one in changes]
    elif way == "predictions":
        moved = run.answers(run.public, state) - run.zero_shot(run.public)
        moved = moved - moved.mean(axis=-1, keepdims=True)
        pairs = [[trust.correlations(one, other) for other in moved] for one in moved]
    else:
        pairs = [_judged(run, state, i) for i in range(run.clients)]
    return trust.believe(
        [[trust.match(pairs[i][j], held[i], held[j]) for j in range(run.clients)] for i in range(run.clients)]
    )


def _judged(run: Run, state: TuningState, i: int) -> list[np.ndarray]:
    """How every client's model sees the first view of client i's photographs."""
    own = run.images[i]
    handle = jax.tree.map(lambda leaf: leaf[i, 0, :own], run.party.views)
    labels, held = run.party.labels[i][:own], run.counts[i] > 0
    moved = run.answers(handle, state) - run.zero_shot(handle)
    return [trust.by_images(one, labels, held) for one in moved - moved.mean(axis=-1, keepdims=True)]


def _changes(run: Run, state: TuningState) -> Float[np.ndarray, "M C d"]:
    if run.how.exchange == "head":
        changed: np.ndarray = state.head.params["params"][_LAST]["kernel"].swapaxes(1, 2)
        return changed
    return np.asarray(state.search.z - np.asarray(run.problem.generator.origin))
