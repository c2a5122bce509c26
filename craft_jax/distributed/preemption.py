"""SIGTERM, by which clouds and schedulers say that a machine is about to go, and Ctrl-C: a run saves and stops."""

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
        self.by_hand = False

    def listen(self) -> None:
        """Takes SIGTERM and Ctrl-C over from whatever handled them, but for a Ctrl-C that is ignored."""
        signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def __call__(self) -> bool:
        """True once the signal has come."""
        self._heeded = True
        return self._asked

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._heeded:
            raise KeyboardInterrupt
        self._asked = self.by_hand = True
        print("\nsaving after the steps under way; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if not self._heeded:
            print("stopped by SIGTERM before the first step; the same command starts it again", file=sys.stderr)
            sys.stderr.flush()
            os._exit(RESUMABLE)
