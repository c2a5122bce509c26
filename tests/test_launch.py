"""The launch scripts: what each would run, seen in its dry run, and that they stop at a missing argument."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = sorted((REPOSITORY / "launch").glob("*.sh"))
WHERE = ["--project=p", "--zone=z", "--name=craft"]
PLAIN = {"PATH": os.environ["PATH"], "TMPDIR": "/tmp"}
JOB = ["--", "--config=configs/demo.py", "--config.data.root=/my data"]

# A script cannot trap what was ignored when it started, as SIGINT is where pytest runs in the background.
HEARING_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)


def _run(script, *arguments, **environment):
    return subprocess.run(
        [REPOSITORY / "launch" / script, *arguments],
        capture_output=True, text=True, cwd=REPOSITORY, env=PLAIN | environment,
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

    assert archive == "+ git archive --format=tar.gz --output=/tmp/craft_jax_craft.tar.gz HEAD"
    assert copy.startswith(
        "+ gcloud compute tpus tpu-vm scp /tmp/craft_jax_craft.tar.gz craft:craft_jax.tar.gz --worker=all"
    )
    assert "--worker=all" in install
    assert r"jax\[tpu\]" in install


def test_tpu_vm_runs_the_job_on_every_host_and_comes_back():
    (line,) = _dry("tpu_vm.sh", "run", *WHERE, "--bucket=gs://b/craft", "--dry-run", *JOB)

    assert "ssh craft --worker=all" in line
    assert r"launch/tpu_host.sh\ gs://b/craft\ runs/craft\ --config=configs/demo.py" in line
    assert line.replace("\\", "").endswith("< /dev/null & sleep 1 --project=p --zone=z")


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

    assert verbs == ["describe", "delete", "create", "scp", "ssh", "ssh"]
    assert "at most 10 times" in "\n".join(lines)


def test_a_tpu_host_pulls_runs_and_keeps_and_only_host_0_touches_the_bucket():
    arguments = ["--dry-run", "gs://b/c", "runs/nowhere", "--config=configs/demo.py"]
    job = "+ launch/resume.sh .venv/bin/python -m craft_jax.main --workdir=runs/nowhere --config=configs/demo.py"

    lines = _dry("tpu_host.sh", *arguments, HOST_NUMBER="0")

    assert lines == [
        "+ gcloud storage rm gs://b/c/exit_status",
        "+ rm -rf runs/nowhere.partial",
        "+ mkdir -p runs/nowhere.partial",
        "+ gcloud storage ls gs://b/c",
        "+ gcloud storage rsync --recursive gs://b/c runs/nowhere.partial",
        "+ mv runs/nowhere.partial runs/nowhere",
        job,
        "every minute, and when the job has ended:",
        "+ gcloud storage rsync --recursive runs/nowhere gs://b/c",
        "where it ended with an error, its status:",
        "+ gcloud storage cp - gs://b/c/exit_status",
    ]
    asked, *rest = _dry("tpu_host.sh", *arguments)
    assert asked.startswith("+ curl ")
    assert rest == lines
    assert _dry("tpu_host.sh", *arguments, HOST_NUMBER="3") == [job]


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


def _tpu_host(folder, gcloud, python):
    """The command of host 0 in a folder with stand-ins for gcloud and for the job, and the PATH for it."""
    path = _programs(folder, gcloud=gcloud, python=python)
    (folder / "launch").symlink_to(REPOSITORY / "launch")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(folder / "bin")
    return ["launch/tpu_host.sh", "gs://b/c", "runs/x", "--config=c"], {"PATH": path, "HOST_NUMBER": "0"}


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
    assert _lines(tmp_path / "calls")[-1] == "gcloud storage cp - gs://b/c/exit_status"


def test_a_tpu_host_starts_afresh_from_an_empty_bucket_and_leaves_the_status_of_an_error(tmp_path):
    empty = '[[ $2 != ls ]] || { echo "ERROR: One or more URLs matched no objects." >&2; exit 1; }'
    command, environment = _tpu_host(tmp_path, f"{empty}; [[ $2 != cp ]] || cat > {tmp_path}/status", "exit 3")
    with (tmp_path / "output").open("w") as output:
        done = subprocess.run(command, cwd=tmp_path, env=PLAIN | environment, stdout=output, stderr=output)

    assert done.returncode == 3
    assert (tmp_path / "runs" / "x").is_dir()
    assert _lines(tmp_path / "status") == ["3"]
    assert _lines(tmp_path / "calls")[-2:] == [
        "gcloud storage rsync --recursive runs/x gs://b/c", "gcloud storage cp - gs://b/c/exit_status",
    ]  # fmt: skip


def test_a_tpu_host_copies_what_the_job_saved_at_sigterm(tmp_path):
    keep = f"[[ $4 != runs/x ]] || cp {tmp_path}/saved {tmp_path}/kept"
    command, environment = _tpu_host(tmp_path, keep, SAVES_AT_SIGTERM)
    status = _signalled(command, signal.SIGTERM, tmp_path, (tmp_path / "up").exists, **environment)

    assert status == 75
    assert _lines(tmp_path / "kept") == ["saved"]
    assert not any("cp -" in line for line in _lines(tmp_path / "calls")), "told to stop, which is no error"


WATCH = ["watch", *WHERE, "--type=t", "--runtime=r", "--bucket=gs://b/c", "--restarts=3"]


def test_watch_tries_a_failed_setup_again_and_says_that_the_slice_costs(tmp_path):
    state = f"grep -q create {tmp_path}/calls && echo READY"
    gcloud = f"[[ $* != *describe* ]] || {{ {state}; exit; }}; [[ $* == *create* ]]"
    path = _programs(tmp_path, gcloud=gcloud, git="exit 0", sleep="exit 0")
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=path)

    assert done.returncode == 2
    assert sum(" scp " in line for line in _lines(tmp_path / "calls")) == 3
    assert sum(" create " in line for line in _lines(tmp_path / "calls")) == 1
    assert done.stderr.splitlines()[-1].startswith("error: given up after 3 tries to set up and run; the slice still ")
    assert "launch/tpu_vm.sh delete --project=p --zone=z --name=craft" in done.stderr


def test_watch_ends_where_the_job_ended_with_an_error(tmp_path):
    gcloud = "[[ $* != *describe* ]] || echo READY; [[ $2 != cat ]] || echo 3; [[ $2 != ls ]]"
    done = _run("tpu_vm.sh", *WATCH, *JOB, PATH=_programs(tmp_path, gcloud=gcloud, sleep="exit 0"))

    assert done.returncode == 2
    assert done.stderr.startswith("error: the job ended with status 3 ")


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
    lines = _dry("slurm.sh", "--nodes=2", "--gpus_per_node=4", "--time=02:00:00", "--partition=gpu", "--dry-run", *JOB,
                 "--workdir=/shared/x")  # fmt: skip
    script = "\n".join(lines[:-1])
    (tmp_path / "job.sh").write_text(script)

    for setting in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "time=02:00:00", "partition=gpu", "requeue"):
        assert f"#SBATCH --{setting}\n" in script
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
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    assert pod["containers"][0]["command"][-3:] == ["--workdir=/runs/craft", "--config=c.py", '--x=a "b" & c']
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["mountOptions"] == "implicit-dirs,rename-dir-limit=200000"
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == spot


def test_gke_logs_fetches_and_deletes():
    (logs,) = _dry("gke.sh", "logs", "--name=craft", "--dry-run")
    fetch = _dry("gke.sh", "fetch", "--name=craft", "--bucket=b", "--to=runs/x", "--dry-run")
    (delete,) = _dry("gke.sh", "delete", "--name=craft", "--dry-run")

    assert "--selector=jobset.sigs.k8s.io/jobset-name=craft --follow" in logs
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
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4"], "--time=HH:MM:SS is missing"),
        (["slurm.sh", "--nodes=2", "--gpus_per_node=4", "--time=1", "--", "--config=c"], "--workdir=FOLDER is missing"),
        (["local_devices.sh"], "--devices=N is missing"),
        (["gke.sh", "create", "--name=n"], "--image is missing for create"),
        (["tpu_host.sh", "none"], "usage: launch/tpu_host.sh"),
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
