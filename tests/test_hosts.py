"""Several processes as one run, over local sockets: the same bits, one record, and an end that all of them share."""

import collections
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from craft_jax import main, prediction
from craft_jax.config import SearchConfig
from craft_jax.distributed import devices, hosts, initialize, preemption
from craft_jax.errors import RESUMABLE, UserError
from craft_jax.training import checkpoints
from tests import processes
from tests.conftest import BUNDLED
from tests.test_training import _assert_same_bits

REPOSITORY = Path(__file__).parent.parent
ALONE = {"PATH": "/bin"}
Device = collections.namedtuple("Device", "id platform", defaults=["cpu"])


# Where to meet


def test_a_host_alone_meets_nobody():
    assert initialize.plan(ALONE) is None
    assert initialize.plan(ALONE | {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}) is None
    assert initialize.plan(ALONE | {"TPU_WORKER_HOSTNAMES": "t0"}, on_tpu_vm=True) is None


def test_flags_and_variables_name_the_meeting():
    variables = {"JAX_COORDINATOR_ADDRESS": "h0:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}

    assert initialize.plan(ALONE | variables) == ("h0:1234", 3, 2)
    assert initialize.plan(ALONE | variables, coordinator="h1:9", process_index=0) == ("h1:9", 3, 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
        | {"SLURM_NTASKS": "2"},
        {"TPU_WORKER_HOSTNAMES": "t0,t1"},
        {"TPU_WORKER_HOSTNAMES": "t0", "MEGASCALE_NUM_SLICES": "2"},
    ],
)
def test_slurm_steps_and_tpu_slices_are_recognised(environment):
    assert initialize.plan(ALONE | environment) == (None, None, None)


def test_a_cloud_tpu_vm_asks_its_machine():
    assert initialize.plan(ALONE, on_tpu_vm=True) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "h0:1"}, "--process_count .or JAX_NUM_PROCESSES. is missing"),
        ({"process_count": 2, "process_index": 0}, "--coordinator .or JAX_COORDINATOR_ADDRESS. is missing"),
        ({"coordinator": "h0", "process_count": 2, "process_index": 0}, "--coordinator=h0 must be HOST:PORT"),
        ({"coordinator": "h0:1", "process_count": 2, "process_index": 2}, "--process_index=2 must lie between 0 and"),
    ],
)
def test_half_a_meeting_is_one_clear_error(given, message):
    with pytest.raises(UserError, match=message):
        initialize.plan(ALONE, **given)


# Which devices


@pytest.mark.parametrize(
    ("by_host", "wanted", "answer"),
    [
        ([2, 2], 0, [0, 1, 10, 11]),
        ([2, 2], 2, [0, 10]),
        ([2, 2], 3, "run.devices=3 is no multiple of 2 hosts"),
        ([2, 2], 8, "run.devices=8, and JAX finds 4 on 2 hosts"),
        ([1, 2, 3], 0, r"different numbers of devices .1, 2, 3."),
    ],
)
def test_hosts_take_equal_shares_of_the_devices(by_host, wanted, answer, monkeypatch):
    own = [[Device(10 * host + i) for i in range(count)] for host, count in enumerate(by_host)]
    monkeypatch.setattr(jax, "process_count", lambda: len(own))
    monkeypatch.setattr(jax, "local_devices", lambda host: own[host])
    monkeypatch.setattr(jax, "devices", lambda: sum(own, []))

    if isinstance(answer, str):
        with pytest.raises(UserError, match=answer):
            devices.choose(wanted)
    else:
        assert [device.id for device in devices.choose(wanted)] == answer


# What hosts send each other


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 5)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_shares_of_any_kind_join_as_they_are(dtype, shape, monkeypatch):
    monkeypatch.setattr(hosts, "_PIECE", 60)  # several pieces
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine]))
    share = np.asarray(jnp.arange(np.prod(shape)).reshape(shape).astype(dtype))
    padding = np.zeros((1, *shape[1:]), share.dtype)

    np.testing.assert_array_equal(hosts._joined(share, 4), np.concatenate([share, padding, share, padding]))


# Several processes


class Job:
    """The main job on the small set in `count` processes of `devices` simulated devices each.

    `only` starts that process alone; `more` gives all of them arguments, `differing` one of them its own; `folders` are
    where each runs.
    """

    def __init__(
        self, coop_root, workdir, count=1, devices=1, timeout=60, only=None, more=(), differing=None, folders=None
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = processes.environment(devices)
        self.processes = []
        for index in range(count) if only is None else [only]:
            meeting = [f"--coordinator=127.0.0.1:{port}", f"--process_count={count}", f"--process_index={index}"]
            command = [
                sys.executable, "-m", "craft_jax.main", f"--config={REPOSITORY}/configs/caltech.py",
                f"--workdir={workdir}", f"--config.data.root={coop_root}", "--config.data.shots=4",
                "--config.data.views=7",
                "--config.black_box.model=bundled", "--config.query_budget=117", "--config.search.population_size=8",
                "--config.search.estimator=antithetic", "--config.search.sigma=1.0", "--config.probe.texts=0",
                "--config.run.steps_per_call=2", "--config.run.eval_every=4", "--config.run.checkpoint_every=4",
                "--config.run.reuse_features=False", f"--host_timeout={timeout}",
                *(meeting if count > 1 else []), *more, *(differing or {}).get(index, []),
            ]  # fmt: skip
            self.processes.append(
                subprocess.Popen(
                    command,
                    cwd=folders[index] if folders else REPOSITORY,
                    env=environment,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )

    def reaches(self, step):
        """Returns once host 0 has logged that step."""
        for line in self.processes[0].stdout:
            if line.startswith("step ") and int(re.split("[ /]", line)[1]) >= step:
                return

    def ends(self, timeout=400):
        """Status, standard output and standard error of every process."""
        try:
            shown = [process.communicate(timeout=timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [(process.returncode, *texts) for process, texts in zip(self.processes, shown, strict=True)]

    def succeeds(self):
        for status, _, errors in self.ends():
            assert status == 0, errors


@pytest.fixture(scope="module")
def whole(coop_root, tmp_path_factory):
    """The workdir of a run in one process on one device."""
    workdir = tmp_path_factory.mktemp("hosts") / "whole"
    Job(coop_root, workdir).succeeds()
    return workdir


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_host_0_alone_speaks(whole, coop_root, tmp_path):
    ends = Job(coop_root, tmp_path / "two", count=2, devices=2).ends()

    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "step 12/12" in ends[0][1]
    assert "step" not in ends[1][1]
    _assert_same_bits(whole, tmp_path / "two")


@pytest.mark.slow
def test_images_split_over_the_devices_of_two_processes_give_the_bits_of_one(whole, coop_root, tmp_path):
    Job(coop_root, tmp_path / "two", count=2, devices=2, more=["--config.run.shard_images=yes"]).succeeds()

    _assert_same_bits(whole, tmp_path / "two")


@pytest.mark.slow
def test_the_default_method_has_the_same_bits_in_one_process_and_in_two(coop_root, tmp_path):
    default = [f"--config.search.estimator={SearchConfig().estimator}", "--config.probe.texts=60"]
    Job(coop_root, tmp_path / "one", more=default).succeeds()
    Job(coop_root, tmp_path / "two", count=2, devices=2, more=default).succeeds()

    _assert_same_bits(tmp_path / "one", tmp_path / "two")


def test_a_missing_host_is_one_line_within_the_time_given(coop_root, tmp_path):
    began = time.monotonic()
    ((status, _, errors),) = Job(coop_root, tmp_path / "x", count=2, only=0, timeout=2).ends()

    assert status == RESUMABLE, errors
    assert re.fullmatch(r"error: not every host came within 2 s \(.* as host 0 of 2\); .*\n", errors)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_mistake_on_one_host_ends_all_of_them_with_its_message(coop_root, tmp_path):
    ends = Job(coop_root, tmp_path / "x", count=2, differing={1: ["--config.black_box.model=/nowhere"]}).ends()

    for status, _, errors in ends:
        assert status == 2
        assert errors.splitlines()[-1].startswith("error: host 1: black_box.model='/nowhere'")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_hosts_with_different_settings_do_not_begin(coop_root, tmp_path):
    ends = Job(coop_root, tmp_path / "x", count=2, differing={1: ["--config.seed=2"]}).ends()

    for host, (status, _, errors) in enumerate(ends):
        assert status == 2
        assert errors.splitlines()[-1].startswith(f"error: this host and host {1 - host} have different settings;")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_what_host_0_has_encoded_before_goes_to_all_hosts(whole, coop_root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for run, encoded in (("first", 7 * 12 + 12 + 6), ("second", 0)):
        Job(coop_root, tmp_path / run, count=2, more=["--config.run.reuse_features=True"]).succeeds()
        result = json.loads((tmp_path / run / "result.json").read_text())

        assert result["ledger"]["images_encoded"] == encoded
    one, other = (checkpoints.open_for_prediction(tmp_path / run).state for run in ("first", "second"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
def test_a_photograph_that_one_host_cannot_read_ends_all_of_them_with_its_name(coop_root, tmp_path):
    shutil.copytree(coop_root, tmp_path / "data")
    for image in (tmp_path / "data" / "caltech-101" / "101_ObjectCategories" / "sunflower").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    (status, _, errors), (other_status, _, other_errors) = Job(tmp_path / "data", tmp_path / "x", count=2).ends()

    assert status == other_status == 2
    assert errors.splitlines()[-1] == other_errors.splitlines()[-1]
    assert re.match(r"error: host [01]: .*sunflower/.*\.jpg", errors.splitlines()[-1])
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_hosts_whose_photographs_differ_in_content_alone_do_not_begin(coop_root, tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        shutil.copytree(coop_root, folder / "data")
    images = sorted((folders[1] / "data" / "caltech-101" / "101_ObjectCategories" / "sunflower").iterdir())
    for image in images[:-1]:
        shutil.copy(images[-1], image)
    ends = Job("data", tmp_path / "x", count=2, folders=folders).ends()

    for host, (status, _, errors) in enumerate(ends):
        assert status == 2
        assert f"error: this host and host {1 - host} have different photographs; give" in errors.splitlines()[-1]


@pytest.mark.slow
def test_three_processes_give_the_bits_of_one(whole, coop_root, tmp_path):
    Job(coop_root, tmp_path / "three", count=3).succeeds()

    _assert_same_bits(whole, tmp_path / "three")


@pytest.mark.slow
def test_a_killed_host_ends_the_other_and_any_number_of_them_resumes_to_the_same_bits(whole, coop_root, tmp_path):
    job = Job(coop_root, tmp_path / "killed", count=2)
    job.reaches(6)
    job.processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    (status, _, errors), _ = job.ends()

    assert status == RESUMABLE
    assert errors.splitlines()[-1].startswith("error: host 0 lost another host (")
    assert time.monotonic() - began < 30
    for count in (1, 2, 3):
        shutil.copytree(tmp_path / "killed", tmp_path / str(count))
        resumed = Job(coop_root, tmp_path / str(count), count=count).ends()
        # Between the line of step 6 and the kill, step 8 may have been saved.
        assert re.search(rf"resuming {tmp_path / str(count)} after step [48] of 12", resumed[0][1])
        _assert_same_bits(whole, tmp_path / str(count))


@pytest.mark.slow
def test_without_host_0_the_others_end(coop_root, tmp_path):
    job = Job(coop_root, tmp_path / "x", count=2)
    job.reaches(2)
    job.processes[0].send_signal(signal.SIGKILL)
    status, _, errors = job.ends(timeout=60)[1]

    assert status in {RESUMABLE, -signal.SIGABRT}  # whichever notices first, we or JAX
    assert "lost another host" in errors or "another task died" in errors


@pytest.mark.slow
def test_sigterm_on_one_host_saves_and_stops_all_and_a_run_on_four_devices_predicts_on_one(
    whole, coop_root, tmp_path, capsys
):
    job = Job(coop_root, tmp_path / "stopped", count=2, devices=2)
    job.reaches(2)
    job.processes[1].send_signal(signal.SIGTERM)
    ends = job.ends()

    assert [status for status, _, _ in ends] == [RESUMABLE, RESUMABLE], ends
    for _, _, errors in ends:
        assert re.fullmatch(r"stopped after step \d+ of 12; the same command resumes the run", errors.splitlines()[-1])
    arguments = [f"--checkpoint={tmp_path / 'stopped'}", str(next((BUNDLED / "images").rglob("*.jpg")))]
    prediction.main(["predict", *arguments])
    on_one_device = subprocess.run(
        [sys.executable, "-m", "craft_jax.predict", *arguments],
        cwd=REPOSITORY, env=processes.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert on_one_device.stdout == capsys.readouterr().out
    assert on_one_device.stdout.strip().endswith("%")
    Job(coop_root, tmp_path / "stopped").succeeds()
    _assert_same_bits(whole, tmp_path / "stopped")


def test_sigterm_before_the_first_step_ends_the_process_with_the_same_status(tmp_path):
    program = (
        "import os; from craft_jax.distributed.preemption import Notice; Notice().listen(); os.kill(os.getpid(), 15)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)

    assert run.returncode == RESUMABLE
    assert "stopped by SIGTERM before the first step" in run.stderr


def test_sigterm_is_told_to_whoever_asks():
    before = signal.getsignal(signal.SIGTERM)
    notice = preemption.Notice()
    notice.listen()
    try:
        assert not notice()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_is_told_to_whoever_asks_and_a_second_one_stops_at_once():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    notice = preemption.Notice()
    notice.listen()
    try:
        with pytest.raises(KeyboardInterrupt):  # nothing to save yet
            os.kill(os.getpid(), signal.SIGINT)
        assert not notice()
        os.kill(os.getpid(), signal.SIGINT)
        assert notice()
        assert notice.by_hand
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_host_timeout_must_be_positive():
    with pytest.raises(UserError, match="--host_timeout=0 must be at least 1"):
        main.main(["main", f"--config={REPOSITORY}/configs/demo.py", "--host_timeout=0"])
