"""The loop: devices, resume, ledger, and what a run leaves behind."""

import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import craft_jax
from benchmarks.devices import collective_bytes
from craft_jax import blackbox, files, training
from craft_jax.errors import Interrupted, UserError
from craft_jax.method import calibration, candidates, collaborative
from craft_jax.training import assembly, checkpoints, loop, report

REPOSITORY = Path(__file__).parent.parent


def _train(black_box, dataset, config, workdir):
    return training.train(black_box, dataset, config, workdir, stream=io.StringIO())


def _content(workdir):
    """All that a run has learnt and logged, but not how long it took."""
    restored = checkpoints.open_for_prediction(workdir)
    result = json.loads((workdir / training.RESULT).read_text())
    del result["seconds"]
    return restored.state | {"deployed": restored.tuned.prompt}, (workdir / training.METRICS).read_text(), result


def _assert_same_bits(one, other):
    states, metrics, results = zip(_content(one), _content(other), strict=True)
    assert states[0].keys() == states[1].keys()
    for path in states[0]:
        np.testing.assert_array_equal(states[0][path], states[1][path], err_msg=path)
    assert metrics[0] == metrics[1]
    assert results[0] == results[1]


def _with_run(config, **changes):
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, small_black_box, small_set, small_config):
    """A finished run on one device, and what it said; not to be changed."""
    workdir, said = tmp_path_factory.mktemp("one") / "device", io.StringIO()
    training.train(small_black_box, small_set, small_config, workdir, stream=said)
    return workdir, said.getvalue()


@pytest.fixture
def finished(tmp_path, one_device):
    """A copy of that run, to change."""
    return shutil.copytree(one_device[0], tmp_path / "finished")


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["antithetic", "cma-es"])
def test_a_healthy_run_goes_through_where_jax_stops_at_nan(
    estimator, tmp_path, small_black_box, small_set, small_config
):
    guarded = estimator == "antithetic"
    search = dataclasses.replace(small_config.search, estimator=estimator, guarded=guarded)
    prompt = dataclasses.replace(small_config.prompt, context="class" if guarded else "unified")
    config = dataclasses.replace(small_config, query_budget=21 + 16, search=search, prompt=prompt)
    with jax.debug_nans(True):
        result = _train(small_black_box, small_set, config, tmp_path / "run").result

    assert result.ledger.prompts == 37


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_gives_the_bits_of_one(
    devices, finished, tmp_path, small_black_box, small_set, small_config
):
    assert len(jax.devices()) >= devices
    _train(small_black_box, small_set, _with_run(small_config, devices=devices), tmp_path / "several")

    _assert_same_bits(finished, tmp_path / "several")


def test_devices_that_do_not_divide_the_pairs_give_the_bits_of_one(
    finished, tmp_path, small_black_box, small_set, small_config
):
    _train(small_black_box, small_set, _with_run(small_config, devices=3), tmp_path / "three")

    _assert_same_bits(finished, tmp_path / "three")


def test_a_run_does_not_depend_on_how_many_steps_a_call_makes(tmp_path, small_black_box, small_set, small_config):
    for steps in (1, 3):
        config = _with_run(small_config, steps_per_call=steps, eval_every=0, checkpoint_every=3)
        _train(small_black_box, small_set, config, tmp_path / str(steps))

    _assert_same_bits(tmp_path / "1", tmp_path / "3")


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_images_split_over_devices_give_the_bits_of_images_on_every_device(
    devices, finished, tmp_path, small_black_box, small_set, small_config
):
    split = _with_run(small_config, devices=devices, shard_images="yes")
    _train(small_black_box, small_set, split, tmp_path / "split")

    _assert_same_bits(finished, tmp_path / "split")


@pytest.mark.parametrize(
    ("setting", "memory", "splits"),
    [
        ("auto", 4 * 4096 - 1, True),
        ("auto", 4 * 4096, False),
        ("auto", None, False),
        ("yes", None, True),
        ("no", 1, False),
    ],
)
def test_images_are_split_where_they_would_fill_a_quarter_of_a_devices_memory(setting, memory, splits):
    device = types.SimpleNamespace(memory_stats=lambda: memory and {"bytes_limit": memory})

    assert assembly._splits_images(setting, {"features": np.zeros((2, 8, 64), np.float32)}, device) == splits


def test_a_device_holds_its_share_of_split_images(small_black_box, small_set, small_config):
    run = assembly.assemble(small_black_box, small_set, _with_run(small_config, devices=5, shard_images="yes"))
    placed, _ = assembly.place(run, small_black_box)

    assert isinstance(run.problem.views, np.ndarray)  # the whole is on no device
    assert run.problem.views.shape[:2] == (2, 12)
    assert placed.views.shape[:3] == (5, 2, 3)  # 12 images on 5 devices, padded
    assert {shard.data.shape[:3] for shard in placed.views.addressable_shards} == {(1, 2, 3)}


def test_a_run_that_is_told_to_stop_saves_and_resumes_to_the_same_bits(
    finished, tmp_path, small_black_box, small_set, small_config, monkeypatch
):
    answers = iter([False, True])
    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped after step 2 of 6"):
        training.train(small_black_box, small_set, small_config, stopped, io.StringIO(), stop=lambda: next(answers))
    assert not (stopped / training.RESULT).exists()
    monkeypatch.delattr(calibration, "perturbed")  # its queries are paid for, and not asked again
    _train(small_black_box, small_set, _with_run(small_config, devices=2), stopped)

    _assert_same_bits(finished, stopped)


def test_too_few_devices_are_an_error_before_anything_is_written(tmp_path, small_black_box, small_set, small_config):
    with pytest.raises(UserError, match="run.devices=99, and JAX finds 8 here"):
        _train(small_black_box, small_set, _with_run(small_config, devices=99), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_nothing_moves_between_host_and_device_inside_the_loop(small_black_box, small_set, small_config):
    run = assembly.assemble(small_black_box, small_set, _with_run(small_config, devices=2))
    steps = run.spread.compile(collaborative.run_steps(collaborative.build_step(run.method), 2))
    problem, state = assembly.place(run, small_black_box)[0], run.spread.mapped(run.state)
    state, _ = steps(problem, state)  # compiles, which moves constants

    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, metrics = steps(problem, state)
    assert run.spread.fetch(state).step == 6
    assert np.isfinite(run.spread.fetch(metrics).loss).all()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_step_can_be_compiled_for_machines_that_are_not_here(platform, small_black_box, small_set, small_config):
    run = assembly.assemble(small_black_box, small_set, small_config)
    steps = collaborative.run_steps(collaborative.build_step(run.method), 2)
    on_one_device = jax.jit(jax.vmap(steps, axis_name=candidates.AXIS, in_axes=(None, 0)))  # export takes no pmap
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], run.state)

    problem = run.problem.replace(black_box=small_black_box)
    exported = jax.export.export(on_one_device, platforms=[platform])(problem, state)
    assert exported.platforms == (platform,)
    assert len(exported.mlir_module_serialized) > 10_000


@pytest.mark.parametrize(("shard_images", "features"), [pytest.param("no", 0, marks=pytest.mark.slow), ("yes", 12)])
def test_only_losses_cross_devices_and_of_split_images_the_views_drawn(
    shard_images, features, small_black_box, small_set, small_config
):
    run = assembly.assemble(small_black_box, small_set, _with_run(small_config, devices=4, shard_images=shard_images))
    placed, axes = assembly.place(run, small_black_box)
    step = run.spread.compile(collaborative.run_steps(collaborative.build_step(run.method), 1), axes)
    program = step.lower(placed, run.spread.mapped(run.state)).compile().as_text()
    width = run.problem.views.shape[-1]

    # Of the fitness of 8 candidates for 3 classes, and of the images drawn, three quarters come from other devices.
    assert collective_bytes(program, devices=4) == {"all-gather": (8 * 3 + features * width) * 4 * 3 // 4}


@pytest.mark.slow
def test_chunks_of_several_pairs_find_the_same_as_one_by_one(
    finished, tmp_path, small_black_box, small_set, small_config
):
    _train(small_black_box, small_set, _with_run(small_config, chunk_pairs=3), tmp_path / "chunks")
    by_pair, by_chunk = (
        [json.loads(line)["loss"] for line in (workdir / training.METRICS).read_text().splitlines()]
        for workdir in (finished, tmp_path / "chunks")
    )

    np.testing.assert_allclose(by_chunk, by_pair, rtol=1e-4)


@pytest.mark.slow
def test_the_heads_consistency_weight_drops_once_its_share_of_the_budget_is_spent(
    finished, tmp_path, small_black_box, small_set, small_config
):
    def losses(head_share):
        consistency = dataclasses.replace(small_config.consistency, weight=1.0, head_share=head_share)
        workdir = tmp_path / str(head_share)
        _train(small_black_box, small_set, dataclasses.replace(small_config, consistency=consistency), workdir)
        return [json.loads(line)["refined_loss"] for line in (workdir / training.METRICS).read_text().splitlines()]

    always, half = losses(1.0), losses(0.5)
    assert half[:3] == always[:3]
    assert all(dropped < kept for dropped, kept in zip(half[3:], always[3:], strict=True))


def test_the_ledger_counts_what_was_asked(finished):
    result = json.loads((finished / training.RESULT).read_text())

    # 21 prompts for the scale, then 6 steps of 8, on 12 images, each with an epoch of the head; tests of 12 images at
    # first, after steps 2, 4, 6, and of the choice, made by 2 prompts on 6 images; 12 images in 2 views.
    assert {name: count for name, count in result["ledger"].items() if count} == {
        "prompts": 69,
        "search_predictions": 69 * 12,
        "centre_predictions": 6 * 12,
        "evaluation_predictions": 5 * 12 + 2 * 6,
        "images_encoded": 2 * 12 + 12 + 6,
    }
    assert (result["queries"], result["predictions"]) == (69, 828)


def test_a_budget_that_steps_do_not_divide_is_never_exceeded(tmp_path, small_black_box, small_set, small_config):
    result = _train(
        small_black_box, small_set, dataclasses.replace(small_config, query_budget=44), tmp_path / "x"
    ).result

    assert result.queries == 37


def test_every_step_is_logged_and_a_report_and_a_curve_are_left(finished):
    rows = [json.loads(line) for line in (finished / training.METRICS).read_text().splitlines()]

    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["prompts"] for row in rows] == [29, 37, 45, 53, 61, 69]  # after the 21 that measure the prompt's scale
    assert ["test_refined" in row for row in rows] == [False, True] * 3
    page = (finished / training.REPORT).read_text()
    assert "| zero-shot " in page
    assert "prompts queried: 69" in page
    assert "`data.shots` = `4`" in page
    assert (finished / training.CURVE).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_run_is_whole_but_for_its_picture(
    finished, tmp_path, small_black_box, small_set, small_config, monkeypatch, capsys
):
    workdir = shutil.copytree(finished, tmp_path / "x")
    for file in ("result.json", "report.md", "report.html", "curve.png"):
        (workdir / file).unlink()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _train(small_black_box, small_set, small_config, workdir)
    (note,) = capsys.readouterr().err.splitlines()

    assert note.startswith("note: curve.png needs matplotlib, which cannot be imported here (")
    assert note.endswith("; pip install matplotlib")
    assert (workdir / "result.json").exists()
    assert "curve.png" not in (workdir / "report.md").read_text()


def test_progress_is_plain_lines_where_there_is_no_terminal(one_device):
    lines = one_device[1].splitlines()

    assert len(lines) == 3
    assert lines[0].startswith("step 2/6, queries 37 of 69, predictions 444 (+ 24 head, 24 test), images 42, loss ")
    assert lines[2].endswith("00:00 left")


def test_a_report_says_what_set_and_black_box_are_not_what_the_settings_say(small_black_box, small_set, small_config):
    other = dataclasses.replace(
        small_config,
        data=dataclasses.replace(small_config.data, shots=16, root="elsewhere", views=1),
        black_box=dataclasses.replace(small_config.black_box, model="elsewhere", dtype="bfloat16"),
    )
    used = report.settings_used(other, small_set, small_black_box)
    own = dataclasses.replace(small_set, settings=None)
    remote = types.SimpleNamespace(identity=small_black_box.identity | {"dtype": "remote"})
    given = report.settings_used(other, own, remote)

    assert used["data.shots"] == 4
    assert used["data.root"] == small_config.data.root
    assert used["data.views"] == 1
    assert (used["black_box.model"], used["black_box.dtype"]) == ("bundled", "float32")
    assert [name for name in given if name.startswith(("data", "black_box"))] == ["data", "black_box", "data.views"]
    assert report._listed(given)[4] == "- `data` as it was given from Python"


def test_shots_are_told_as_the_set_has_them_not_as_the_settings_ask(small_set):
    one = small_set.train[0]

    assert small_set.shots == 4
    assert dataclasses.replace(small_set, train=small_set.train[1:]).shots == "3 to 4"
    assert dataclasses.replace(small_set, train=(one,)).shots == "0 to 1"


def test_a_finished_run_says_so_and_returns_its_result(finished, small_black_box, small_set, small_config):
    before = _content(finished)
    stream = io.StringIO()
    outcome = training.train(small_black_box, small_set, small_config, finished, stream=stream)

    assert "holds this run, finished" in stream.getvalue()
    assert outcome.result == training.load_run(finished).result
    assert str(before) == str(_content(finished))


def test_a_workdir_with_a_run_on_other_photographs_is_left_alone(finished, small_black_box, small_set, small_config):
    assert small_set.digest() != dataclasses.replace(small_set, val=()).digest()
    fewer, before = dataclasses.replace(small_set, train=small_set.train[:-1]), _content(finished)
    with pytest.raises(UserError, match="holds a run on other photographs .*; choose another workdir"):
        training.train(small_black_box, fewer, small_config, finished)

    assert str(before) == str(_content(finished))


def test_a_workdir_that_another_run_is_writing_into_is_left_alone(tmp_path, small_black_box, small_set, small_config):
    stopped = iter([False, True])
    with pytest.raises(Interrupted):
        training.train(small_black_box, small_set, small_config, tmp_path, stop=lambda: next(stopped))
    log = (tmp_path / training.METRICS).read_text()
    with (
        files.sole_writer(tmp_path),
        pytest.raises(UserError, match="another run is writing into .*choose another workdir"),
    ):
        training.train(small_black_box, small_set, small_config, tmp_path)

    assert (tmp_path / training.METRICS).read_text() == log
    assert training.train(small_black_box, small_set, small_config, tmp_path).result.queries == 69


def test_two_runs_that_begin_in_one_new_workdir_are_one(tmp_path, small_black_box, small_set, small_config):
    refused = []

    def begin_another():
        with pytest.raises(UserError, match="another run is writing into"):
            training.train(small_black_box, small_set, small_config, tmp_path / "new")
        refused.append(True)
        return False

    result = training.train(small_black_box, small_set, small_config, tmp_path / "new", stop=begin_another).result

    assert result.queries == 69
    assert len(refused) == 3


def test_a_run_that_does_not_begin_leaves_no_folder_behind(tmp_path, small_black_box, small_set, small_config):
    with pytest.raises(UserError, match="run.devices=64"):
        training.train(small_black_box, small_set, _with_run(small_config, devices=64), tmp_path / "runs" / "new")

    assert list(tmp_path.iterdir()) == []


def test_a_workdir_with_other_settings_is_left_alone(finished, small_black_box, small_set, small_config):
    with pytest.raises(UserError, match="holds a run with seed=1, not 2; choose another workdir"):
        _train(small_black_box, small_set, dataclasses.replace(small_config, seed=2), finished)


def test_the_best_and_the_two_latest_checkpoints_are_kept(tmp_path, small_black_box, small_set, small_config):
    config = dataclasses.replace(
        _with_run(small_config, steps_per_call=1, checkpoint_every=1, eval_every=0), query_budget=12 * 8 + 21
    )
    _train(small_black_box, small_set, config, tmp_path / "x")
    rows = [json.loads(line) for line in (tmp_path / "x" / training.METRICS).read_text().splitlines()]
    best = min(rows, key=lambda row: row["refined_loss"])["step"]

    kept = {int(path.name) for path in (tmp_path / "x" / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, 11, 12}


def _unfinish(workdir, *, keep):
    """Takes a finished run back to its checkpoint `keep`, as a kill after that save would leave it."""
    (workdir / training.RESULT).unlink()
    for path in (workdir / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > keep:
            shutil.rmtree(path)


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    finished, tmp_path, small_black_box, small_set, small_config
):
    damaged = tmp_path / "damaged"
    shutil.copytree(finished, damaged)
    _unfinish(damaged, keep=6)
    for path in (damaged / "checkpoints" / "6" / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:40])
    stream = io.StringIO()
    training.train(small_black_box, small_set, small_config, damaged, stream=stream)

    assert "checkpoint 6 is damaged; falling back to checkpoint 4" in stream.getvalue()
    _assert_same_bits(finished, damaged)


@pytest.mark.slow
def test_the_leftovers_of_a_save_that_was_killed_are_ignored(
    finished, tmp_path, small_black_box, small_set, small_config
):
    torn = tmp_path / "torn"
    shutil.copytree(finished, torn)
    _unfinish(torn, keep=4)
    (torn / "checkpoints" / "6.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (torn / "checkpoints" / "6").mkdir()
    with (torn / training.METRICS).open("a") as file:
        file.write('{"step": 7, "lo')
    _train(small_black_box, small_set, small_config, torn)

    _assert_same_bits(finished, torn)


def test_a_checkpoint_of_other_classes_or_another_black_box_is_refused(finished, small_set):
    tuned = checkpoints.open_for_prediction(finished).tuned
    other_classes = blackbox.load("bundled", ("pizza", "grand piano", "crab"))
    other_template = blackbox.load("bundled", small_set.class_names, "a drawing of a {}.")

    with pytest.raises(
        UserError, match=r"made for 3 classes \(pizza, grand piano, sunflower.*pizza, grand piano, crab"
    ):
        craft_jax.evaluate(tuned, other_classes, small_set.test)
    with pytest.raises(UserError, match="has template 'a drawing of a {}.'; load the black box that it was made for"):
        craft_jax.predict(tuned, other_template, [small_set.test[0].image.path])


def test_photographs_and_black_box_must_have_the_same_classes(tmp_path, small_set, small_config):
    other = blackbox.load("bundled", ("pizza", "grand piano", "crab"))

    with pytest.raises(UserError, match="different classes"):
        _train(other, small_set, small_config, tmp_path / "x")


@pytest.mark.parametrize("learn", ["prompt", "refinement"])
def test_an_ablation_learns_its_part_alone(learn, tmp_path, small_black_box, small_set, small_config):
    outcome = _train(
        small_black_box, small_set, dataclasses.replace(small_config, learn=learn, held_out="none"), tmp_path / learn
    )
    start = np.broadcast_to(small_black_box.initial_prompt, outcome.tuned.prompt.shape)
    moved = not np.array_equal(outcome.tuned.prompt, start)
    head_moved = any(np.any(leaf) for leaf in jax.tree.leaves(outcome.tuned.head["params"]["Dense_1"]))

    assert (moved, head_moved) == (learn == "prompt", learn == "refinement")
    assert outcome.result.queries == (69 if learn == "prompt" else 0)


@pytest.mark.parametrize(
    ("steps", "call", "every", "tested"),
    [(12, 1, 20, 2), (12, 5, 20, 5), (200, 5, 20, 20), (60, 5, 20, 10), (3, 1, 20, 1), (12, 1, 0, 0)],
)
def test_a_short_runs_curve_has_some_six_points(steps, call, every, tested):
    config = craft_jax.RunConfig(steps_per_call=call, eval_every=every)

    assert loop.curve_every(config, steps, remote=False) == tested
    assert loop.curve_every(config, steps, remote=True) == every


# A run killed by SIGKILL


def _command(coop_root, workdir):
    return [
        sys.executable, "-m", "craft_jax.main", "--config=configs/caltech.py", f"--workdir={workdir}",
        f"--config.data.root={coop_root}", "--config.data.shots=4", "--config.data.views=2",
        "--config.black_box.model=bundled", "--config.query_budget=341", "--config.search.population_size=8",
        "--config.run.steps_per_call=2", "--config.run.eval_every=4", "--config.run.checkpoint_every=4",
        "--config.run.reuse_features=False",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_at_several_moments_ends_with_the_bits_of_an_uninterrupted_one(coop_root, tmp_path):
    subprocess.run(_command(coop_root, tmp_path / "whole"), cwd=REPOSITORY, check=True, capture_output=True)
    killed = tmp_path / "killed"
    for moment in (1, 9, 22, 33):  # steps logged when the kill comes
        with subprocess.Popen(_command(coop_root, killed), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
            for line in run.stdout:
                if line.startswith("step ") and int(line.split("/")[0].split()[1]) >= moment:
                    break
            time.sleep(0.03 * (moment % 3))  # sometimes in the middle of a save
            run.send_signal(signal.SIGKILL)
    resumed = subprocess.run(
        _command(coop_root, killed), cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout

    assert f"resuming {killed} after step" in resumed
    _assert_same_bits(tmp_path / "whole", killed)
