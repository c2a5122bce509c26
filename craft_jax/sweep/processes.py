"""Several processes on one machine, each on GPUs of its own (on a machine without any, side by side on its CPU).

A new process for each share of the work; the next share starts as soon as one is through.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax.distributed import initialize
from craft_jax.errors import Interrupted, UserError

USER_ERROR = 2  # the exit status of craft_jax's commands for a UserError


class Share(NamedTuple):
    """A process's work: what messages call it, its command, and the file that takes its output."""

    name: str
    command: Sequence[str]
    log: Path


class Failure(NamedTuple):
    """A process that ended with a status other than 0, and the last line of its output."""

    share: Share
    status: int
    last_line: str


def run_all(shares: Sequence[Share], places: Sequence[Mapping[str, str]], say: Callable[[str], None]) -> list[Failure]:
    """Runs every share, as many at once as there are places.

    Args:
      shares: to run.
      places: each an addition to the environment, from `places_for`.
      say: shows a line.

    Returns:
      The failures. A user's mistake in one share leaves the others alone; after any other end, such as an
      interruption, no new share is started, and those under way are let finish.
    """
    waiting, free = list(shares), list(places)
    working: dict[subprocess.Popen, tuple[Share, Mapping[str, str]]] = {}
    failures: list[Failure] = []
    with stopping(lambda: _stop(working)):
        while working or waiting:
            while waiting and free:
                share, place = waiting.pop(0), free.pop(0)
                working[start(share, place)] = share, place
                say(f"{share.name}: started{_where(place)}")
            for process in [process for process in working if process.poll() is not None]:
                share, place = working.pop(process)
                free.append(place)
                say(f"{share.name}: {'finished' if process.returncode == 0 else 'failed'}")
                if process.returncode:
                    failures.append(Failure(share, process.returncode, last_line(share.log)))
                    waiting = waiting if process.returncode == USER_ERROR else []
            time.sleep(0.05)
    return failures


def places_for(parallel: int) -> list[dict[str, str]]:
    """The environments of `parallel` processes side by side, which part the machine's GPUs among them.

    Raises:
      UserError: where there are GPUs, but fewer than processes, or TPUs, which one process takes all of.
    """
    if parallel > 1 and initialize.on_tpu_vm() and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise UserError(f"--parallel={parallel}: on a Cloud TPU host one process takes all chips; leave it out")
    found = _gpus()
    if not found:
        return [{} for _ in range(parallel)]
    if parallel > len(found):
        raise UserError(f"--parallel={parallel}, and there are {len(found)} GPUs here; lower it")
    each = len(found) // parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(found[i * each : (i + 1) * each])} for i in range(parallel)]


def _gpus() -> list[str]:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return sorted(
        (match[1] for path in Path("/dev").glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", path.name))),
        key=int,
    )


def start(share: Share, place: Mapping[str, str], folder: str | None = None) -> subprocess.Popen:
    """Starts a share's command, with `place` added to the environment, in `folder` or where this process is."""
    share.log.parent.mkdir(parents=True, exist_ok=True)
    with share.log.open("ab") as log:
        return subprocess.Popen(
            share.command, env={**os.environ, **place}, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )


def _where(place: Mapping[str, str]) -> str:
    return "".join(f", {name}={value}" for name, value in place.items())


def last_line(log: Path) -> str:
    """The last line of a share's output."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` at the end, whatever ends the sweep short of SIGKILL; SIGTERM raises Interrupted inside."""

    def leave(*_: Any) -> None:
        raise Interrupted("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        stop()
        signal.signal(signal.SIGTERM, before)


def _stop(working: Iterable[subprocess.Popen]) -> None:
    """Leaves no process behind; the shares save first."""
    for process in working:
        process.terminate()
    for process in working:
        process.wait()
