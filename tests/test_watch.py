"""The page that shows a run while it goes."""

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from craft_jax import progress, watch
from craft_jax.errors import UserError
from craft_jax.watch.page import page
from tests import processes
from tests.test_commands import _arguments

ROOT = Path(__file__).parent.parent


def _row(step, **more):
    return {"step": step, "prompts": 8 * step, "loss": 1.25, "train_refined": 87.5, **more}


def _log(folder, rows):
    log = folder / "metrics.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return log


def test_a_page_follows_the_log_and_ends_with_its_block(tmp_path):
    log = tmp_path / "metrics.jsonl"
    with watch.watched(log, 800, port=0) as address:
        assert "No step is logged yet" in httpx.get(address).text
        _log(tmp_path, [_row(1), _row(2, test_refined=44.5, test_prompt_only=40.0)])
        text = httpx.get(address).text
        assert "44.5 %" in text
        assert "of the test, at step 2" in text
        assert '>16</b><span class="quiet">of 800 queries' in text
        assert httpx.get(f"{address}/metrics.jsonl").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_line_that_is_being_written_waits_for_the_next_look(tmp_path):
    log = _log(tmp_path, [_row(1)])
    with log.open("a") as file:
        file.write('{"step": 2, "prom')

    assert ">8</b>" in page(log, 800, progress.Pace(800))


def test_the_time_left_goes_by_the_queries_between_two_looks(tmp_path):
    now = iter([0.0, 30.0])
    pace = progress.Pace(800, lambda: next(now))
    assert "--:--" in page(_log(tmp_path, [_row(1)]), 800, pace)

    assert "24:15" in page(_log(tmp_path, [_row(1), _row(3)]), 800, pace)


def test_a_folder_with_a_hostile_name_is_shown_as_text(tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()

    text = page(_log(folder, [_row(1)]), 800, progress.Pace(800))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = pytest.raises(UserError, match=rf"--watch={port}: Address already in use; take another port")
        with refused, watch.watched(tmp_path / "metrics.jsonl", 800, port):
            pass


def _drain(terminal, shown):
    with contextlib.suppress(OSError):  # which says that the other end is closed
        while text := os.read(terminal, 1000):
            shown.append(text.decode(errors="replace"))


def test_what_an_earlier_part_of_a_run_has_logged_does_not_start_the_clock(tmp_path):
    now = iter([0.0, 500.0, 510.0])
    pace = progress.Pace(800, lambda: next(now), start=8)
    for rows in ([_row(1)], [_row(1), _row(2)]):
        assert "--:--" in page(_log(tmp_path, rows), 800, pace)

    assert "08:00" in page(_log(tmp_path, [_row(1), _row(2), _row(4)]), 800, pace)


def test_a_spoilt_line_is_passed_over(tmp_path):
    log = _log(tmp_path, [_row(1)])
    log.write_text("spoilt\n" + log.read_text())

    assert ">8</b>" in page(log, 800, progress.Pace(800))


@pytest.mark.slow
def test_a_run_in_a_terminal_is_watched_until_it_ends(tmp_path, coop_root):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "craft_jax.main", *_arguments(coop_root, tmp_path / "run", "--watch=0")[1:]]
    with subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=processes.environment()) as child:
        os.close(theirs)
        shown, pages = [], []
        reading = threading.Thread(target=_drain, args=(ours, shown))
        reading.start()
        with contextlib.suppress(httpx.TransportError):  # at the end nothing answers
            while child.poll() is None:
                address = re.search(r"watch: (http://127.0.0.1:\d+)\s", "".join(shown))
                pages += [httpx.get(address.group(1), timeout=60).text] if address else []
                time.sleep(0.05)
    reading.join()
    os.close(ours)
    assert child.returncode == 0
    assert "No step is logged yet" in pages[0]
    assert any(re.search(r"<b>\d+</b><span class=.quiet.>of 61 queries", text) for text in pages)


@pytest.mark.slow
def test_where_the_output_is_no_terminal_nothing_is_served(tmp_path, coop_root):
    command = [sys.executable, "-m", "craft_jax.main", *_arguments(coop_root, tmp_path / "run", "--watch=0")[1:]]
    done = subprocess.run(command, cwd=ROOT, env=processes.environment(), capture_output=True, text=True, check=True)

    assert "note: the output is no terminal, so --watch=0 shows nothing" in done.stdout
    assert "watch: http" not in done.stdout
