"""SIGTERM, by which clouds and schedulers say that a machine is about to go: a run saves a checkpoint and stops."""

import os
import signal
import sys
from types import FrameType

from craft_jax.errors import RESUMABLE


class Notice:
    """Whether this process was asked to stop. Call `listen` once, then the notice itself wherever a stop is possible.

    Until it is first called there is nothing to save, and a signal ends the process at once, with the same status.
    """

    def __init__(self) -> None:
        self._asked = False
        self._heeded = False

    def listen(self) -> None:
        """Takes SIGTERM over from whatever handled it."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def __call__(self) -> bool:
        """True once the signal has come."""
        self._heeded = True
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if not self._heeded:
            print("stopped by SIGTERM before the first step; the same command starts it again", file=sys.stderr)
            sys.stderr.flush()
            os._exit(RESUMABLE)
