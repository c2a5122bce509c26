"""The launch scripts: what each would run, seen in its dry run, and that they stop at a missing argument."""

import os
import re
import shutil
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

    assert _dry("tpu_host.sh", *arguments, HOST_NUMBER="0") == [
        "+ mkdir -p runs/nowhere",
        "+ gcloud storage rsync --recursive gs://b/c runs/nowhere",
        job,
        "+ gcloud storage rsync --recursive runs/nowhere gs://b/c",
    ]
    assert _dry("tpu_host.sh", *arguments, HOST_NUMBER="3") == [job]


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
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == spot


def test_gke_logs_fetches_and_deletes():
    (logs,) = _dry("gke.sh", "logs", "--name=craft", "--dry-run")
    fetch = _dry("gke.sh", "fetch", "--name=craft", "--bucket=b", "--to=runs/x", "--dry-run")
    (delete,) = _dry("gke.sh", "delete", "--name=craft", "--dry-run")

    assert "--selector=jobset.sigs.k8s.io/jobset-name=craft --follow" in logs
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
        (["tpu_vm.sh", "fetch", *WHERE], "--to is missing for fetch"),
        (["tpu_vm.sh", "delete", "--nmae=x"], "unknown argument --nmae=x"),
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


def test_the_container_holds_what_the_job_needs():
    text = (REPOSITORY / "Dockerfile").read_text()
    shown = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    for copied in re.findall(r"^COPY (.*) \S+$", text, flags=re.MULTILINE):
        assert all((REPOSITORY / name).exists() and name in shown for name in copied.split())
