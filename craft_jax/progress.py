"""What a person sees of a run while it goes: one live bar, or plain lines where standard output is no terminal."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import tqdm

from craft_jax.blackbox import Ledger

_MOMENT = 2  # seconds that pass in silence
_BETWEEN_LINES = 10  # seconds
_COLUMNS, _ROWS = 80, 24


class Pace:
    """The time that a run has left, by its pace since something was first done, before which it compiled.

    Args:
      total: steps, queries or images in all.
      clock: seconds.
      start: of them, done before.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic, *, start: int = 0) -> None:
        self._total, self._clock, self._start = total, clock, start
        self._first: tuple[float, int] | None = None

    def left(self, done: int) -> str:
        """Minutes and seconds; `--:--` until a second look has found more done."""
        now = self._clock()
        if done >= self._total:
            return _clock_text(0)
        if self._first is None and done > self._start:
            self._first = now, done
        if self._first is None or done <= self._first[1]:
            return "--:--"
        began, first = self._first
        return _clock_text((now - began) / (done - first) * (self._total - done))


class Progress:
    """Shows steps, queries, loss, accuracy and time left.

    Args:
      steps: of the whole run.
      start: step that the run starts or resumes at.
      budget: prompts that the run may query.
      stream: where to show; a bar on a terminal, plain lines elsewhere.
      clock: seconds.
    """

    def __init__(
        self,
        steps: int,
        start: int,
        budget: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stdout
        self._steps, self._budget = steps, budget
        self._pace = Pace(steps, clock, start=start)
        self._bar = tqdm.tqdm(
            total=steps,
            initial=start,
            file=self._stream,
            disable=not is_terminal(self._stream),
            unit="step",
            **_width(self._stream),
            bar_format="{n_fmt}/{total_fmt} {desc}{bar:10}",
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, row: dict[str, Any], ledger: Ledger) -> None:
        """Shows a logged step, and what was asked of the black box up to it."""
        left = self._pace.left(row["step"])
        if not self._bar.disable:
            tested = _tested(row)
            self._bar.set_description_str(
                f"{left} left, train {row['train_refined']:.1f} %{tested}, loss {row['loss']:.3f}, "
                f"{ledger.prompts:,} queries ",
                refresh=False,
            )
            self._bar.update(row["step"] - self._bar.n)
            self._bar.refresh()
            return
        text = (
            f"queries {ledger.prompts:,} of {self._budget:,}, predictions {ledger.search_predictions:,} "
            f"(+ {ledger.centre_predictions:,} head, {ledger.evaluation_predictions:,} test), "
            f"images {ledger.images_encoded:,}, loss {row['loss']:.4f}, train accuracy {row['train_refined']:.1f} %"
        )
        text += _tested(row)
        print(f"step {row['step']}/{self._steps}, {text}, {left} left", file=self._stream, flush=True)


class EncodingProgress:
    """Shows how many of a host's images are encoded, or opened, and the time left, where that takes its time.

    Args:
      images: in all.
      stream: where to show, a bar on a terminal and a line now and then elsewhere; None shows nothing.
      clock: seconds.
      verb: what is done to them, but for its ending.
      of: what they are.
    """

    def __init__(
        self,
        images: int,
        stream: TextIO | None,
        clock: Callable[[], float] = time.monotonic,
        verb: str = "encod",
        of: str = "images",
    ) -> None:
        self._images, self._stream, self._clock, self._verb, self._of = images, stream, clock, verb, of
        self._pace, self._shown = Pace(images, clock), clock()
        self._bar = tqdm.tqdm(
            total=images,
            file=stream,
            disable=stream is None or not is_terminal(stream),
            delay=_MOMENT,
            leave=False,
            **_width(stream),
            bar_format=verb + "ing {n_fmt}/{total_fmt} " + of + ", {desc}{bar:10}",
        )

    def __enter__(self) -> "EncodingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """A line of its own, which the bar does not run into."""
        self._bar.write(line, file=self._stream)

    def show(self, done: int) -> None:
        """Shows that so many images are done by now."""
        left = self._pace.left(done)
        self._bar.set_description_str(f"{left} left ", refresh=False)
        self._bar.update(done - self._bar.n)
        now = self._clock()
        if self._stream is None or not self._bar.disable or now - self._shown < _BETWEEN_LINES:
            return
        self._shown = now
        line = f"{self._verb}ed {done:,} of {self._images:,} {self._of}, {left} left"
        print(line, file=self._stream, flush=True)


def _tested(row: dict[str, Any]) -> str:
    """The test accuracy of what was learnt so far: before the first step, of the probes' head, which is another."""
    if "test_probes" in row:
        return f", probes' test {row['test_probes']:.1f} %"
    return f", test {row['test_refined']:.1f} %" if "test_refined" in row else ""


def is_terminal(stream: TextIO) -> bool:
    """False too for what only writes, as notebooks and loggers put in place of standard output."""
    return bool(getattr(stream, "isatty", lambda: False)())


def _width(stream: TextIO | None) -> dict[str, Any]:
    """As tqdm takes it: the terminal's, whenever it is resized; 80 columns where it tells none."""
    try:
        known = os.get_terminal_size(stream.fileno()).columns > 0  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": _COLUMNS, "nrows": _ROWS}


def _clock_text(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
