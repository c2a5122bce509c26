"""The runs of a sweep as jobs of an engine: submitit's for Slurm, Ray's for a cluster.

The engine finds the machines, waits for them and starts again what they lose. Every machine must see this environment,
the sweep's workdir and the photographs under the same paths.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from craft_jax.cli import engine_options
from craft_jax.errors import RESUMABLE, UserError, first_line, needed
from craft_jax.sweep import processes
from craft_jax.sweep.processes import Failure, Share

_TRIES = 100  # of a run that its machine interrupts
_LOST = 1  # the status of a job of which the engine has no answer
_POLL_SECONDS, _GRACE_SECONDS = 0.2, 60


class Job:
    """A share as an engine carries it out, on whatever machine: runs its command and returns the exit status.

    submitit calls `checkpoint` where the machine's time is up or others go first, and starts what it returns anew.
    """

    def __init__(self, share: Share, folder: str) -> None:
        self._share, self._folder = share, folder
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Runs the command in the folder that the sweep was started in."""
        with _hearing_ctrl_c():  # by which Ray ends a task
            self._process = processes.start(self._share, {}, self._folder)
            try:
                while self._process.poll() is None:  # `wait` would hold a lock that `checkpoint`, a signal's, needs
                    time.sleep(_POLL_SECONDS)
                return self._process.returncode
            finally:
                self._end()

    def checkpoint(self) -> Any:
        """Lets the run save, and says how it goes on."""
        from submitit.helpers import DelayedSubmission

        self._end()
        return DelayedSubmission(Job(self._share, self._folder))

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()  # nothing, where it has ended
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


class Submitted(NamedTuple):
    """A job that an engine has taken: has it ended, its exit status, how to stop it, what the engine calls it."""

    ended: Callable[[], bool]
    status: Callable[[], int]
    cancel: Callable[[], None]
    name: str


class Engine(Protocol):
    """Takes jobs. `at_once` is how many it should be given at a time, where it does not see to that itself."""

    at_once: int

    def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Hands the jobs over, together."""


def run_all(shares: Sequence[Share], engine: Engine, say: Callable[[str], None]) -> list[Failure]:
    """Runs every share by the engine; a run that is interrupted is submitted again, and resumes.

    Returns:
      The failures. Whatever ends this process short of SIGKILL stops the jobs too.
    """
    waiting, tries = list(shares), dict.fromkeys((share.name for share in shares), 0)
    working: list[tuple[Share, Submitted]] = []
    failures: list[Failure] = []
    with processes.stopping(lambda: _cancel([job for _, job in working])):
        while waiting or working:
            room = engine.at_once - len(working)
            fresh, waiting = waiting[:room], waiting[room:]
            for share, job in zip(fresh, engine.submit([Job(share, os.getcwd()) for share in fresh]), strict=True):
                working.append((share, job))
                say(f"{share.name}: submitted as {job.name}")
            for share, job in [(share, job) for share, job in working if job.ended()]:
                working.remove((share, job))
                status = job.status()
                tries[share.name] += 1
                if status == RESUMABLE and tries[share.name] < _TRIES:
                    say(f"{share.name}: interrupted")
                    waiting.append(share)
                    continue
                say(f"{share.name}: {'failed' if status else 'finished'}")
                if status:
                    failures.append(Failure(share, status, processes.last_line(share.log)))
            time.sleep(_POLL_SECONDS)
    return failures


def _cancel(jobs: Sequence[Submitted]) -> None:
    for job in jobs:
        with contextlib.suppress(Exception):  # one that has just ended
            job.cancel()
    until = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < until and not all(job.ended() for job in jobs):
        time.sleep(_POLL_SECONDS)


def build(name: str, options: Sequence[str], workdir: Path, parallel: int) -> Engine:
    """The engine that is called `name`.

    Args:
      name: submitit or ray.
      options: K=V each, what the engine is told of each job: for submitit what AutoExecutor.update_parameters takes,
        such as timeout_min=120 (needed), gpus_per_node=1 and slurm_partition=gpu; for Ray what a remote function's
        options take, such as num_gpus=1.
      workdir: of the sweep; submitit's own files lie below it.
      parallel: the most jobs at once; 1 leaves it to a cluster's engine.

    Raises:
      NotInstalled: where the engine is not.
      UserError: where it does not take the options.
    """
    pairs = engine_options(options)
    try:
        return _Submitit(pairs, workdir, parallel) if name == "submitit" else _Ray(pairs, parallel)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--engine={name} does not take its --engine_option: {first_line(error)}") from error


class _Submitit:
    def __init__(self, options: dict[str, Any], workdir: Path, parallel: int) -> None:
        with needed("submitit", "--engine=submitit"):
            import submitit
        if "timeout_min" not in options:
            raise UserError(
                "--engine=submitit needs how long a run may take before it is started anew, in minutes: "
                "--engine_option=timeout_min=120"
            )
        on_slurm = submitit.AutoExecutor.which() == "slurm"
        self._executor = submitit.AutoExecutor(workdir.absolute() / "jobs", slurm_max_num_timeout=_TRIES)
        if on_slurm and parallel > 1:
            options = {"slurm_array_parallelism": parallel} | options
        self._executor.update_parameters(**{"name": "craft_jax"} | options)
        self.at_once = 1000 if on_slurm else parallel  # sites limit an array, commonly to 1,000 and one

    def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        if not jobs:
            return []
        with _hearing_ctrl_c(), self._executor.batch():  # one array
            made = [self._executor.submit(job) for job in jobs]
        return [Submitted(job.done, partial(self._status, job), job.cancel, f"job {job.job_id}") for job in made]

    def _status(self, job: Any) -> int:
        return _LOST if job.exception() is not None else int(job.result())


@contextlib.contextmanager
def _hearing_ctrl_c() -> Iterator[None]:
    """Inside, SIGINT stops this process and those that are started: a sweep in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Ray:
    def __init__(self, options: dict[str, Any], parallel: int) -> None:
        with needed("ray", "--engine=ray"):
            import ray
        self._ray = ray
        # A machine that is lost is Ray's to replace; a run that ends with a status has told why.
        self._remote = ray.remote(lambda job: job()).options(**{"max_retries": _TRIES, "name": "craft_jax"} | options)
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level="ERROR")
        self.at_once = parallel if parallel > 1 else 1000  # the rest waits in Ray for processors that are free

    def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        made = [self._remote.remote(job) for job in jobs]
        return [
            Submitted(partial(self._ended, ref), partial(self._status, ref), partial(self._ray.cancel, ref), "a task")
            for ref in made
        ]

    def _ended(self, ref: Any) -> bool:
        return bool(self._ray.wait([ref], timeout=0)[0])

    def _status(self, ref: Any) -> int:
        try:
            return int(self._ray.get(ref))
        except self._ray.exceptions.RayError:
            return _LOST
