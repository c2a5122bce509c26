"""Many hosts as one run: meeting by jax.distributed, agreeing, and ending together.

Every host runs the same program. Host 0 alone touches the workdir; what it finds there, and what goes wrong anywhere,
reaches every host here. On a single host nothing of this happens. Source: jax.distributed and multihost_utils.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from craft_jax.errors import RESUMABLE, UserError

T = TypeVar("T")
Handle = Any

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "process_count": "JAX_NUM_PROCESSES",
    "process_index": "JAX_PROCESS_ID",
}
_BROKEN_TRANSFER = re.compile("Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|heartbeat|Connection")
_LONGEST_MESSAGE = 1024
_PIECE = 2**28  # bytes broadcast at once, which every device holds
_A_WEEK = 7 * 24 * 60 * 60 * 1000
_MEETINGS = itertools.count()


class Meeting(NamedTuple):
    """How the hosts of a run find each other.

    Attributes:
      coordinator: host 0's address, HOST:PORT; None where JAX finds it, as the two others.
      processes: how many, one a host (or one a GPU under SLURM).
      number: which of them this is.
    """

    coordinator: str | None = None
    processes: int | None = None
    number: int | None = None


def plan(
    environ: Mapping[str, str],
    *,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    on_tpu_vm: bool = False,
) -> Meeting | None:
    """Where to meet the other hosts; None for a run on this host alone.

    Args:
      environ: environment variables. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID stand in for the
        next three; a SLURM step of several tasks and a TPU slice of several hosts are recognised.
      coordinator: HOST:PORT of host 0.
      process_count: how many processes there are.
      process_index: which of them this is.
      on_tpu_vm: whether this is a Cloud TPU VM, whose slice JAX asks the machine about.

    Raises:
      UserError: where one of the three is missing or out of range.
    """
    given: dict[str, Any] = {"coordinator": coordinator, "process_count": process_count, "process_index": process_index}
    for name, variable in _VARIABLES.items():
        if given[name] is None and environ.get(variable):
            given[name] = environ[variable]
    if any(value is not None for value in given.values()):
        return _explicit(given)
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= environ.keys()
    if slurm and int(environ.get("SLURM_NTASKS", "1")) > 1:
        return Meeting()
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
    if "," in names or slices > 1 or (on_tpu_vm and not names and "TPU_SKIP_MDS_QUERY" not in environ):
        return Meeting()
    return None


def _explicit(given: dict[str, Any]) -> Meeting:
    for name, value in given.items():
        if value is None:
            raise UserError(
                f"--{name} (or {_VARIABLES[name]}) is missing: a run on several hosts needs --coordinator=HOST:PORT, "
                "--process_count and --process_index"
            )
    address, count, index = str(given["coordinator"]), given["process_count"], given["process_index"]
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={address} must be HOST:PORT, the same on every host, with host 0's name")
    try:
        count, index = int(count), int(index)
    except ValueError as error:
        raise UserError(f"--process_count={count} and --process_index={index} must be whole numbers") from error
    if not 0 <= index < count:
        raise UserError(f"--process_index={index} must lie between 0 and --process_count={count} less one")
    return Meeting(address, count, index)


def on_tpu_vm() -> bool:
    """Whether this machine looks like a Cloud TPU VM: libtpu and a TPU's device file are there."""
    found = importlib.util.find_spec("libtpu") is not None
    return found and any(any(Path("/dev").glob(pattern)) for pattern in ("accel[0-9]*", "vfio/[0-9]*"))


def meet(meeting: Meeting, timeout: int) -> None:
    """Joins the run's other hosts; call it before anything else asks JAX for its devices.

    Args:
      meeting: from `plan`.
      timeout: seconds to wait for a host that is missing, after which this process ends with status `RESUMABLE`. One
        that falls silent later counts as lost after a third of it.

    Raises:
      UserError: where JAX cannot tell which hosts there are.
    """
    # Ours is the one answer to SIGTERM: see `preemption`.
    jax.config.update("jax_enable_preemption_service", False)
    where = (
        f"{meeting.coordinator} as host {meeting.number} of {meeting.processes}" if meeting.coordinator else "by itself"
    )
    # JAX would abort the process with a stack trace; it is given longer, so that this clock rings first.
    alarm = threading.Timer(
        timeout,
        end_at_once,
        [f"not every host came within {timeout} s (JAX was to meet them {where}); see that the same command runs on "
         "each and reaches host 0's address, or raise --host_timeout"],
    )  # fmt: skip
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            meeting.coordinator,
            meeting.processes,
            meeting.number,
            cluster_detection_method="deactivate" if meeting.coordinator else None,
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=max(1, timeout // 3),
            shutdown_timeout_seconds=timeout,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the hosts could not meet ({_first_line(error)}); give --coordinator, --process_count and "
            "--process_index, also for a host alone (with a count of 1)"
        ) from error
    finally:
        alarm.cancel()
    if jax.process_count() > 1:
        sys.excepthook = _end_on_unexpected
        platform = f"{jax.__version__} {jax.devices()[0].device_kind}"
        check_alike("versions of JAX or kinds of devices", platform, "set them up alike")


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


def encoded_once(encode: Callable[[], Handle], like: Handle) -> Handle:
    """Runs `encode` on host 0 and gives its arrays to every host, bit by bit: an owner bills every image once.

    Args:
      encode: returns a pytree of NumPy arrays.
      like: a pytree of the same structure.
    """
    if not several():
        return encode()
    leaves = first_alone(lambda: {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(encode()))})
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[str(i)] for i in range(len(leaves))])


def together(action: Callable[[], T]) -> T:
    """Runs `action` on every host; a UserError on one of them is raised on all, with that host's number."""
    if not several():
        return action()
    message, value = b"", None
    try:
        value = action()
    except UserError as error:
        message = str(error).encode()[:_LONGEST_MESSAGE]
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

    A transfer is no place to wait for what host 0 does alone: between CPUs XLA breaks it off after half an hour.
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
        end_at_once(f"host {jax.process_index()} lost another host ({_first_line(error)[:200]})")


def end_at_once(reason: str) -> None:
    """Ends this process with one line and status `RESUMABLE`, without the farewell that JAX would wait for."""
    print(f"error: {reason}; the same command on every host resumes the run", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(RESUMABLE)


def _end_on_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # Leaving by the front door would wait for the others, and they for this host.
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
