"""Many hosts as one run, once they have met: agreeing, sharing work, and ending together.

Every host runs the same program. Host 0 alone touches the workdir; what it finds there, and what goes wrong anywhere,
reaches every host here. On a single host nothing of this happens. Source: jax.experimental.multihost_utils.
"""

import contextlib
import hashlib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from craft_jax.errors import RESUMABLE, UserError, first_line

T = TypeVar("T")
Handle = Any

_BROKEN_TRANSFER = re.compile("Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|heartbeat|Connection")
_LONGEST_MESSAGE = 1024
_PIECE = 2**28  # bytes sent at once, which every device holds
_A_WEEK = 7 * 24 * 60 * 60 * 1000
_MEETINGS = itertools.count()


def several() -> bool:
    """Whether other hosts take part in this run."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is host 0, which alone writes."""
    return jax.process_index() == 0


def first_alone(action: Callable[[], T]) -> T:
    """Runs `action` on host 0 and gives its value, or its UserError, to every host.

    Args:
      action: returns None, a bool, number or text, or a dict of such and of NumPy arrays.
    """
    if not several():
        return action()
    message, value = b"", None
    if is_first():
        try:
            value = action()
        except UserError as error:
            message = str(error).encode()
        content = serialization.msgpack_serialize({"error": message, "value": value})
    else:
        content = b""
    _wait_for_each_other()
    answer = serialization.msgpack_restore(_broadcast(content))
    if answer["error"]:
        raise UserError(answer["error"].decode())
    return answer["value"]


def handle_of_first(find: Callable[[], Handle | None], like: Handle) -> Handle | None:
    """`first_alone` for arrays: what `find` finds on host 0, on every host, bit by bit.

    Args:
      find: returns a pytree of NumPy arrays, or None.
      like: a pytree of the same structure.
    """
    if not several():
        return find()

    def leaves() -> dict[str, Any]:
        found = find()
        return {} if found is None else {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(found))}

    found = first_alone(leaves)
    return jax.tree.unflatten(jax.tree.structure(like), [found[str(i)] for i in range(len(found))]) if found else None


def in_shares(batches: int, batch_size: int, encode: Callable[[range], Handle]) -> Handle:
    """Every host encodes an equal share of the batches, and all get the whole, bit by bit.

    Args:
      batches: how many.
      batch_size: images in each.
      encode: from the numbers of some batches, perhaps none, to a pytree of NumPy arrays [images of them, ...]. A
        UserError on one host is raised on all.
    """
    if not several():
        return encode(range(batches))
    share = -(-batches // jax.process_count())
    mine = together(lambda: encode(range(batches)[jax.process_index() * share :][:share]))
    return jax.tree.map(lambda leaf: _joined(leaf, share * batch_size)[: batches * batch_size], mine)


def together(action: Callable[[], T]) -> T:
    """Runs `action` on every host; a UserError on one of them is raised on all, with that host's number."""
    if not several():
        return action()
    message, value = b"", None
    try:
        value = action()
    except UserError as error:
        message = str(error).encode()[:_LONGEST_MESSAGE]
    _wait_for_each_other()
    notes = multihost_utils.process_allgather(np.frombuffer(message.ljust(_LONGEST_MESSAGE, b"\0"), np.uint8))
    for host, note in enumerate(notes):
        if note.any():
            raise UserError(f"host {host}: {note.tobytes().rstrip(bytes(1)).decode(errors='replace')}")
    return value  # type: ignore[return-value]


def check_alike(what: str, description: str, remedy: str = "run the same command on every host") -> None:
    """Raises UserError on every host where `description` is not the same on all; `what` names it in the message."""
    if not several():
        return
    digest = np.frombuffer(hashlib.sha256(description.encode()).digest(), np.uint8)
    for host, other in enumerate(multihost_utils.process_allgather(digest)):
        if (other != digest).any():
            raise UserError(f"this host and host {host} have different {what}; {remedy}")


def any_of(flag: bool) -> bool:
    """Whether `flag` is set on any host; every host gets the same answer."""
    return bool(multihost_utils.process_allgather(np.array(flag)).any()) if several() else flag


def _wait_for_each_other() -> None:
    """Returns once every host has come here; at once with an error where one is gone.

    A transfer is no place to wait for another host's work: between CPUs XLA breaks it off after half an hour.
    """
    barrier = multihost.get_barrier_sync_fn()
    barrier(key=f"craft_jax_{next(_MEETINGS)}", timeout_ms=_A_WEEK)


def _broadcast(content: bytes) -> bytes:
    """Host 0's bytes, on every host."""
    pieces, rest = (
        int(n) for n in multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), _PIECE), np.int32))
    )
    sizes = [_PIECE] * pieces + [rest]
    received = []
    for i, size in enumerate(sizes):
        mine = content[i * _PIECE : i * _PIECE + size].ljust(size, b"\0")
        received.append(multihost_utils.broadcast_one_to_all(np.frombuffer(mine, np.uint8)).tobytes())
    return b"".join(received)


def _joined(share: np.ndarray, rows: int) -> np.ndarray:
    """Every host's rows, padded to as many as `rows`, one host's after the other's."""
    padded = np.zeros((rows, *share.shape[1:]), share.dtype)
    padded[: len(share)] = share
    content = padded.reshape(rows, -1).view(np.uint8)
    at_once = max(1, _PIECE // (jax.process_count() * content.shape[1]))
    received = [multihost_utils.process_allgather(content[i : i + at_once]) for i in range(0, rows, at_once)]
    whole = np.concatenate(received, axis=1).view(share.dtype)
    return whole.reshape(-1, *share.shape[1:])


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends this process at once where the block fails because another host is gone; it cannot say goodbye to it."""
    try:
        yield
    except UserError:
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a failed transfer surfaces as the one or the other
        if not several() or not _BROKEN_TRANSFER.search(str(error)):
            raise
        end_at_once(f"host {jax.process_index()} lost another host ({first_line(error)[:200]})")


def end_at_once(reason: str) -> None:
    """Ends this process with one line and status `RESUMABLE`, without the farewell that JAX would wait for."""
    print(f"error: {reason}; the same command on every host resumes the run", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(RESUMABLE)


def end_on_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that no one caught and ends this process: it stands in for `sys.excepthook`."""
    # Leaving by the front door would wait for the others, and they for this host.
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)
