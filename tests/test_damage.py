"""State files that a disk, a copy or a kill has changed: a run goes on from what is whole, and says what is not."""

import io
import json
import logging
import shutil

import numpy as np
import pytest

from craft_jax import checkpoints, data, feature_cache, training
from craft_jax.config import Config, DataConfig, RefinementConfig, RunConfig, SearchConfig


@pytest.fixture(scope="module")
def config(coop_root):
    """6 steps of 8 prompts on the small set, with checkpoints after 2, 4 and 6; nothing measured first."""
    folder = "caltech-101/"
    return Config(
        query_budget=69,
        data=DataConfig(
            root=str(coop_root),
            images=folder + "101_ObjectCategories",
            split=folder + "split_zhou_Caltech101.json",
            shots=4,
            views=2,
        ),
        search=SearchConfig(population_size=8),
        refinement=RefinementConfig(hidden=16, batch_size=5),
        run=RunConfig(steps_per_call=2, eval_every=2, checkpoint_every=2, devices=1, reuse_features=False),
    )


@pytest.fixture(scope="module")
def photographs(config):
    """The small set with its shots drawn."""
    return data.load(config.data, seed=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config, photographs, small_black_box):
    """A finished run, not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    training.train(small_black_box, photographs, config, workdir, stream=io.StringIO())
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def resume(workdir, config, photographs, small_black_box):
    """Goes on with the damaged run; returns the outcome and what was said."""

    def go_on():
        stream = io.StringIO()
        outcome = training.train(small_black_box, photographs, config, workdir, stream=stream)
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
        "checkpoints", "metrics.jsonl", "result.json", "report.md", "curve.png"
    }  # fmt: skip
