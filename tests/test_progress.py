"""What is shown while a run goes."""

import io

import pytest

from craft_jax.blackbox.meter import Ledger
from craft_jax.progress import Progress


class Terminal(io.StringIO):
    """A terminal that tells no width."""

    def isatty(self):
        return True


class Writer:
    """Nothing but what print needs."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def row(step, **more):
    return {"step": step, "loss": 1.2345, "train_refined": 87.5, **more}


def test_a_terminal_of_unknown_width_shows_time_accuracy_loss_and_queries_in_80_columns():
    stream, now = Terminal(), iter([0.0, 10.0])
    with Progress(797, 0, 8000, stream, clock=lambda: next(now)) as progress:
        progress.show(row(5), Ledger(prompts=71))
        progress.show(row(15, test_refined=90.0), Ledger(prompts=171))

    shown = [line for line in stream.getvalue().split("\r") if "171 queries" in line][-1].rstrip("\n")
    assert "13:02 left, train 87.5 %, test 90.0 %, loss 1.234, 171 queries" in shown
    assert len(shown) <= 80


@pytest.mark.parametrize("start", [0, 100])
def test_the_time_left_leaves_out_the_first_call_which_compiles(start):
    stream, now = io.StringIO(), iter([200.0, 201.0])
    with Progress(start + 30, start, 8000, stream, clock=lambda: next(now)) as progress:
        progress.show(row(start + 10), Ledger())
        progress.show(row(start + 20), Ledger())

    first, second = stream.getvalue().splitlines()
    assert first.endswith("--:-- left")
    assert second.endswith("00:01 left")


def test_an_output_that_can_only_write_gets_plain_lines():
    stream = Writer()
    with Progress(10, 0, 8000, stream) as progress:
        progress.show(row(5), Ledger(prompts=50))

    assert "step 5/10, queries 50 of 8,000" in stream.text


def test_before_the_first_step_the_accuracy_is_that_of_the_probes():
    stream = io.StringIO()
    with Progress(10, 0, 8000, stream) as progress:
        progress.show(row(0, test_refined=25.5, test_probes=58.5), Ledger(prompts=22))

    assert "test 58.5 %" in stream.getvalue()
