"""The runs of a sweep as jobs of an engine."""

import sys

import pytest

from craft_jax.errors import RESUMABLE, UserError
from craft_jax.sweep import command, engines
from craft_jax.sweep.processes import Share

# The first time it does `first`, and from then on it ends well.
ONCE = "import os, pathlib, signal, sys, time; here = pathlib.Path({place!r}); print('a line')\n{first}\n"
INTERRUPTED = f"if not here.exists(): here.touch(); sys.exit({RESUMABLE})"
PREEMPTED = """\
def save(*_):
    (here.parent / "saved").touch()
    sys.exit(75)
if not here.exists():
    here.touch()
    signal.signal(signal.SIGTERM, save)
    os.kill(os.getppid(), signal.SIGUSR2)  # as Slurm does before it takes a machine away
    time.sleep(60)"""


def _share(folder, name, first):
    code = ONCE.format(place=str(folder / f"{name}.begun"), first=first)
    return Share(name, [sys.executable, "-c", code], folder / f"{name}.txt")


def _run(engine, shares):
    said = []
    return engines.run_all(shares, engine, said.append), said


class AtOnce:
    """An engine that has done a job as soon as it takes it."""

    at_once = 2

    def submit(self, jobs):
        assert len(jobs) <= self.at_once
        statuses = [job() for job in jobs]
        return [engines.Submitted(lambda: True, lambda s=s: s, lambda: None, "a job") for s in statuses]


def test_a_mistake_leaves_the_other_runs_alone_and_an_interrupted_run_is_submitted_again(tmp_path):
    shares = [
        _share(tmp_path, "good", ""), _share(tmp_path, "wrong", "print('error: shots=0'); sys.exit(2)"),
        _share(tmp_path, "interrupted", INTERRUPTED),
    ]  # fmt: skip
    (failure,), said = _run(AtOnce(), shares)

    assert (failure.share.name, failure.status, failure.last_line) == ("wrong", 2, "error: shots=0")
    assert said == [
        "good: submitted as a job", "wrong: submitted as a job", "good: finished", "wrong: failed",
        "interrupted: submitted as a job", "interrupted: interrupted",
        "interrupted: submitted as a job", "interrupted: finished",
    ]  # fmt: skip


@pytest.mark.slow
def test_submitit_runs_each_as_a_job_and_one_that_is_preempted_saves_and_goes_on(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (extra submitit)")
    shares = [_share(tmp_path, "wrong", "sys.exit(2)"), _share(tmp_path, "preempted", PREEMPTED)]
    engine = engines.build("submitit", ["timeout_min=1"], tmp_path, parallel=2)
    (failure,), said = _run(engine, shares)

    assert (failure.share.name, failure.status) == ("wrong", 2)
    assert said[-1] in ("preempted: finished", "wrong: failed")
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "preempted.txt").read_text() == "a line\n" * 2


@pytest.mark.slow
def test_ray_runs_each_as_a_task(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed (extra ray)")
    shares = [_share(tmp_path, "wrong", "sys.exit(2)"), _share(tmp_path, "interrupted", INTERRUPTED)]
    try:
        (failure,), said = _run(engines.build("ray", ["num_cpus=0.1"], tmp_path, parallel=1), shares)
    finally:
        ray.shutdown()

    assert (failure.share.name, failure.status) == ("wrong", 2)
    assert "interrupted: finished" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine=submit"], r"--engine=submit: value should be one of <local\|submitit\|ray>"),
        (["--engine_option=timeout_min=5"], "--engine_option=timeout_min=5 is for --engine=submitit or --engine=ray"),
        (["--engine=ray", "--engine_option=gpus"], "--engine_option=gpus must be NAME=VALUE, such as timeout_min=120"),
    ],
)
def test_a_mistake_about_the_engine_is_one_line(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        command.main(["sweep", "--config=demo", f"--workdir={tmp_path}", *arguments])
    assert "\n" not in str(error.value)


def test_submitit_must_be_told_how_long_a_run_may_take(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (extra submitit)")

    with pytest.raises(UserError, match="--engine_option=timeout_min=120"):
        engines.build("submitit", [], tmp_path, parallel=1)
    with pytest.raises(UserError, match="--engine=submitit does not take its --engine_option: Parameter 'foo'"):
        engines.build("submitit", ["timeout_min=1", "foo=1"], tmp_path, parallel=1)


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_an_engine_that_is_not_installed_is_one_line_with_the_remedy(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(UserError, match=f"--engine={name} needs {name}, .*; pip install {name}$"):
        engines.build(name, ["timeout_min=1"], tmp_path, parallel=1)
