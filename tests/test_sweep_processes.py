"""Processes side by side: places, failures, and what each leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from craft_jax.errors import RESUMABLE, UserError
from craft_jax.sweep import processes

REPOSITORY = Path(__file__).parent.parent


def _share(tmp_path, name, code):
    return processes.Share(name, [sys.executable, "-c", code], tmp_path / f"{name}.txt")


def test_shares_run_side_by_side_each_in_its_place(tmp_path):
    meet = (
        "import os, pathlib, sys, time\n"
        f"pathlib.Path(r'{tmp_path}', os.environ['PLACE']).touch()\n"
        f"while len(list(pathlib.Path(r'{tmp_path}').glob('place*'))) < 2: time.sleep(0.01)\n"
        "print('met in', os.environ['PLACE'])\n"
    )
    shares = [_share(tmp_path, name, meet) for name in ("one", "two", "three")]
    assert processes.run_all(shares, [{"PLACE": "place0"}, {"PLACE": "place1"}], lambda line: None) == []
    assert [share.log.read_text()[:12] for share in shares] == ["met in place"] * 3


@pytest.mark.parametrize(("status", "next_runs"), [(2, True), (75, False)])
def test_a_mistake_in_a_share_leaves_the_others_alone_and_an_interruption_starts_no_more(tmp_path, status, next_runs):
    said = []
    failing = _share(tmp_path, "bad", f"import sys; print('error: no such thing'); sys.exit({status})")
    (failure,) = processes.run_all([failing, _share(tmp_path, "next", "")], [{}], said.append)

    assert (failure.share.name, failure.status, failure.last_line) == ("bad", status, "error: no such thing")
    assert said == ["bad: started", "bad: failed"] + ["next: started", "next: finished"] * next_runs


def test_gpus_are_parted_among_processes_and_too_few_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,2")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    assert [place["CUDA_VISIBLE_DEVICES"] for place in processes.places_for(2)] == ["4,5", "6,7"]
    with pytest.raises(UserError, match="--parallel=6, and there are 5 GPUs here; lower it"):
        processes.places_for(6)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert processes.places_for(3) == [{}, {}, {}]


def test_a_tpu_host_runs_one_process_alone(monkeypatch):
    monkeypatch.setattr(processes.initialize, "on_tpu_vm", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    assert processes.places_for(1) == [{}]
    with pytest.raises(UserError, match="--parallel=2: on a Cloud TPU host one process takes all chips; leave it out"):
        processes.places_for(2)


def test_a_sweep_that_is_asked_to_stop_leaves_no_process_behind(tmp_path):
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = (
        "import pathlib, sys\nfrom craft_jax import cli\nfrom craft_jax.sweep import processes\n"
        f"share = processes.Share('one', [sys.executable, '-c', {child!r}], pathlib.Path(r'{tmp_path}/one.txt'))\n"
        "cli.exit_on_user_error(lambda argv: processes.run_all([share], [{}], print), [])\n"
    )
    log = tmp_path / "one.txt"
    with subprocess.Popen([sys.executable, "-c", parent], cwd=REPOSITORY) as sweep:
        while not (log.exists() and log.read_text().endswith("\n")):
            time.sleep(0.02)
        sweep.send_signal(signal.SIGTERM)

    assert sweep.returncode == RESUMABLE
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
