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

import jax
import numpy as np
import optax
import pytest

import craft_jax
from craft_jax import data, files
from craft_jax.errors import Interrupted, UserError
from craft_jax.method import refinement
from craft_jax.sweep import command, plan, plot, protocols, results, runner, table
from craft_jax.training import report
from tests import miniatures

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
TINY = [
    "--config.black_box.model=bundled", "--config.data.views=1", "--config.query_budget=8", "--config.prompt.std=0.01",
    "--config.search.estimator=antithetic", "--config.search.sigma=1.0", "--config.probe.texts=0",
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
    command.main(["sweep", *arguments])


@pytest.fixture(scope="module")
def swept(root, tmp_path_factory):
    """The workdir of a finished sweep: two sets, three shots, two seeds."""
    workdir = tmp_path_factory.mktemp("runs") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # no other test has encoded its images
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
    accuracies = [_result(swept, "pets", seed)["accuracy"] for seed in (1, 2)]
    page = (swept / table.MARKDOWN).read_text()

    assert len(rows) == 2 * 4
    assert float(rows["pets", "accuracy"]["mean"]) == pytest.approx(np.mean(accuracies), abs=1e-4)
    assert float(rows["pets", "accuracy"]["std"]) == pytest.approx(np.std(accuracies, ddof=1), abs=1e-4)
    assert rows["pets", "zero_shot"]["published"] == "85.77"
    assert f"| pets | {_result(swept, 'pets', 1)['zero_shot']:.1f} | {np.mean(accuracies):.1f} ± " in page
    assert "| *published, RN50* | *85.8* | – |" in page  # none at three shots
    assert "| **mean of 2** |" in page
    assert "| *published mean of 2, RN50* | *64.0* | – |" in page  # of 85.77 and 42.32
    assert rows["dtd", "accuracy"]["split"] == "split_zhou_DescribableTextures"
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
    with pytest.raises(UserError, match="3-shots-seed-1 holds a run with search.sigma=1.0, not 0.2; choose another"):
        _sweep(*_arguments(root, swept, "--config.search.sigma=0.2"))


@pytest.mark.slow
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

    assert encoded == [9 + 6 + 12, 9]  # shots, validation and test; then the other seed's shots alone


def test_an_unfinished_sweep_says_how_many_seeds_a_number_has(swept, root):
    runs = plan.plan(
        f"{CONFIGS}/pets.py", [f"--config.data.root={root}", *TINY], shots=(3,), seeds=(1, 2, 3),
        protocol="few_shot", targets="", workdir=swept,
    )  # fmt: skip
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
    stopped = (
        "1 of 2 runs failed; the first: pets, 3 shots, seed 2: 27 photographs .*jpg and 17 more; .*: not a readable"
    )
    with pytest.raises(UserError, match=stopped):
        _sweep(*_arguments(broken, copied))

    assert capsys.readouterr().out.count("17 more") == 1
    assert (copied / "dtd" / "3-shots-seed-2" / "result.json").exists()
    assert "(1 of 2 seeds)" in (copied / table.MARKDOWN).read_text()


@pytest.mark.slow
def test_a_run_that_is_out_of_memory_does_not_stop_the_others(root, copied, monkeypatch, capsys):
    carry_out = runner.carry_out

    def without_memory(run, shared, stop):
        if run.label == "pets":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffers: ...")
        carry_out(run, shared, stop)

    monkeypatch.setattr(runner, "carry_out", without_memory)
    for label in ("pets", "dtd"):
        shutil.rmtree(copied / label / "3-shots-seed-2")
    with pytest.raises(UserError, match="1 of 2 runs failed; the first: pets, 3 shots, seed 2: RESOURCE_EXHAUSTED: .*"):
        _sweep(*_arguments(root, copied))

    assert "failed: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n\n[2/2] dtd" in capsys.readouterr().out
    assert (copied / "dtd" / "3-shots-seed-2" / "result.json").exists()


@pytest.fixture
def _own_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_own_sigterm")
def test_sigterm_is_told_to_the_run_in_hand(root, tmp_path, monkeypatch):
    def train(*_, stop):
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        raise Interrupted("stopped after step 1") if stop() else AssertionError("it was not told")

    monkeypatch.setattr(runner.training, "train_alone", train)
    with pytest.raises(Interrupted, match="stopped after step 1"):
        _sweep(*_arguments(root, tmp_path, configs=("pets",)))


@pytest.mark.usefixtures("_own_sigterm")
def test_sigterm_at_a_runs_end_begins_no_other(root, tmp_path, monkeypatch):
    def carry_out(run, shared, stop):
        stop()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runner, "carry_out", carry_out)
    with pytest.raises(Interrupted, match="stopped after pets, 3 shots, seed 1"):
        _sweep(*_arguments(root, tmp_path))


def test_two_processes_may_write_one_file_at_the_same_time(tmp_path):
    path = tmp_path / "table.md"
    with files.replacing(path) as one, files.replacing(path) as other:
        one.write_text("one")
        other.write_text("other")

    assert path.read_text() == "one"  # the one that ended last
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "table.md", []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.exists())))
    files.write_atomically(path, "text")

    assert synced == [(4, False)]


def test_a_curve_that_could_not_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    def savefig(figure, file, **_):
        Path(file).write_bytes(b"half a curve")
        raise OSError("no space left")

    (tmp_path / "curve.png").write_text("old")
    row = {"prompts": 8, "train_refined": 60.0, "test_prompt_only": 50.0, "test_refined": 55.0}
    report.draw_curve(tmp_path / "new.png", [row], zero_shot=40.0)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    with pytest.raises(OSError, match="no space left"):
        report.draw_curve(tmp_path / "curve.png", [row], zero_shot=40.0)

    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curve.png").read_text() == "old"


def _entry(label, method, shots, accuracy, measure=results.CHOSEN):
    return results.Entry(label, method, shots, measure, "test", "", {1: accuracy - 1, 2: accuracy + 1}, 2, None)


def test_a_sweeps_picture_has_a_panel_a_set_a_line_a_method_and_their_means(tmp_path):
    entries = [
        _entry(f"{name}{tail}", method, shots, base + shots + 10 * len(method), measure)
        for name, base in (("pets", 40.0), ("_$a$", 60.0))
        for method, tail in (("", ""), ("paper,tfds", "-paper-tfds"))
        for shots in (1, 4)
        for measure in (results.CHOSEN, results.ZERO_SHOT)
    ]
    panels = plot.panels(entries)
    means = {line.name: [point[:2] for point in line.points] for line in panels[2].lines}

    assert [panel.title for panel in panels] == ["pets", "_$a$", "mean of 2 sets"]
    assert [[line.name for line in panel.lines] for panel in panels] == [["default", "paper,tfds"]] * 3
    assert means == {"default": [(1, 51.0), (4, 54.0)], "paper,tfds": [(1, 151.0), (4, 154.0)]}
    assert len(plot.panels(entries[:8])) == 1
    plot.draw(entries, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_means_are_of_the_shots_that_every_set_has():
    entries = [_entry("pets", "", 1, 40.0), _entry("pets", "", 4, 50.0), _entry("dtd", "", 4, 60.0)]

    assert plot.panels(entries)[-1].lines[0].points == [(4, 55.0, None)]


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "table.md"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "\ud800")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Protocols


@pytest.mark.slow
def test_base_to_new_tests_the_deployed_model_on_new_classes_and_reports_the_harmonic_mean(root, tmp_path):
    _sweep(
        *_arguments(
            root, tmp_path, "--protocol=base_to_new", "--config.prompt.context=unified", configs=("pets",), seeds="1"
        )
    )
    rows = {(row["predictions"], row["target"]): float(row["mean"]) for row in _rows(tmp_path)}
    base = json.loads((tmp_path / "pets" / "base-3-shots-seed-1" / "result.json").read_text())
    new = json.loads((tmp_path / "pets" / "base-3-shots-seed-1" / "on-new.json").read_text())

    assert (base["classes"], new["classes"], base["split"]) == (2, 1, "split_zhou_OxfordPets, base classes")
    assert rows["accuracy", "base"] == pytest.approx(base["accuracy"], abs=1e-4)
    assert rows["accuracy", "new"] == new["accuracy"] == 100  # one new class
    harmonic = 2 * base["accuracy"] * 100 / (base["accuracy"] + 100)
    assert rows["accuracy", "harmonic mean"] == pytest.approx(harmonic, abs=1e-4)


@pytest.mark.slow
def test_a_test_on_data_that_have_changed_since_is_made_again(root, tmp_path):
    more = ("--protocol=shift", "--config.prompt.context=unified")
    _sweep(*_arguments(root, tmp_path, *more, configs=("imagenet",), seeds="1"))
    file = tmp_path / "imagenet" / "3-shots-seed-1" / "on-imagenet-r.json"
    made = json.loads(file.read_text())
    file.write_text(json.dumps(made | {"accuracy": -1, "data": made["data"] | {"root": "elsewhere"}}))
    _sweep(*_arguments(root, tmp_path, *more, configs=("imagenet",), seeds="1"))

    assert json.loads(file.read_text()) == made


@pytest.mark.parametrize("more", [("--protocol=base_to_new",), ("--protocol=cross", f"--targets={CONFIGS}/dtd.py")])
def test_a_prompt_for_each_class_cannot_go_to_other_classes(more, root, tmp_path):
    with pytest.raises(UserError, match="tunes one for each class; use the variant unified"):
        _sweep(*_arguments(root, tmp_path, *more, configs=("pets",), seeds="1"))


@pytest.mark.slow
def test_the_prompt_goes_to_other_sets_without_its_head(copied, root):
    more = ("--protocol=cross", f"--targets={CONFIGS}/dtd.py", "--config.prompt.context=unified")
    shutil.rmtree(copied / "pets")
    _sweep(*_arguments(root, copied, *more, configs=("pets",)))
    row = json.loads((copied / "pets" / "3-shots-seed-1" / "on-dtd.json").read_text())
    page = (copied / table.MARKDOWN).read_text()

    assert set(row) == {"zero_shot", "accuracy", "classes", "test_images", "split", "data", "ledger"}
    assert row["zero_shot"] == _result(copied, "dtd", 1)["zero_shot"]
    assert "| set | shots | predictions | pets | dtd |" in page
    assert {row["predictions"] for row in _rows(copied)} == {"zero_shot", "accuracy"}
    assert "| pets | 3 | deployed |" in page
    assert f"- pets tested on dtd: {row['split']}, 3 classes, 12 test images" in page


@pytest.mark.slow
def test_shifted_imagenets_score_the_classes_that_they_share(root, tmp_path):
    _sweep(*_arguments(root, tmp_path, "--protocol=shift", configs=("imagenet",), seeds="1"))
    run = tmp_path / "imagenet" / "3-shots-seed-1"

    classes = {name: json.loads((run / f"on-{name}.json").read_text())["classes"] for name in data.imagenet.SHIFTS}
    assert classes == {"imagenetv2": 3, "imagenet-sketch": 3, "imagenet-a": 2, "imagenet-r": 2}
    page = (tmp_path / table.MARKDOWN).read_text()
    assert "- imagenet tested on imagenet-a: the images of imagenet-a, 2 classes, " in page
    header = page.splitlines()[3]
    assert header == "| set | shots | predictions | imagenet | imagenetv2 | imagenet-sketch | imagenet-a | imagenet-r |"


def test_accuracy_among_shown_classes_compares_these_alone():
    logits = np.array([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0], [9.0, 1.0, 0.0]])

    assert protocols.accuracy_among_shown(logits, np.array([1, 2, 2])) == pytest.approx(200 / 3)
    assert protocols.accuracy_among_shown(logits, np.array([0, 2, 2])) == pytest.approx(100 / 3)


def test_tests_on_other_images_and_classes_tell_what_they_asked(small_black_box, small_set):
    head = refinement.build(hidden=4, dropout=0.0, mixup=False, tx=optax.sgd(0.1), batch_size=4).init(
        jax.random.key(0), 3
    )
    tuned = craft_jax.TunedModel(
        small_black_box.initial_prompt, head.params, small_black_box.identity, small_set.class_names
    )
    images = len(small_set.test)
    for row in (
        protocols.on_other_classes(tuned, small_black_box, small_set),
        protocols.on_shifted_images(tuned, small_black_box, small_set.test),
    ):
        asked = {name: count for name, count in row["ledger"].items() if count}
        assert asked == {"evaluation_predictions": 2 * images, "images_encoded": images}


def test_a_prompt_goes_to_no_other_black_box(small_black_box, small_set):
    tuned = craft_jax.TunedModel(
        small_black_box.initial_prompt, {}, {**small_black_box.identity, "fingerprint": "x"}, ("a", "b")
    )

    with pytest.raises(UserError, match="made for black box bundled .fingerprint 'x'"):
        protocols.on_other_classes(tuned, small_black_box, small_set)


@pytest.mark.parametrize(("base", "new", "expected"), [(80, 60, 68.571), (50, 50, 50), (0, 90, 0)])
def test_the_harmonic_mean(base, new, expected):
    assert protocols.harmonic_mean(base, new) == pytest.approx(expected, abs=1e-3)


# Processes


def test_a_run_waits_for_another_process_in_its_workdir(tmp_path):
    holder = (
        "import pathlib, time\nfrom craft_jax.sweep import runner\n"
        f"with runner.alone(pathlib.Path(r'{tmp_path}/run')):\n    print('mine', flush=True)\n    time.sleep(60)\n"
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
@pytest.mark.parametrize(("parallel", "trained"), [(1, "step 1/1"), (2, ": finished")])
def test_a_sweep_killed_at_any_moment_and_started_again_ends_with_the_same_table(
    parallel, trained, swept, root, tmp_path
):
    command = [
        sys.executable, "-m", "craft_jax.sweep", *_arguments(root, tmp_path / "sweep", f"--parallel={parallel}")
    ]  # fmt: skip
    rng = np.random.default_rng()
    for shown, latest in ((trained, 0.0), ("of them done", 8.0), (trained, 0.5)):
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
            next((line for line in run.stdout if shown in line), None)
            time.sleep(rng.uniform(0, latest))
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
    assert "--array=$TASK/15" in run.stdout
    assert " jax\n" not in run.stderr
