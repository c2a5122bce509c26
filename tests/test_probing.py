"""Texts asked once, the head in closed form, and prompts fitted to it: through checkpoints, devices and prediction."""

import dataclasses
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import craft_jax
from craft_jax import evaluation, prediction, training
from craft_jax.blackbox import Metered
from craft_jax.config import Config, DataConfig, DeployConfig, ProbeConfig, RefinementConfig, RunConfig, SearchConfig
from craft_jax.errors import Interrupted, UserError
from craft_jax.training import assembly, checkpoints, probing, selection

BUDGET, POPULATION = 90, 8
VIEWS, PIECES, IMAGES = 2, 8, 12


@pytest.fixture(scope="module")
def config(small_data):
    """Texts, and then four steps of 8 prompts, on the small set."""
    return Config(
        query_budget=BUDGET,
        data=dataclasses.replace(small_data, views=VIEWS),
        probe=ProbeConfig(texts=150),
        search=SearchConfig(population_size=POPULATION),
        refinement=RefinementConfig(hidden=16, batch_size=5),
        run=RunConfig(steps_per_call=2, eval_every=2, checkpoint_every=2, devices=1, reuse_features=False),
    )


@pytest.fixture(scope="module")
def dataset(config):
    """The small set with its shots drawn."""
    return craft_jax.load_dataset(config.data, seed=1)


def _train(black_box, dataset, config, workdir, **more):
    return training.train(black_box, dataset, config, workdir, stream=io.StringIO(), **more)


@pytest.fixture(scope="module")
def finished(config, dataset, small_black_box, tmp_path_factory):
    """The workdir of a finished run, and what it returned."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, _train(small_black_box, dataset, config, workdir)


def _rows(workdir):
    return [json.loads(line) for line in (workdir / training.METRICS).read_text().splitlines()]


def _same_bits(one, other):
    states = [checkpoints.open_for_prediction(workdir) for workdir in (one, other)]
    for path, leaf in states[0].state.items():
        np.testing.assert_array_equal(leaf, states[1].state[path], err_msg=path)
    for ours, theirs in zip(*(jax.tree.leaves(state.tuned) for state in states), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert _rows(one) == _rows(other)


def test_texts_and_steps_stay_within_the_budget_and_are_booked_apart(finished):
    workdir, outcome = finished
    ledger, rows = outcome.result.ledger, _rows(workdir)
    texts = ledger.texts
    assert 3 < texts <= 150
    prompts = -(-texts // 3)
    assert rows[0]["step"] == 0
    assert rows[0]["prompts"] == prompts
    steps = (BUDGET - prompts) // POPULATION
    assert ledger.prompts == prompts + steps * POPULATION <= BUDGET
    assert len(rows) == 1 + steps
    assert ledger.probe_predictions == prompts * (VIEWS + PIECES) * IMAGES
    assert ledger.search_predictions == steps * POPULATION * (VIEWS + PIECES) * IMAGES


def test_texts_are_asked_until_they_are_twice_as_many_as_what_they_tell(config, dataset, small_black_box):
    about = _about(small_black_box, dataset)
    probed = probing.probe(Metered(small_black_box, budget=None), about, texts=512, seed=1)
    # 24 images and a mean tell 23 numbers at most, and the first round asks more than twice as many.
    assert len(probed.texts) == 128
    few = probing.probe(Metered(small_black_box, budget=4), about, texts=512, seed=1)
    assert len(few.texts) == 12
    assert few.texts == probed.texts[:12]
    assert probing.probe(Metered(small_black_box, budget=None), about, texts=512, seed=2).texts != probed.texts


def test_what_was_found_about_other_pieces_is_not_taken_for_the_same(dataset, small_black_box, tmp_path):
    about, pieces = _about(small_black_box, dataset), 1
    metered = Metered(small_black_box, budget=None)
    probing.probe(metered, about, texts=6, seed=1, keep=tmp_path / "probes.npz")
    more = dataclasses.replace(about, views=jnp.concatenate([about.views, about.views[:pieces]]))

    assert len(probing.probe(metered, more, texts=6, seed=1, keep=tmp_path / "probes.npz").target) == VIEWS + pieces


def _about(black_box, dataset):
    images = np.stack([np.asarray(item.image.open().resize((32, 32))) for item in dataset.train])
    views = jnp.stack([black_box.encode_images(images), black_box.encode_images(images[:, :, ::-1])])
    labels = np.array([item.label for item in dataset.train])
    return probing.Asked(views, labels, 2, None, np.zeros(0, int), "these")


def test_the_result_shows_what_an_image_costs_and_reaches_each_way(finished):
    workdir, outcome = finished
    costs = outcome.result.prompts_per_image
    assert costs[selection.ZERO_SHOT] == costs[selection.REFINED] == 1
    assert costs[selection.PROBES] == -(-outcome.result.ledger.texts // 3)
    page = (workdir / training.REPORT).read_text()
    assert "| probes + head in closed form |" in page
    assert "prompts an image" in page


def test_a_run_that_is_stopped_resumes_to_the_same_bits_and_asks_no_text_twice(
    finished, config, dataset, small_black_box, tmp_path, monkeypatch
):
    calls = iter([False, True])
    with pytest.raises(Interrupted):
        _train(small_black_box, dataset, config, tmp_path / "x", stop=lambda: next(calls))

    def refuse(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(probing, "_ask", refuse)
    _train(small_black_box, dataset, config, tmp_path / "x")
    _same_bits(finished[0], tmp_path / "x")


def test_a_run_that_is_stopped_before_its_first_step_has_a_checkpoint(config, dataset, small_black_box, tmp_path):
    with pytest.raises(Interrupted):
        _train(small_black_box, dataset, config, tmp_path / "x", stop=lambda: True)
    kept = checkpoints.open_for_prediction(tmp_path / "x")
    assert kept.step == 0
    assert kept.tuned.stacked is not None


def test_several_devices_give_the_bits_of_one(finished, config, dataset, small_black_box, tmp_path):
    several = dataclasses.replace(config, run=dataclasses.replace(config.run, devices=3))
    _train(small_black_box, dataset, several, tmp_path / "several")
    _same_bits(finished[0], tmp_path / "several")
    one, other = (checkpoints.open_for_prediction(path) for path in (finished[0], tmp_path / "several"))
    assert one.about["ledger"] == other.about["ledger"]


def test_the_checkpoint_predicts_what_was_measured(finished, dataset, small_black_box):
    workdir, outcome = finished
    loaded = craft_jax.load_run(workdir)
    assert loaded.tuned.texts == outcome.tuned.texts
    accuracy = evaluation.evaluate(loaded.tuned, small_black_box, dataset.test)
    assert accuracy.deployed == pytest.approx(outcome.result.accuracy)
    labels = np.argmax(prediction.predict(loaded.tuned, small_black_box, dataset.test), axis=1)
    assert 100 * np.mean(labels == [item.label for item in dataset.test]) == pytest.approx(outcome.result.accuracy)


def test_one_prompt_an_image_deploys_no_texts(finished, config, dataset, small_black_box, tmp_path):
    cheap = dataclasses.replace(config, deploy=DeployConfig(prompts_per_image=1))
    tuned = _train(small_black_box, dataset, cheap, tmp_path / "x").tuned
    assert tuned.prompts_per_image == 1
    assert tuned.stacked is None


def test_probes_that_a_disk_spoilt_are_asked_again_to_the_same_result(
    finished, config, dataset, small_black_box, tmp_path
):
    shutil.copytree(finished[0], tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "checkpoints")
    (tmp_path / "x" / training.RESULT).unlink()
    file = tmp_path / "x" / probing.FILE
    file.write_bytes(file.read_bytes()[:-200])
    stream = io.StringIO()
    training.train(small_black_box, dataset, config, tmp_path / "x", stream=stream)
    assert f"{file} is damaged; asking its texts again" in stream.getvalue()
    _same_bits(finished[0], tmp_path / "x")


def test_a_budget_of_five_prompts_asks_texts_alone(config, dataset, small_black_box, tmp_path):
    outcome = _train(small_black_box, dataset, dataclasses.replace(config, query_budget=5), tmp_path / "x")
    assert outcome.result.ledger.texts == 15
    assert outcome.result.queries == 5
    assert outcome.tuned.stacked is not None


@pytest.mark.parametrize(
    ("most", "photographs", "expected"),
    [
        (6144, 384, (8, 8)),
        (6144, 800, (3, 3)),
        (6144, 16000, (2, 1)),
        (0, 16000, (8, 8)),
    ],
)
def test_many_photographs_have_fewer_views_and_pieces(most, photographs, expected):
    assert assembly.views_of(Config(probe=ProbeConfig(most_views=most)), photographs) == expected


def test_views_are_never_more_than_is_set():
    assert assembly.views_of(Config(learn="probes", data=DataConfig(views=1)), 16000) == (1, 0)


def test_a_run_encodes_and_asks_no_more_views_than_its_photographs_may_have(config, dataset, small_black_box, tmp_path):
    few = dataclasses.replace(config, probe=ProbeConfig(texts=30, most_views=2 * IMAGES))
    ledger = _train(small_black_box, dataset, few, tmp_path / "x").result.ledger
    assert ledger.images_encoded == 3 * IMAGES + 6 + 12
    assert ledger.probe_predictions == 10 * 3 * IMAGES


# Texts alone


class OfTexts:
    """An owner who takes texts alone, answers probabilities, and counts what is asked."""

    def __init__(self, local):
        self.local, self.pairs = local, 0

    def encode_images(self, images):
        return list(self.local.encode_images(images))

    def predict_texts(self, texts, images):
        self.pairs += len(texts) * len(images)
        return np.asarray(jax.nn.softmax(self.local.predict_texts(texts, jnp.stack(images))))


def _connected(local):
    owner = OfTexts(local)
    remote = craft_jax.connect_black_box(
        owner, local.class_names, image_size=local.image_size, name="texts", probabilities=True
    )
    return owner, remote


def test_the_method_is_whole_on_texts_alone(config, dataset, small_black_box, tmp_path):
    probes = dataclasses.replace(config, learn="probes", probe=ProbeConfig(texts=60))
    owner, remote = _connected(small_black_box)
    outcome = _train(remote, dataset, probes, tmp_path / "remote")
    local = _train(small_black_box, dataset, probes, tmp_path / "local")

    assert outcome.result.zero_shot == local.result.zero_shot
    np.testing.assert_allclose(
        prediction.predict(outcome.tuned, remote, dataset.test),
        prediction.predict(local.tuned, small_black_box, dataset.test),
        atol=0.02,
    )
    ledger = outcome.result.ledger
    assert ledger.texts == 60
    assert ledger.probe_predictions == 20 * VIEWS * IMAGES
    # 60 texts of 2 views of 12 images, of 6 held out and, once, of 12 tested on; captions of the last two otherwise.
    assert owner.pairs >= 60 * (VIEWS * IMAGES + 6 + 12)


def test_soft_prompts_where_only_texts_are_taken_are_one_line_that_names_the_recipe(
    config, dataset, small_black_box, tmp_path
):
    owner, remote = _connected(small_black_box)
    with pytest.raises(UserError, match="texts takes no soft prompts; take the recipe probe"):
        _train(remote, dataset, config, tmp_path / "x")
    assert owner.pairs == 0


def test_texts_where_only_soft_prompts_are_taken_are_one_line_that_names_a_recipe(
    config, dataset, small_black_box, tmp_path
):
    class Owner:
        def encode_images(self, images):
            return list(images)

        def predict(self, prompts, images):
            raise AssertionError("asked")

    remote = craft_jax.connect_black_box(
        Owner(), small_black_box.class_names, small_black_box.initial_prompt, image_size=32, name="soft"
    )
    with pytest.raises(UserError, match="soft takes no texts; set probe.texts=0 and .* such as by-class"):
        _train(remote, dataset, config, tmp_path / "x")


# The choice


def test_held_out_images_must_speak_loud_against_the_probes(finished):
    models = dict.fromkeys((selection.ZERO_SHOT, selection.REFINED), finished[1].tuned._replace(texts=(), stacked=None))
    models[selection.PROBES] = finished[1].tuned
    losses = {selection.ZERO_SHOT: 2.0, selection.REFINED: 1.0, selection.PROBES: 1.1}
    assert selection.choose(models, losses, 20, 0) == selection.PROBES
    assert selection.choose(models, losses, 100, 0) == selection.REFINED
    assert selection.choose(models, losses, 20, 1) == selection.REFINED
    assert selection.choose(models, {}, 0, 0) == selection.PROBES
