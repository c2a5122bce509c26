"""Sweeps: what is planned, done, skipped and resumed, and the tables that come of it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import craft_jax
from craft_jax import data, fanout, plan, protocols, results, sweep, table
from craft_jax.config import DataConfig
from craft_jax.errors import UserError
from tests import miniatures

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
TINY = [
    "--config.black_box.model=bundled", "--config.data.views=1", "--config.query_budget=8",
    "--config.search.population_size=8", "--config.refinement.hidden=8", "--config.run.devices=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Miniatures of pets, textures and ImageNet with its variants."""
    root = tmp_path_factory.mktemp("data")
    for name in ("pets", "dtd", "imagenet"):
        miniatures.make(root, name)
    miniatures.make_shifts(root)
    return root


def _arguments(root, workdir, *more, configs=("pets", "dtd"), seeds="1,2"):
    files = ",".join(f"{CONFIGS}/{name}.py" for name in configs)
    return [
        f"--config={files}", "--shots=3", f"--seeds={seeds}", f"--workdir={workdir}", f"--config.data.root={root}",
        *TINY, *more,
    ]  # fmt: skip


def _sweep(*arguments):
    sweep.main(["sweep", *arguments])


@pytest.fixture(scope="module")
def swept(root, tmp_path_factory):
    """The workdir of a finished sweep: two sets, three shots, two seeds."""
    workdir = tmp_path_factory.mktemp("runs") / "sweep"
    _sweep(*_arguments(root, workdir))
    return workdir


@pytest.fixture
def copied(swept, tmp_path):
    """A copy of that workdir, to change."""
    shutil.copytree(swept, tmp_path / "sweep")
    return tmp_path / "sweep"


def _result(workdir, label, seed):
    return json.loads((workdir / label / f"3-shots-seed-{seed}" / "result.json").read_text())


def _rows(workdir):
    with (workdir / table.CSV).open(newline="") as file:
        return list(csv.DictReader(file))


# Few shots


def test_a_sweep_leaves_mean_and_deviation_of_every_set_beside_zero_shot_and_the_published(swept):
    rows = {(row["set"], row["predictions"]): row for row in _rows(swept)}
    accuracies = [_result(swept, "pets", seed)["refined"] for seed in (1, 2)]
    page = (swept / table.MARKDOWN).read_text()

    assert len(rows) == 2 * 3
    assert float(rows["pets", "refined"]["mean"]) == pytest.approx(np.mean(accuracies), abs=1e-4)
    assert float(rows["pets", "refined"]["std"]) == pytest.approx(np.std(accuracies, ddof=1), abs=1e-4)
    assert rows["pets", "zero_shot"]["published"] == "85.77"
    assert f"| pets | {_result(swept, 'pets', 1)['zero_shot']:.1f} | {np.mean(accuracies):.1f} ± " in page
    assert "| *published, RN50* | *85.8* | – |" in page  # none at three shots
    assert "| **mean of 2** |" in page
    assert "- dtd: bundled, split_zhou_DescribableTextures, 3 classes, 12 test images" in page
    assert (swept / table.PLOT).read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_skipped(swept, root, capsys):
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("result.json")}
    _sweep(*_arguments(root, swept))

    assert "4 runs, 4 of them done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in swept.rglob("result.json")} == before


def test_what_is_missing_is_run_and_ends_with_the_same_table(copied, root, capsys):
    whole = (copied / table.CSV).read_text()
    shutil.rmtree(copied / "dtd" / "3-shots-seed-2")
    _sweep(*_arguments(root, copied))

    assert "4 runs, 3 of them done" in capsys.readouterr().out
    assert (copied / table.CSV).read_text() == whole


def test_a_sweep_with_other_settings_is_refused(swept, root):
    with pytest.raises(UserError, match="3-shots-seed-1 holds a run with search.sigma=0.1, not 0.2; choose another"):
        _sweep(*_arguments(root, swept, "--config.search.sigma=0.2"))


def test_a_share_does_its_runs_alone_and_the_last_one_writes_the_table(copied, root, capsys):
    whole = (copied / table.MARKDOWN).read_text()
    (copied / table.MARKDOWN).unlink()
    for label in ("pets", "dtd"):
        shutil.rmtree(copied / label / "3-shots-seed-2")
    _sweep(*_arguments(root, copied, "--array=2/4"))
    shown = capsys.readouterr().out

    assert "[1/1] pets, 3 shots, seed 2" in shown
    assert "3 of 4 runs done; the share that ends last writes the table" in shown
    assert not (copied / table.MARKDOWN).exists()
    _sweep(*_arguments(root, copied, "--array=4/4"))
    assert (copied / table.MARKDOWN).read_text() == whole


def test_the_test_images_are_encoded_once_in_a_sweep(swept):
    encoded = [_result(swept, "pets", seed)["ledger"]["images_encoded"] for seed in (1, 2)]

    assert encoded == [9 + 12, 9]


def test_an_unfinished_sweep_says_how_many_seeds_a_number_has(swept, root):
    runs = _plan(swept, configs=f"{CONFIGS}/pets.py", seeds=(1, 2, 3), root=root)
    refined = next(entry for entry in results.collect(runs, "few_shot") if entry.measure == "refined")

    assert refined.planned == 3
    assert table._cell(refined).endswith("(2 of 3 seeds)")


def test_a_set_that_cannot_be_read_does_not_stop_the_others(root, copied, tmp_path, capsys):
    broken = shutil.copytree(root, tmp_path / "broken")
    for path in (broken / "oxford_pets" / "images").iterdir():
        path.write_bytes(b"")
    for label in ("pets", "dtd"):
        shutil.rmtree(copied / label / "3-shots-seed-2")
    for settings in copied.rglob(plan.SETTINGS):  # the same data, elsewhere
        settings.write_text(settings.read_text().replace(str(root), str(broken)))
    with pytest.raises(UserError, match="1 of 2 runs failed; the first: pets, 3 shots, seed 2: .*not a readable image"):
        _sweep(*_arguments(broken, copied))

    assert (copied / "dtd" / "3-shots-seed-2" / "result.json").exists()
    assert "(1 of 2 seeds)" in (copied / table.MARKDOWN).read_text()


# Protocols


def test_base_to_new_tests_the_prompt_on_new_classes_and_reports_the_harmonic_mean(root, tmp_path):
    _sweep(*_arguments(root, tmp_path, "--protocol=base_to_new", configs=("pets",), seeds="1"))
    rows = {(row["predictions"], row["target"]): float(row["mean"]) for row in _rows(tmp_path)}
    base = json.loads((tmp_path / "pets" / "base-3-shots-seed-1" / "result.json").read_text())
    new = json.loads((tmp_path / "pets" / "base-3-shots-seed-1" / "on-new.json").read_text())

    assert (base["classes"], new["classes"], base["split"]) == (2, 1, "split_zhou_OxfordPets, base classes")
    assert rows["refined", "base"] == pytest.approx(base["refined"], abs=1e-4)
    assert rows["refined", "new"] == new["prompt_only"] == 100  # one new class
    harmonic = 2 * base["refined"] * 100 / (base["refined"] + 100)
    assert rows["refined", "harmonic mean"] == pytest.approx(harmonic, abs=1e-4)


def test_the_prompt_goes_to_other_sets_without_its_head(copied, root, capsys):
    more = ("--protocol=cross", f"--targets={CONFIGS}/dtd.py")
    _sweep(*_arguments(root, copied, *more, configs=("pets",)))
    row = json.loads((copied / "pets" / "3-shots-seed-1" / "on-dtd.json").read_text())
    page = (copied / table.MARKDOWN).read_text()

    assert "holds this run, finished" in capsys.readouterr().out  # trained by the sweep over shots
    assert set(row) == {"zero_shot", "prompt_only", "classes", "test_images", "split"}
    assert row["zero_shot"] == _result(copied, "dtd", 1)["zero_shot"]
    assert "| set | shots | predictions | pets | dtd |" in page
    assert {row["predictions"] for row in _rows(copied)} == {"zero_shot", "prompt_only"}


def test_shifted_imagenets_score_the_classes_that_they_share(root, tmp_path):
    _sweep(*_arguments(root, tmp_path, "--protocol=shift", configs=("imagenet",), seeds="1"))
    run = tmp_path / "imagenet" / "3-shots-seed-1"

    classes = {name: json.loads((run / f"on-{name}.json").read_text())["classes"] for name in data.imagenet.SHIFTS}
    assert classes == {"imagenetv2": 3, "imagenet-sketch": 3, "imagenet-a": 2, "imagenet-r": 2}
    header = (tmp_path / table.MARKDOWN).read_text().splitlines()[3]
    assert header == "| set | shots | predictions | imagenet | imagenetv2 | imagenet-sketch | imagenet-a | imagenet-r |"


def test_accuracy_among_shown_classes_compares_these_alone():
    logits = np.array([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0], [9.0, 1.0, 0.0]])

    assert protocols.accuracy_among_shown(logits, np.array([1, 2, 2])) == pytest.approx(200 / 3)
    assert protocols.accuracy_among_shown(logits, np.array([0, 2, 2])) == pytest.approx(100 / 3)


def test_a_prompt_goes_to_no_other_black_box(small_black_box, small_set):
    tuned = craft_jax.TunedModel(
        small_black_box.initial_prompt, {}, {**small_black_box.identity, "fingerprint": "x"}, ("a", "b")
    )

    with pytest.raises(UserError, match="made for black box bundled .fingerprint 'x'"):
        protocols.on_other_classes(tuned, small_black_box, small_set)


@pytest.mark.parametrize(("base", "new", "expected"), [(80, 60, 68.571), (50, 50, 50), (0, 90, 0)])
def test_the_harmonic_mean(base, new, expected):
    assert protocols.harmonic_mean(base, new) == pytest.approx(expected, abs=1e-3)


def test_the_published_figures_stand_where_the_paper_has_them(swept):
    run = _plan(swept, configs=f"{CONFIGS}/imagenet.py", shots=(16,))[0]

    assert results._published(run, "shift", "refined", "imagenet-r") == 75.52
    assert results._published(run, "shift", "zero_shot", "imagenet-a") == 47.77
    assert results._published(run, "few_shot", "refined", "test") == 61.33
    assert results._published(run, "few_shot", "prompt_only", "test") is None


# Plans


def _plan(workdir, *, configs, overrides=(), shots=(3,), seeds=(1,), root=None, **more):
    overrides = [*overrides, f"--config.data.root={root}", *TINY] if root else overrides
    how = {"protocol": "few_shot", "targets": "", **more}
    return plan.plan(configs, overrides, shots=shots, seeds=seeds, workdir=workdir, **how)


def test_a_plan_has_a_run_for_each_set_number_of_shots_and_seed(tmp_path):
    runs = _plan(tmp_path, configs=f"{CONFIGS}/pets.py,{CONFIGS}/caltech.py:paper,tfds", shots=(1, 16), seeds=(1, 2))

    assert [str(run.workdir.relative_to(tmp_path)) for run in runs[:5]] == [
        "pets/1-shots-seed-1",
        "pets/1-shots-seed-2",
        "pets/16-shots-seed-1",
        "pets/16-shots-seed-2",
        "caltech-paper-tfds/1-shots-seed-1",
    ]
    assert len(runs) == 8
    assert (runs[3].config.data.shots, runs[3].config.seed, runs[3].config.data.source) == (16, 2, "coop")
    assert (runs[4].config.data.source, runs[4].config.black_box.model) == ("tfds", "RN50")


def test_the_budget_is_the_published_one_for_the_shots_unless_given(tmp_path):
    demo, shots = f"{CONFIGS}/demo.py", (1, 2, 4, 8, 16)
    published = _plan(tmp_path, configs=demo, shots=shots)
    given = _plan(tmp_path, configs=demo, shots=shots, overrides=["--config.query_budget=8000"])

    assert [run.config.query_budget for run in published] == [2000, 4000, 4000, 8000, 8000]
    assert [run.config.query_budget for run in given] == [8000] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing; try --config=configs/demo.py"),
        (["--config=configs/nowhere.py"], "--config could not be loaded: .*nowhere.py"),
        (["--config=configs/demo.py,configs/demo.py"], "two settings files are called demo"),
        (["--config=configs/demo.py", "--shots=1,two"], "--shots=1,two must be whole numbers joined by commas"),
        (["--config=configs/demo.py", "--seeds=1,1"], "--seeds=1,1 names a number twice"),
        (["--config=configs/demo.py", "--config.seed=2"], "--config.seed is the sweep's own: use --seeds"),
        (["--config=configs/demo.py", "--config.data.shots=2"], "--config.data.shots is the sweep's own: use --shots"),
        (["--config=configs/demo.py", "--config.data.shotz=2"], 'shotz; did you mean "shots"'),
        (["--config=configs/demo.py", "--array=4/3"], "--array=4/3 must be I/N, such as 3/15"),
        (["--config=configs/demo.py", "--protocol=few"], "--protocol=few must be one of few_shot, base_to_new"),
        (["--config=configs/demo.py", "--protocol=cross"], "--protocol=cross needs --targets"),
        (["--config=configs/demo.py", "--protocol=shift"], "--protocol=shift needs data.source=imagenet, not coop"),
        (["--config=configs/imagenet.py", "--protocol=shift"], "none of imagenetv2/.* is there; lay them out"),
        (["--config=configs/demo.py", "--shots=16,99"], "class 'pizza' has 26 training photographs, fewer than"),
        (["--config=configs/demo.py,configs/pets.py"], "data.root=data: no such folder"),
        (["--config=configs/demo.py", "more"], "unexpected argument 'more'"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_line_before_anything_is_run(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    with pytest.raises(UserError, match=message) as error:
        _sweep(*arguments, f"--workdir={tmp_path}/sweep")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


# Side by side


def _share(tmp_path, name, code):
    return fanout.Share(name, [sys.executable, "-c", code], tmp_path / f"{name}.txt")


def test_shares_run_side_by_side_each_in_its_place(tmp_path):
    meet = (
        "import os, pathlib, sys, time\n"
        f"pathlib.Path(r'{tmp_path}', os.environ['PLACE']).touch()\n"
        f"while len(list(pathlib.Path(r'{tmp_path}').glob('place*'))) < 2: time.sleep(0.01)\n"
        "print('met in', os.environ['PLACE'])\n"
    )
    shares = [_share(tmp_path, name, meet) for name in ("one", "two", "three")]
    assert fanout.run_all(shares, [{"PLACE": "place0"}, {"PLACE": "place1"}], lambda line: None) == []
    assert [share.log.read_text()[:12] for share in shares] == ["met in place"] * 3


@pytest.mark.parametrize(("status", "next_runs"), [(2, True), (75, False)])
def test_a_mistake_in_a_share_leaves_the_others_alone_and_an_interruption_starts_no_more(tmp_path, status, next_runs):
    said = []
    failing = _share(tmp_path, "bad", f"import sys; print('error: no such thing'); sys.exit({status})")
    (failure,) = fanout.run_all([failing, _share(tmp_path, "next", "")], [{}], said.append)

    assert (failure.share.name, failure.status, failure.last_line) == ("bad", status, "error: no such thing")
    assert said == ["bad: started", "bad: failed"] + ["next: started", "next: finished"] * next_runs


def test_gpus_are_parted_among_processes_and_too_few_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,2")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    assert [place["CUDA_VISIBLE_DEVICES"] for place in fanout.places_for(2)] == ["4,5", "6,7"]
    with pytest.raises(UserError, match="--parallel=6, and there are 5 GPUs here; lower it"):
        fanout.places_for(6)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert fanout.places_for(3) == [{}, {}, {}]


def test_a_run_waits_for_another_process_in_its_workdir(tmp_path):
    holder = (
        "import pathlib, time\nfrom craft_jax import sweep\n"
        f"with sweep._alone(pathlib.Path(r'{tmp_path}/run')):\n    print('mine', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder], cwd=REPOSITORY, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with subprocess.Popen(
            [sys.executable, "-c", holder], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stdout.readline().endswith("/run; waiting for it\n")
            other.kill()  # SIGKILL: the system lets go of its claim
            assert waiting.stdout.readline() == "mine\n"
            waiting.kill()


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(swept, root, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "craft_jax.sweep", *_arguments(root, tmp_path / "sweep", "--parallel=2")],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert run.stdout.count(": finished") == 4
    assert (tmp_path / "sweep" / table.CSV).read_text() == (swept / table.CSV).read_text()
    assert "step 1/1" in (tmp_path / "sweep" / "dtd" / "3-shots-seed-2" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_sweep_killed_at_any_moment_and_started_again_ends_with_the_same_table(parallel, swept, root, tmp_path):
    command = [
        sys.executable, "-m", "craft_jax.sweep", *_arguments(root, tmp_path / "sweep", f"--parallel={parallel}")
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(3):
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            time.sleep(rng.uniform(4, 12))
            run.send_signal(signal.SIGKILL)  # leaves its own processes at work, which the next sweep waits for
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)

    for name in (table.CSV, table.MARKDOWN):
        assert (tmp_path / "sweep" / name).read_text() == (swept / name).read_text()


def test_help_shows_how_to_run_an_array_job_and_does_not_wait_for_jax():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "craft_jax.sweep", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip

    assert run.returncode == 0
    assert "--array=$SLURM_ARRAY_TASK_ID/15" in run.stdout
    assert " jax\n" not in run.stderr


def test_the_demo_may_be_swept(tmp_path):
    runs = _plan(tmp_path, configs=f"{CONFIGS}/demo.py", shots=(1, 16))

    assert runs[0].config.data == DataConfig(shots=1)
