"""How the hosts of a run find each other: from flags, SLURM's variables or a TPU slice's, by jax.distributed."""

import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import PIL

from craft_jax.distributed import hosts
from craft_jax.errors import UserError, first_line

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "process_count": "JAX_NUM_PROCESSES",
    "process_index": "JAX_PROCESS_ID",
}


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
        hosts.end_at_once,
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
            f"the hosts could not meet ({first_line(error)}); give --coordinator, --process_count and "
            "--process_index, also for a host alone (with a count of 1)"
        ) from error
    finally:
        alarm.cancel()


def check_machines() -> None:
    """Raises UserError on every host where the machines of the hosts that have met are not of one kind."""
    if not hosts.several():
        return
    platform = f"{jax.__version__} {PIL.__version__} {jax.devices()[0].device_kind}"
    hosts.check_alike("versions of JAX or Pillow or kinds of devices", platform, "set them up alike")
