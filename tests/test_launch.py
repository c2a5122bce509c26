"""The launch scripts: what each would run, seen in its dry run, and that they stop at a missing argument."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = sorted((REPOSITORY / "launch").glob("*.sh"))
WHERE = ["--project=p", "--zone=z", "--name=craft"]
PLAIN = {"PATH": os.environ["PATH"], "TMPDIR": tempfile.gettempdir()}
JOB = ["--", "--config=configs/demo.py", "--config.data.root=/my data"]

# A script cannot trap what was ignored when it started, as SIGINT is where pytest runs in the background.
HEARING_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)


def _run(script, *arguments, **environment):
    return subprocess.run(
        [REPOSITORY / "launch" / script, *arguments],
        capture_output=True, text=True, cwd=REPOSITORY, env=PLAIN | environment, timeout=60,
    )  # fmt: skip


def _dry(script, *arguments, **environment):
    """The lines of a dry run, which must succeed."""
    done = _run(script, *arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    command = [SHELLCHECK, "--external-sources", "--source-path=launch", *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_stops_at_its_first_failure(script):
    assert script.name == "lib.sh" or "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (
            ["create", *WHERE, "--type=v5litepod-16", "--runtime=r", "--spot"],
            ["create craft --accelerator-type=v5litepod-16 --version=r --spot --project=p --zone=z"],
        ),
        (
            ["create", *WHERE, "--type=t", "--runtime=r"],
            ["create craft --accelerator-type=t --version=r --project=p --zone=z"],
        ),
        (
            ["logs", *WHERE, "--worker=2"],
            [r"ssh craft --worker=2 --command=tail\ -n\ 100\ -F\ craft.log --project=p --zone=z"],
        ),
        (["delete", *WHERE], ["delete craft --project=p --zone=z"]),
        (["delete", *WHERE, "--yes"], ["delete craft --quiet --project=p --zone=z"]),
    ],
)  # fmt: skip
def test_tpu_vm_prints_what_it_would_ask_of_the_cloud(arguments, commands):
    lines = _dry("tpu_vm.sh", "--dry-run" if not arguments else arguments[0], *arguments[1:], "--dry-run")

    assert lines == [f"+ gcloud compute tpus tpu-vm {command}" for command in commands]


def test_tpu_vm_sets_up_every_host_from_the_checked_out_commit():
    archive, copy, install = _dry("tpu_vm.sh", "setup", *WHERE, "--dry-run")

    packed = f"{PLAIN['TMPDIR']}/craft_jax_craft.tar.gz"
    assert archive == f"+ git -C {REPOSITORY} archive --format=tar.gz --output={packed} HEAD"
    assert copy.startswith(f"+ gcloud compute tpus tpu-vm scp {packed} craft:craft_jax.tar.gz --worker=all")
    assert "--worker=all" in install
    assert r"jax\[tpu\]" in install


def test_tpu_vm_archives_its_own_repository_wherever_it_is_called(tmp_path):
    (tmp_path / "scratch").mkdir()
    command = [REPOSITORY / "launch" / "tpu_vm.sh", "setup", *WHERE, "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=PLAIN | {"TMPDIR": "scratch"}, capture_output=True, text=True, check=True
    )

    archive = f"{tmp_path}/scratch/craft_jax_craft.tar.gz"
    assert done.stdout.splitlines()[0] == f"+ git -C {REPOSITORY} archive --format=tar.gz --output={archive} HEAD"


def test_tpu_vm_clears_the_hosts_and_runs_the_job_on_every_one():
    clear, forget, start = _dry(
        "tpu_vm.sh", "run", *WHERE, "--bucket=gs://b/craft/", "--data=gs://b/data", "--dry-run", *JOB
    )

    assert "ssh craft --worker=all" in clear
    assert "flock" in clear
    assert forget == r"+ gcloud storage rm gs://b/craft/exit_status/\*"
    assert "ssh craft --worker=all" in start
    assert r"launch/tpu_host.sh\ gs://b/craft\ gs://b/data\ runs/craft\ --config=configs/demo.py" in start


def test_tpu_vm_fetches_from_the_bucket_or_from_host_0():
    from_bucket = _dry("tpu_vm.sh", "fetch", *WHERE, "--bucket=gs://b/craft", "--to=runs/x", "--dry-run")
    from_host = _dry("tpu_vm.sh", "fetch", *WHERE, "--to=runs/x", "--dry-run")

    assert from_bucket == ["+ mkdir -p runs/x", "+ gcloud storage rsync --recursive gs://b/craft runs/x"]
    assert from_host[1].startswith(r"+ gcloud compute tpus tpu-vm scp craft:craft_jax/runs/craft/\* runs/x --worker=0")


def test_tpu_vm_makes_a_preempted_slice_anew_in_order():
    lines = _dry(
        "tpu_vm.sh", "watch", *WHERE, "--type=t", "--runtime=r", "--bucket=gs://b/c", "--spot", "--dry-run", *JOB
    )
    verbs = [found[1] for line in lines if (found := re.match(r"\+ gcloud compute tpus tpu-vm (\w+)", line))]

    assert verbs == ["describe", "delete", "create", "scp", "ssh", "ssh", "ssh"]
    assert "at most 10 times" in "\n".join(lines)


def test_a_tpu_host_pulls_runs_and_keeps_and_only_host_0_copies():
    arguments = ["--dry-run", "gs://b/c", "none", "runs/nowhere", "--config=configs/demo.py"]
    job = "+ launch/resume.sh .venv/bin/python -m craft_jax.main --workdir=runs/nowhere --config=configs/demo.py"

    lines = _dry("tpu_host.sh", *arguments, HOST_NUMBER="0")

    assert lines == [
        "+ rm -rf runs/nowhere.partial",
        "+ mkdir -p runs/nowhere.partial",
        "+ gcloud storage ls gs://b/c",
        "+ gcloud storage rsync --recursive gs://b/c runs/nowhere.partial",
        "+ rm -rf runs/nowhere.partial/exit_status",
        "+ mv runs/nowhere.partial runs/nowhere",
        job,
        "every minute, and when the job has ended:",
        "+ gcloud storage rsync --recursive runs/nowhere gs://b/c",
        "where it ended with an error, its status:",
        "+ gcloud storage cp runs/nowhere.ended gs://b/c/exit_status/0",
    ]
    asked, *rest = _dry("tpu_host.sh", *arguments)
    assert asked.startswith("+ curl ")
    assert rest == lines
    assert _dry("tpu_host.sh", *arguments, HOST_NUMBER="3") == [
        job, "where it ended with an error, its status:", "+ gcloud storage cp runs/nowhere.ended gs://b/c/exit_status/3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "root"),
    [([], "--config.data.root=data"), (["--config.data.root=data/new"], "--config.data.root=data/new")],
)
def test_every_tpu_host_copies_the_photographs_to_data_root(given, root):
    make, copy, job = _dry(
        "tpu_host.sh", "--dry-run", "none", "gs://b/photographs", "runs/x", "--config=c", *given, HOST_NUMBER="3"
    )

    assert (make, copy) == ("+ mkdir -p data", "+ gcloud storage rsync --recursive gs://b/photographs data")
    assert job.endswith(f"--workdir=runs/x --config=c {root}")


SAVES_AT_SIGTERM = "trap 'sleep 0.2; echo saved >> saved; exit 75' TERM; echo >> up; while true; do sleep 0.05; done"


def _programs(folder, **bodies):
    """Stand-ins, first in the PATH that is returned; each notes its command line in `folder`/calls."""
    (folder / "bin").mkdir()
    for name, body in bodies.items():
        (folder / "bin" / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {folder}/calls\n{body}\n')
        (folder / "bin" / name).chmod(0o755)
    return f"{folder}/bin:{PLAIN['PATH']}"


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []


def _signalled(command, number, folder, ready, **environment):
    """Starts a command in a folder, signals it once `ready()`, and returns its exit status."""
    with (folder / "output").open("w") as output:
        started = subprocess.Popen(
            [sys.executable, "-c", HEARING_CTRL_C, *map(str, command)],
            cwd=folder, env=PLAIN | environment, stdout=output, stderr=output,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not ready() and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        started.send_signal(number)
        return started.wait(timeout=20)


def _tpu_host(folder, gcloud, python, number="0"):
    """The command of a host in a folder with stand-ins for gcloud and for the job, and its environment."""
    path = _programs(folder, gcloud=gcloud, python=python)
    (folder / "launch").symlink_to(REPOSITORY / "launch")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(folder / "bin")
    (folder / "runs").mkdir()
    return ["launch/tpu_host.sh", "gs://b/c", "none", "runs/x", "--config=c"], {"PATH": path, "HOST_NUMBER": number}


@pytest.mark.parametrize(
    ("gcloud", "message"),
    [
        ('[[ $2 != ls ]] || { echo "ERROR: 403" >&2; exit 1; }', "error: gs://b/c cannot be listed: ERROR: 403"),
        ('[[ $2 != rsync ]] || { touch "$5/half"; exit 1; }', "error: gs://b/c could not be copied to this host"),
    ],
)
def test_a_tpu_host_that_cannot_pull_fails_and_leaves_no_workdir(tmp_path, gcloud, message):
    command, environment = _tpu_host(tmp_path, gcloud, "exit 0")
    done = subprocess.run(command, cwd=tmp_path, env=PLAIN | environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (2, message + "\n")
    assert not (tmp_path / "runs" / "x").exists()
    assert not any(line.startswith("python") for line in _lines(tmp_path / "calls"))
    assert _lines(tmp_path / "calls")[-1] == "gcloud storage cp runs/x.ended gs://b/c/exit_status/0"


def test_a_tpu_host_starts_afresh_from_an_empty_bucket_and_leaves_the_status_of_an_error(tmp_path):
    empty = '[[ $2 != ls ]] || { echo "ERROR: One or more URLs matched no objects." >&2; exit 1; }'
    command, environment = _tpu_host(tmp_path, empty, "exit 3")
    with (tmp_path / "output").open("w") as output:
        done = subprocess.run(command, cwd=tmp_path, env=PLAIN | environment, stdout=output, stderr=output)

    assert done.returncode == 3
    assert (tmp_path / "runs" / "x").is_dir()
    assert _lines(tmp_path / "runs" / "x.ended") == ["host 0: status 3"]
    assert _lines(tmp_path / "calls")[-2:] == [
        "gcloud storage rsync --recursive runs/x gs://b/c", "gcloud storage cp runs/x.ended gs://b/c/exit_status/0",
    ]  # fmt: skip


def test_another_tpu_host_leaves_the_status_of_an_error_too_and_is_not_started_again(tmp_path):
    command, environment = _tpu_host(tmp_path, "exit 0", "exit 1", number="3")
    ends = [subprocess.run(command, cwd=tmp_path, env=PLAIN | environment).returncode for _ in range(2)]

    assert ends == [1, 0]
    assert _lines(tmp_path / "runs" / "x.ended") == ["host 3: status 1"]
    job, report = _lines(tmp_path / "calls")
    assert job.startswith("python ")
    assert report == "gcloud storage cp runs/x.ended gs://b/c/exit_status/3"


def test_a_tpu_host_copies_what_the_job_saved_at_sigterm(tmp_path):
    keep = f"[[ $4 != runs/x ]] || cp {tmp_path}/saved {tmp_path}/kept"
    command, environment = _tpu_host(tmp_path, keep, SAVES_AT_SIGTERM)
    status = _signalled(command, signal.SIGTERM, tmp_path, (tmp_path / "up").exists, **environment)

    assert status == 75
    assert _lines(tmp_path / "kept") == ["saved"]
    assert not any(" cp " in line for line in _lines(tmp_path / "calls")), "told to stop, which is no error"
    assert not (tmp_path / "runs" / "x.ended").exists()


def _slice_of_one_host(folder):
    """Stand-ins of a slice in folder/craft_jax: gcloud runs there what it is given for the hosts; the environment.

    A job runs until the file `end` is there, 20 s at most, and notes its start and a SIGTERM in `jobs`.
    """
    (folder / "craft_jax").mkdir()
    (folder / "craft_jax" / "launch").symlink_to(REPOSITORY / "launch")
    (folder / "craft_jax" / ".venv").mkdir()
    (folder / "craft_jax" / ".venv" / "bin").symlink_to(folder / "bin")
    gcloud = f'for given; do [[ $given != --command=* ]] || (cd {folder}; bash -c "${{given#--command=}}"); done'
    job = (
        f"trap 'echo stopped >> {folder}/jobs; exit 75' TERM; echo ${{@: -1}} >> {folder}/jobs; "
        f"while ((SECONDS < 20)) && [[ ! -e {folder}/end ]]; do sleep 0.05; done"
    )
    return {"PATH": _programs(folder, gcloud=gcloud, python=job), "HOST_NUMBER": "0"}


def _wait_until(ready):
    deadline = time.monotonic() + 10
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ready()


ON_LINUX = pytest.mark.skipif(shutil.which("flock") is None, reason="hosts have flock and setsid")


@ON_LINUX
def test_tpu_vm_run_comes_back_while_the_job_runs(tmp_path):
    done = _run("tpu_vm.sh", "run", *WHERE, *JOB, **_slice_of_one_host(tmp_path))
    ended = tmp_path / "craft_jax" / "runs" / "craft.ended"

    assert (done.returncode, ended.exists()) == (0, False)
    (tmp_path / "end").touch()
    _wait_until(lambda: _lines(ended) == ["host 0: status 0"])


@ON_LINUX
def test_a_corrected_tpu_vm_run_takes_the_place_of_a_job_that_runs_or_has_ended(tmp_path):
    environment = _slice_of_one_host(tmp_path)
    ended = tmp_path / "craft_jax" / "runs" / "craft.ended"

    assert _run("tpu_vm.sh", "run", *WHERE, "--", "--old", **environment).returncode == 0
    _wait_until(lambda: _lines(tmp_path / "jobs") == ["--old"])
    assert _run("tpu_vm.sh", "run", *WHERE, "--", "--new", **environment).returncode == 0
    _wait_until(lambda: _lines(tmp_path / "jobs") == ["--old", "stopped", "--new"])
    (tmp_path / "end").touch()
    _wait_until(lambda: _lines(ended) == ["host 0: status 0"])
    assert _run("tpu_vm.sh", "run", *WHERE, "--", "--again", **environment).returncode == 0
    _wait_until(lambda: _lines(tmp_path / "jobs")[3:] == ["--again"] and ended.exists())


WATCH = ["watch", *WHERE, "--type=t", "--runtime=r", "--bucket=gs://b/c", "--restarts=3"]


def test_watch_tries_a_failed_setup_again_and_says_that_the_slice_costs(tmp_path):
    state = f"grep -q create {tmp_path}/calls && echo READY || echo PREEMPTED"
    gcloud = f"[[ $* != *describe* ]] || {{ {state}; exit; }}; [[ $* == *create* ]]"
    path = _programs(tmp_path, gcloud=gcloud, git="exit 0", sleep="exit 0")
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=path)

    assert done.returncode == 2
    assert sum(" scp " in line for line in _lines(tmp_path / "calls")) == 3
    assert sum(" create " in line for line in _lines(tmp_path / "calls")) == 1
    assert done.stderr.splitlines()[-1].startswith("error: given up after 3 tries to set up and run; the slice still ")
    assert "launch/tpu_vm.sh delete --project=p --zone=z --name=craft" in done.stderr


def test_watch_ends_where_the_job_ended_with_an_error_on_any_host(tmp_path):
    ended = "printf 'host 0: status 75\\nhost 3: status 1\\n'"
    gcloud = f"[[ $* != *describe* ]] || echo READY; [[ $2 != cat ]] || {ended}; [[ $2 != ls ]]"
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=_programs(tmp_path, gcloud=gcloud, sleep="exit 0"))

    assert done.returncode == 2
    assert done.stderr.startswith("error: the job ended with an error (host 0: status 75, host 3: status 1; see ")
    assert _lines(tmp_path / "calls")[-1] == "gcloud storage cat gs://b/c/exit_status/*"


def test_watch_starts_the_job_at_every_look_at_a_slice_that_is_ready(tmp_path):
    finished = f"(($(grep -c ' ssh ' {tmp_path}/calls) == 3))"  # as after a reboot, which nothing else would notice
    gcloud = f"case $* in *describe*) echo READY;; *result.json) {finished};; *exit_status*) exit 1;; esac"
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=_programs(tmp_path, gcloud=gcloud, sleep="exit 0"))

    assert (done.returncode, done.stderr) == (0, "")
    starts = [line for line in _lines(tmp_path / "calls") if " ssh " in line]
    assert all("flock --nonblock" in line and "launch/tpu_host.sh gs://b/c" in line for line in starts)
    assert not any(" scp " in line for line in _lines(tmp_path / "calls"))


NOT_FOUND = "echo 'ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: no node' >&2; exit 1"


def test_watch_does_not_make_anew_what_someone_else_deleted(tmp_path):
    gcloud = f"case $* in *describe*) {NOT_FOUND};; *) exit 1;; esac"
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=_programs(tmp_path, gcloud=gcloud, sleep="exit 0"))

    assert (done.returncode, done.stderr) == (2, "error: craft is not there: deleted by someone else, or never made\n")
    assert not any(" create " in line for line in _lines(tmp_path / "calls"))


def test_watch_makes_anew_what_it_deleted_itself_until_the_restarts_are_spent(tmp_path):
    state = f"grep -q delete {tmp_path}/calls || {{ echo PREEMPTED; exit; }}; {NOT_FOUND}"
    gcloud = f"case $* in *describe*) {state};; *delete*) exit 0;; *) exit 1;; esac"
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=_programs(tmp_path, gcloud=gcloud, sleep="exit 0"))

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: craft is GONE after 3 restarts")
    assert [sum(f" {verb} " in line for line in _lines(tmp_path / "calls")) for verb in ("delete", "create")] == [1, 3]


def test_watch_looks_again_for_an_hour_where_the_cloud_does_not_answer_and_then_says_what_may_cost(tmp_path):
    path = _programs(tmp_path, gcloud="echo 'ERROR: no network' >&2; exit 1", sleep="exit 0")
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=path)

    assert done.returncode == 2
    assert done.stderr.count("ERROR: no network") == 60
    assert done.stderr.splitlines()[-1] == (
        "error: craft could not be looked at 60 times in a row; it may still run and cost: "
        "launch/tpu_vm.sh delete --project=p --zone=z --name=craft"
    )
    assert not any(verb in line for line in _lines(tmp_path / "calls") for verb in (" create ", " delete ", " ssh "))


@pytest.mark.parametrize(("before", "asks"), [(None, True), ("1", True), ("2", False)])
def test_slurm_requeues_a_bounded_number_of_times(tmp_path, before, asks):
    settings = ["--nodes=1", "--gpus_per_node=0", "--time=1", "--requeues=2", "--dry-run", "--", "--workdir=/x"]
    script = "\n".join(_dry("slurm.sh", *settings)[:-1])
    environment = {"PATH": _programs(tmp_path, srun="exit 75", scontrol="exit 0"), "SLURM_JOB_ID": "7"}
    if before is not None:
        environment["SLURM_RESTART_COUNT"] = before
    done = subprocess.run(["bash", "-c", script], env=PLAIN | environment, capture_output=True, text=True)

    assert done.returncode == 75
    assert ("scontrol requeue 7" in _lines(tmp_path / "calls")) == asks
    assert done.stderr == ("" if asks else "stopped with status 75 after 2 requeues\n")


# Runs two tasks and gives the highest of their exit statuses.
SRUN = (
    "while [[ $1 == --* ]]; do shift; done; worst=0; for task in 0 1; do "
    'SLURM_PROCID=$task "$@"; status=$?; ((status <= worst)) || worst=$status; done; exit $worst'
)


@pytest.mark.parametrize(
    ("statuses", "asks"),
    [((0, 0), False), ((75, 75), True), ((75, 134), True), ((75, 137), True), ((143, 75), True), ((1, 75), False),
     ((134, 2), False)],
)  # fmt: skip
def test_slurm_requeues_what_can_be_resumed_on_every_task(tmp_path, statuses, asks):
    task = f"ends=({statuses[0]} {statuses[1]}); exit ${{ends[$SLURM_PROCID]}}"
    path = _programs(tmp_path, srun=SRUN, scontrol="exit 0", python=task)
    (tmp_path / "fatal.7").write_text("of an earlier start\n")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "bin").symlink_to(tmp_path / "bin")
    settings = ["--nodes=1", "--gpus_per_node=2", "--time=1", f"--venv={tmp_path}/venv"]
    script = "\n".join(_dry("slurm.sh", *settings, "--dry-run", "--", "--workdir=/x")[:-1])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=PLAIN | {"PATH": path, "SLURM_JOB_ID": "7"}, capture_output=True,
        text=True,
    )  # fmt: skip

    assert done.returncode == max(statuses)
    assert ("scontrol requeue 7" in _lines(tmp_path / "calls")) == asks
    bad = [f"task {task} ended with status {status}" for task, status in enumerate(statuses) if status in (1, 2)]
    assert _lines(tmp_path / "fatal.7") == bad
    assert done.stderr == "".join(f"not requeued: {line}\n" for line in bad)


def test_a_slurm_task_hands_sigterm_on(tmp_path):
    command = [REPOSITORY / "launch" / "slurm_task.sh", "fatal", "bash", "-c", SAVES_AT_SIGTERM]

    assert _signalled(command, signal.SIGTERM, tmp_path, (tmp_path / "up").exists) == 75
    assert _lines(tmp_path / "saved") == ["saved"]
    assert not (tmp_path / "fatal").exists()
    assert _dry("slurm_task.sh", "--dry-run", "fatal", "python", "a b") == [r"+ python a\ b"]


def test_slurm_requeues_a_job_that_ends_while_the_signal_is_handed_on(tmp_path):
    path = _programs(
        tmp_path, srun="touch up; until [[ -e told ]]; do sleep 0.02; done; exit 75", scancel="touch told; sleep 0.5",
        scontrol="exit 0",
    )  # fmt: skip
    settings = ["--nodes=1", "--gpus_per_node=0", "--time=1", "--dry-run", "--", "--workdir=/x"]
    script = "\n".join(_dry("slurm.sh", *settings)[:-1])
    status = _signalled(
        ["bash", "-c", script], signal.SIGTERM, tmp_path, (tmp_path / "up").exists, PATH=path, SLURM_JOB_ID="7"
    )

    assert (status, _lines(tmp_path / "calls")[-1]) == (75, "scontrol requeue 7")


def test_the_status_of_a_child_that_ends_while_a_trap_runs_is_its_own(tmp_path):
    program = (
        f". {REPOSITORY}/launch/lib.sh; trap 'touch told; sleep 0.5' TERM; "
        "(touch up; until [[ -e told ]]; do sleep 0.02; done; exit 75) & wait_for $!; exit $status"
    )

    assert _signalled(["bash", "-c", program], signal.SIGTERM, tmp_path, (tmp_path / "up").exists) == 75


@pytest.mark.parametrize(("hosts", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_local_devices_ends_when_every_process_has_saved(tmp_path, hosts, number):
    slow_host_0 = SAVES_AT_SIGTERM.replace("sleep 0.2", "[[ $* == *index=1 ]] || sleep 0.6")
    path = _programs(tmp_path, job=slow_host_0)
    command = [REPOSITORY / "launch" / "local_devices.sh", "--devices=1", f"--hosts={hosts}"]
    status = _signalled(
        command, number, tmp_path, lambda: len(_lines(tmp_path / "up")) == hosts, PATH=path, PYTHON="job"
    )

    assert status == 75
    assert _lines(tmp_path / "saved") == ["saved"] * hosts


def test_slurm_asks_for_a_signal_and_requeues(tmp_path):
    lines = _dry("slurm.sh", "--nodes=2", "--gpus_per_node=4", "--cpus_per_task=8", "--time=02:00:00",
                 "--partition=gpu", "--dry-run", *JOB, "--workdir=/shared/x")  # fmt: skip
    script = "\n".join(lines[:-1])
    (tmp_path / "job.sh").write_text(script)

    for setting in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=8", "time=02:00:00",
                    "partition=gpu", "requeue"):  # fmt: skip
        assert f"#SBATCH --{setting}\n" in script
    assert re.search("^srun .*--cpus-per-task=8 ", script, flags=re.MULTILINE)
    assert "#SBATCH --signal=B:TERM@120" in script
    assert r"-m craft_jax.main --config=configs/demo.py --config.data.root=/my\ data --workdir=/shared/x &" in script
    assert "scontrol requeue" in script
    assert subprocess.run(["bash", "-n", tmp_path / "job.sh"]).returncode == 0
    assert lines[-1] == "+ sbatch < (the script above)"


def test_local_devices_starts_one_process_a_host():
    (alone,) = _dry("local_devices.sh", "--devices=4", "--dry-run", *JOB)
    both = _dry("local_devices.sh", "--devices=2", "--hosts=2", "--port=7", "--dry-run", *JOB)

    assert alone == (
        "+ env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m craft_jax.main "
        r"--config=configs/demo.py --config.data.root=/my\ data"
    )
    for index, line in enumerate(both):
        assert line.endswith(f"--coordinator=127.0.0.1:7 --process_count=2 --process_index={index}")


GKE = [
    "--name=craft", "--image=i:tpu", "--bucket=b", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--hosts=4",
    "--chips=4",
]  # fmt: skip


@pytest.mark.parametrize("spot", [False, True])
def test_gke_applies_a_jobset_that_restarts_what_can_be_resumed(spot):
    lines = _dry(
        "gke.sh", "create", *GKE, *(["--spot"] if spot else []), "--dry-run", "--", "--config=c.py", '--x=a "b" & c'
    )
    manifest = yaml.safe_load("\n".join(lines[:-1]))
    (jobs,) = manifest["spec"]["replicatedJobs"]
    job = jobs["template"]["spec"]
    pod = job["template"]["spec"]

    assert lines[-1] == "+ kubectl apply --filename=- < (the manifest above)"
    assert "{{" not in "\n".join(lines)
    assert (job["parallelism"], job["completions"]) == (4, 4)
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
    assert "command" not in pod["containers"][0], "the image's own, which brings its init"
    assert pod["containers"][0]["args"] == ["tune", "--workdir=/runs/craft", "--config=c.py", '--x=a "b" & c']
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["mountOptions"] == "implicit-dirs,rename-dir-limit=200000"
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == spot


def test_gke_logs_fetches_and_deletes():
    (logs,) = _dry("gke.sh", "logs", "--name=craft", "--dry-run")
    fetch = _dry("gke.sh", "fetch", "--name=craft", "--bucket=b", "--to=runs/x", "--dry-run")
    (delete,) = _dry("gke.sh", "delete", "--name=craft", "--dry-run")

    (container,) = re.findall(r"- name: (\w+)\n +image:", (REPOSITORY / "launch" / "gke.yaml").read_text())
    assert f"--selector=jobset.sigs.k8s.io/jobset-name=craft --container={container} --follow" in logs
    assert "--max-log-requests=1000" in logs
    assert fetch[-1] == "+ gcloud storage rsync --recursive gs://b/craft runs/x"
    assert delete == "+ kubectl delete jobset craft --namespace=default"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tpu_vm.sh"], "a verb is missing"),
        (["tpu_vm.sh", "create", "--project=p", "--name=n"], "--zone is missing for create"),
        (["tpu_vm.sh", "create", *WHERE, "--runtime=r"], "--type is missing for create"),
        (["tpu_vm.sh", "run", *WHERE], "--config=FILE is missing for run"),
        (["tpu_vm.sh", "run", *WHERE, "--", "--workdir=x"], "--workdir is the script's own"),
        (["tpu_vm.sh", *WATCH, "--", "--workdir=x"], "--workdir is the script's own"),
        (["tpu_vm.sh", "fetch", *WHERE], "--to is missing for fetch"),
        (["tpu_vm.sh", "delete", "--nmae=x"], "unknown argument --nmae=x"),
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4", "--time=1", "--requeues=x"], "--requeues=x must be a number"),
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4", "--time=1", "--cpus_per_task=0"], "--cpus_per_task=0 must be"),
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4"], "--time=HH:MM:SS is missing"),
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4", "--time=1", "--", "--config=c"], "--workdir=FOLDER is missing"),
        (["local_devices.sh"], "--devices=N is missing"),
        (["gke.sh", "create", "--name=n"], "--image is missing for create"),
        (["tpu_host.sh", "none"], "usage: launch/tpu_host.sh"),
        (["slurm_task.sh", "fatal"], "usage: launch/slurm_task.sh"),
        (["resume.sh"], "usage: launch/resume.sh"),
    ],
)
def test_a_missing_argument_is_one_error_and_nothing_runs(command, message):
    done = _run(*command, HOST_NUMBER="0")

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_switches_are_the_scripts_and_not_the_environments():
    done = _run("local_devices.sh", "--devices=1", "--spot", "--dry-run", switches="spot")

    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown argument --spot" in done.stderr


def test_resume_starts_again_while_the_same_command_resumes(tmp_path):
    count = f"echo >> {tmp_path}/runs; n=$(wc -l < {tmp_path}/runs)"
    program = f"{count}; test $n = 1 && exit 75; test $n = 2 && exit 134; exit 3"
    done = _run("resume.sh", "bash", "-c", program, RESTART_DELAY="0")

    assert done.returncode == 3
    assert [line.split("(")[1].split(")")[0] for line in done.stderr.splitlines()] == ["status 75", "status 134"]
    assert _dry("resume.sh", "--dry-run", "python", "a b")[-1] == r"+ python a\ b"


def test_resume_gives_up_after_its_restarts():
    done = _run("resume.sh", "bash", "-c", "exit 75", RESTART_DELAY="0", MAX_RESTARTS="2")

    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == "resume.sh: stopped with status 75 after 2 restarts"


def test_resume_hands_sigterm_on_and_does_not_start_again(tmp_path):
    program = f"trap 'sleep 0.2; exit 75' TERM; touch {tmp_path}/up; while true; do sleep 0.05; done"
    wrapper = subprocess.Popen(
        [REPOSITORY / "launch" / "resume.sh", "bash", "-c", program], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    wrapper.terminate()

    assert wrapper.communicate(timeout=10)[1] == ""
    assert wrapper.returncode == 75


def test_resume_hands_ctrl_c_on_as_sigterm(tmp_path):
    command = [REPOSITORY / "launch" / "resume.sh", "bash", "-c", SAVES_AT_SIGTERM]

    assert _signalled(command, signal.SIGINT, tmp_path, (tmp_path / "up").exists) == 75
    assert (_lines(tmp_path / "saved"), _lines(tmp_path / "output")) == (["saved"], [])


def test_resume_starts_nothing_after_a_signal_between_two_runs(tmp_path):
    command = [REPOSITORY / "launch" / "resume.sh", "bash", "-c", "echo >> runs; exit 75"]
    started = time.monotonic()
    status = _signalled(
        command, signal.SIGTERM, tmp_path, lambda: "restart 1 in" in (tmp_path / "output").read_text(),
        RESTART_DELAY="15",
    )  # fmt: skip

    assert (status, len(_lines(tmp_path / "runs"))) == (75, 1)
    assert time.monotonic() - started < 14


def test_the_container_holds_what_the_job_needs():
    text = (REPOSITORY / "Dockerfile").read_text()
    shown = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    for copied in re.findall(r"^COPY (.*) \S+$", text, flags=re.MULTILINE):
        assert all((REPOSITORY / name).exists() and name in shown for name in copied.split())


def test_the_container_has_an_init_as_process_1():
    text = (REPOSITORY / "Dockerfile").read_text()

    assert re.search(r"apt-get install .*\btini\b", text)
    assert '\nENTRYPOINT ["tini", "--", "craft-jax"]' in text
