"""State files that a disk, a copy or a kill has changed: a run goes on from what is whole, and says what is not."""

import dataclasses
import io
import json
import logging
import resource
import shutil

import numpy as np
import pytest

from craft_jax import data, training
from craft_jax.config import Config, ProbeConfig, RefinementConfig, RunConfig, SearchConfig
from craft_jax.encoding import feature_cache
from craft_jax.errors import UserError
from craft_jax.training import checkpoints


@pytest.fixture(scope="module")
def config(small_data):
    """6 steps of 8 prompts on the small set, with checkpoints after 2, 4 and 6; nothing measured first."""
    return Config(
        query_budget=69,
        data=small_data,
        probe=ProbeConfig(texts=0),
        search=SearchConfig(estimator="antithetic", sigma=1.0, population_size=8),
        refinement=RefinementConfig(hidden=16, batch_size=5),
        run=RunConfig(steps_per_call=2, eval_every=2, checkpoint_every=2, devices=1, reuse_features=False),
    )


@pytest.fixture(scope="module")
def dataset(config):
    """The small set with its shots drawn."""
    return data.load(config.data, seed=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config, dataset, small_black_box):
    """A finished run, not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    training.train(small_black_box, dataset, config, workdir, stream=io.StringIO())
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def resume(workdir, config, dataset, small_black_box):
    """Goes on with the damaged run; returns the outcome and what was said."""

    def go_on():
        stream = io.StringIO()
        outcome = training.train(small_black_box, dataset, config, workdir, stream=stream)
        return outcome, stream.getvalue()

    return go_on


def _content(restored):
    about = {name: value for name, value in restored.about.items() if name != "digest"}
    learnt = {"state": restored.state, "prompt": restored.tuned.prompt, "head": restored.tuned.head}
    return json.dumps(about, sort_keys=True), checkpoints.checksum(learnt)


def _result(workdir):
    result = json.loads((workdir / training.RESULT).read_text())
    return {name: value for name, value in result.items() if name != "seconds"}


def _flip(path, position):
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x01
    path.write_bytes(bytes(content))


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.parametrize("position", [0.1, 0.5, 0.95])
def test_a_flipped_byte_in_any_file_of_a_checkpoint_is_harmless_or_passed_over_with_a_word(
    position, whole, workdir, capfd, caplog
):
    newest, before = workdir / "checkpoints" / "6", whole / "checkpoints" / "4"
    expected = {6: _content(checkpoints.open_for_prediction(whole))}
    shutil.rmtree(workdir / "checkpoints" / "6")
    expected[4] = _content(checkpoints.open_for_prediction(workdir))
    assert before.is_dir()
    passed_over = []
    for file in _files(whole / "checkpoints" / "6"):
        shutil.copytree(whole / "checkpoints" / "6", newest)
        _flip(newest / file.relative_to(whole / "checkpoints" / "6"), position)
        restored = checkpoints.open_for_prediction(workdir)
        said = capfd.readouterr()

        assert _content(restored) == expected[restored.step], file
        assert ("checkpoint 6 is damaged" in said.err) == (restored.step == 4), file
        assert len(said.err.splitlines()) == (restored.step == 4), said.err
        passed_over += [file.relative_to(whole).parts[2]] * (restored.step == 4)
        shutil.rmtree(newest)
    assert {"state", "tuned", "about"} <= set(passed_over)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("item", ["state", "about"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_result(item, whole, workdir, resume):
    (workdir / training.RESULT).unlink()
    for file in _files(workdir / "checkpoints" / "6" / item):
        if file.parent.name == "d" or item == "about":
            _flip(file, 0.5)
    _, said = resume()

    assert "checkpoint 6 is damaged; falling back to checkpoint 4" in said
    assert _result(workdir) == _result(whole)


def test_encoded_images_that_were_changed_are_encoded_anew_and_that_is_said(tmp_path):
    handle, said = np.arange(600, dtype=np.float32).reshape(3, 200), []
    path = tmp_path / "key.npz"
    feature_cache.write(path, handle)
    written = path.read_bytes()
    np.testing.assert_array_equal(feature_cache.read(path, handle, said.append), handle)
    assert said == []

    for position in range(0, len(written), 7):
        path.write_bytes(written[:position] + bytes([written[position] ^ 4]) + written[position + 1 :])
        found = feature_cache.read(path, handle, said.append)
        assert found is None or np.array_equal(found, handle)
    assert len(said) > 300
    assert said[-1] == f"{path}: these encoded images are damaged; encoding them anew"
    said.clear()
    assert feature_cache.read(tmp_path / "none.npz", handle, said.append) is None
    assert said == []


def test_encoded_images_whose_checksums_were_made_to_fit_do_not_pass_either(tmp_path):
    handle, path = np.arange(600, dtype=np.float32), tmp_path / "key.npz"
    feature_cache.write(path, handle)
    with np.load(path) as file:
        entries = dict(file)
    np.savez(path, **{**entries, "0": handle + 1})

    assert feature_cache.read(path, handle) is None


def test_a_checkpoint_is_found_by_its_workdir_and_by_the_folder_that_a_run_prints(whole):
    by_workdir, by_folder = map(checkpoints.open_for_prediction, (whole, whole / "checkpoints"))

    assert _content(by_workdir) == _content(by_folder)


def test_a_finished_run_leaves_no_lock_behind(whole):
    assert {path.name for path in whole.iterdir()} == {
        "answers.npz", "checkpoints", "metrics.jsonl", "predictions.csv", "result.json", "report.html", "report.md",
        "curve.png",
    }  # fmt: skip


def _unfinish(workdir, keep):
    (workdir / training.RESULT).unlink()
    for path in (workdir / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > keep:
            shutil.rmtree(path)


_SPOILT = {
    "behind": lambda lines: lines[:1],
    "emptied": lambda lines: [],
    "cut": lambda lines: [*lines[:2], lines[2][:30]],
    "garbage": lambda lines: [*lines[:1], b"\xff\xfe{[}\n", *lines[2:]],
    "other JSON": lambda lines: [b"3\n", b'{"step": "1"}\n', b"[]\n", *lines[1:]],
}


@pytest.mark.parametrize(("spoilt", "checkpoint"), [*((name, 6) for name in _SPOILT), ("garbage", 4)])
def test_a_log_that_is_not_whole_is_made_whole_from_the_checkpoint_and_that_is_said(
    spoilt, checkpoint, whole, workdir, resume
):
    _unfinish(workdir, keep=checkpoint)
    log = workdir / training.METRICS
    log.write_bytes(b"".join(_SPOILT[spoilt](log.read_bytes().splitlines(keepends=True))))
    _, said = resume()

    assert "are missing or damaged, the first " in said
    assert "written anew from the checkpoint" in said
    assert log.read_text() == (whole / training.METRICS).read_text()
    assert _result(workdir) == _result(whole)


@pytest.mark.parametrize("content", [b"", b'{"zero_shot": 1', b"3"])
def test_a_result_that_is_not_whole_is_written_anew_and_that_is_said(content, whole, workdir, resume):
    (workdir / training.RESULT).write_bytes(content)
    outcome, said = resume()

    assert "result.json is damaged; writing it anew" in said
    assert _result(workdir) == _result(whole)
    assert dataclasses.asdict(outcome.result.ledger) == _result(whole)["ledger"]


def test_a_finished_run_whose_last_checkpoint_is_damaged_makes_it_again(whole, workdir, resume):
    for file in _files(workdir / "checkpoints" / "6" / "about"):
        _flip(file, 0.5)
    outcome, said = resume()

    assert "resuming" in said
    assert _content(checkpoints.open_for_prediction(workdir))[1] == _content(checkpoints.open_for_prediction(whole))[1]
    assert outcome.result.accuracy == _result(whole)["accuracy"]


def test_a_run_whose_photographs_moved_goes_on_and_one_on_others_of_the_same_names_does_not(
    whole, workdir, config, small_black_box, tmp_path
):
    moved = shutil.copytree(config.data.root, tmp_path / "moved")
    elsewhere = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(moved)))

    def go_on():
        dataset = data.load(elsewhere.data, seed=1)
        return training.train(small_black_box, dataset, elsewhere, workdir, io.StringIO()).result

    assert go_on() == training.load_run(workdir).result
    _unfinish(workdir, keep=4)
    go_on()
    assert _result(workdir) == _result(whole)

    _unfinish(workdir, keep=4)
    images = sorted((moved / config.data.images / "pizza").iterdir())
    shutil.copy(images[0], images[1])
    with pytest.raises(UserError, match="holds a run on other photographs"):
        go_on()


@pytest.mark.slow
def test_how_a_run_is_carried_out_may_change_midway_and_what_it_learns_stays(
    whole, workdir, config, dataset, small_black_box
):
    _unfinish(workdir, keep=4)
    other = RunConfig(devices=1, steps_per_call=5, eval_every=5, checkpoint_every=5)
    training.train(small_black_box, dataset, dataclasses.replace(config, run=other), workdir, io.StringIO())
    rows = [json.loads(line) for line in (workdir / training.METRICS).read_text().splitlines()]

    assert ["test_refined" in row for row in rows] == [False, True, False, True, True, True]
    ends = [checkpoints.open_for_prediction(folder).state for folder in (workdir, whole)]
    assert checkpoints.checksum(ends[0]) == checkpoints.checksum(ends[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"chunk_pairs": 3}}, "run.chunk_pairs=0, not 3; choose another workdir"),
        ({"query_budget": 200}, "query_budget=69, not 200: learning rates fall to zero over the budget"),
    ],
)
def test_what_changes_bits_may_not_change_midway(change, message, whole, config, dataset, small_black_box):
    run = dataclasses.replace(config.run, **change.pop("run", {}))
    with pytest.raises(UserError, match=message):
        training.train(small_black_box, dataset, dataclasses.replace(config, run=run, **change), whole)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on_when_there_is_room(whole, workdir, resume):
    _unfinish(workdir, keep=4)
    before = _content(checkpoints.open_for_prediction(workdir))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))  # files cannot grow, as on a disk that is full
    try:
        with pytest.raises(UserError, match=f"^{workdir}.*: no space is left on its disk; make room there"):
            resume()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _content(checkpoints.open_for_prediction(workdir)) == before
    resume()

    assert _result(workdir) == _result(whole)
