"""The one thread that computes. Jobs of a kind that wait at the same time are done together, in one call."""

import asyncio
import collections
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

Together = Callable[[list[Any]], Sequence[Any]]
"""From the items of one job or of several, one after the other, to one result for each."""


class _Job(NamedTuple):
    together: Together
    items: Sequence[Any]
    done: Future


class Worker:
    """A thread and its queue.

    Args:
      most: items done together; a job of more is done alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="model", daemon=True).start()

    async def do(self, together: Together, items: Sequence[Any]) -> list[Any]:
        """The results of one job; raises what it raises when it is done alone."""
        job = _Job(together, items, Future())
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.done)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                jobs = self._next()
            if not _done(jobs) and len(jobs) > 1:  # one of them is at fault, and the others need not know
                for job in jobs:
                    _done([job])

    def _next(self) -> list[_Job]:
        """The job that has waited longest, and those of its kind that fit beside it."""
        jobs, others = [self._waiting.popleft()], collections.deque[_Job]()
        items = len(jobs[0].items)
        for job in self._waiting:
            fits = job.together == jobs[0].together and items + len(job.items) <= self._most
            (jobs if fits else others).append(job)
            items += len(job.items) if fits else 0
        self._waiting = others
        return jobs


def _done(jobs: list[_Job]) -> bool:
    """Does jobs together; False where that failed, which a job that is alone is told."""
    try:
        results = iter(jobs[0].together([item for job in jobs for item in job.items]))
        parts = [[next(results) for _ in job.items] for job in jobs]
    except Exception as error:
        if len(jobs) == 1:
            _tell(jobs[0].done, error=error)
        return False
    for job, part in zip(jobs, parts, strict=True):
        _tell(job.done, part)
    return True


def _tell(done: Future, result: list[Any] | None = None, error: Exception | None = None) -> None:
    if not done.set_running_or_notify_cancel():  # whoever asked has gone
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
