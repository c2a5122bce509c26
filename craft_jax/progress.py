"""What a person sees of a run while it goes: one live bar, or plain lines where standard output is no terminal."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import tqdm

from craft_jax.blackbox.meter import Ledger

_MOMENT = 2  # seconds that pass in silence
_BETWEEN_LINES = 10  # seconds


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
        self._clock = clock
        self._steps, self._start, self._budget = steps, start, budget
        self._began = clock()
        self._bar = tqdm.tqdm(
            total=steps,
            initial=start,
            file=self._stream,
            disable=not self._stream.isatty(),
            unit="step",
            dynamic_ncols=True,
            bar_format="{desc} {bar} {n_fmt}/{total_fmt} steps, {remaining} left{postfix}",
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, row: dict[str, Any], ledger: Ledger) -> None:
        """Shows a logged step, and what was asked of the black box up to it."""
        text = (
            f"queries {ledger.prompts:,} of {self._budget:,}, predictions {ledger.search_predictions:,} "
            f"(+ {ledger.centre_predictions:,} head, {ledger.evaluation_predictions:,} test), "
            f"images {ledger.images_encoded:,}, loss {row['loss']:.4f}, train accuracy {row['train_refined']:.1f} %"
        )
        if "test_refined" in row:
            text += f", test {row['test_refined']:.1f} %"
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(row["step"] - self._bar.n)
            return
        left = (self._clock() - self._began) / (row["step"] - self._start) * (self._steps - row["step"])
        print(f"step {row['step']}/{self._steps}, {text}, {_clock_text(left)} left", file=self._stream, flush=True)


class EncodingProgress:
    """Shows how many of a host's images are encoded, and the time left, where it takes longer than a moment.

    Args:
      images: in all.
      stream: where to show, a bar on a terminal and a line now and then elsewhere; None shows nothing.
      clock: seconds.
    """

    def __init__(self, images: int, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._images, self._stream, self._clock = images, stream, clock
        self._began = self._shown = clock()
        self._bar = tqdm.tqdm(
            total=images,
            file=stream,
            disable=stream is None or not stream.isatty(),
            delay=_MOMENT,
            leave=False,
            dynamic_ncols=True,
            bar_format="encoding {bar} {n_fmt}/{total_fmt} images, {remaining} left",
        )

    def __enter__(self) -> "EncodingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int) -> None:
        """Shows that so many images are encoded by now."""
        self._bar.update(done - self._bar.n)
        now = self._clock()
        if self._stream is None or not self._bar.disable or now - self._shown < _BETWEEN_LINES:
            return
        self._shown = now
        left = (now - self._began) / done * (self._images - done)
        print(f"encoded {done:,} of {self._images:,} images, {_clock_text(left)} left", file=self._stream, flush=True)


def _clock_text(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
