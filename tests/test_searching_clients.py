"""Clients that search at home and exchange what they have learnt: the simulation, on any number of devices."""

import dataclasses

import jax
import numpy as np
import pytest

from craft_jax import data
from craft_jax.clients import client, searching, splits
from craft_jax.clients.searching import mixing, parts, simulation, steps
from craft_jax.clients.settings import ClientsConfig, parse_split
from craft_jax.distributed import devices
from craft_jax.errors import Interrupted, UserError
from craft_jax.method import TuningState
from craft_jax.method.estimators.ask_tell import SearchState
from craft_jax.method.refinement import HeadState

CLIENTS = 3


@pytest.fixture
def config(small_config):
    """Four steps of 4 prompts a client."""
    search = dataclasses.replace(small_config.search, population_size=4)
    head = dataclasses.replace(small_config.refinement, batch_size=4, hidden=4)
    return dataclasses.replace(small_config, query_budget=37, search=search, refinement=head)


def _federation(config, how="iid"):
    whole = data.read(config.data)
    drawn = data.draw(whole, config.data, 1)
    return splits.split(drawn, splits.unused(whole, drawn, 4, 1), parse_split(how), CLIENTS, 1)


def _unequal(config):
    """A federation whose first client has one photograph less than the others."""
    federation = _federation(config)
    fewer = dataclasses.replace(federation.holdings[0], train=federation.holdings[0].train[:3])
    return dataclasses.replace(federation, holdings=(fewer, *federation.holdings[1:]))


def _how(**changes):
    return ClientsConfig(**{"clients": CLIENTS, "exchange": "both", "every": 2, "public": 4} | changes)


def _state(z, kernel):
    params = {"params": {"Dense_0": {"kernel": kernel * 0 + 1}, "Dense_1": {"kernel": kernel, "bias": z[..., 0]}}}
    return TuningState(SearchState(z, (), 0), (), HeadState(params, ()), 0)


def test_a_class_is_averaged_over_those_who_are_believed_and_have_it():
    z = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2)
    kernel = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    counts = np.array([[4.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    after = mixing.mixed(_state(z, kernel), np.array([[1.0, 0.5], [0.5, 1.0]]), counts, _how())

    np.testing.assert_allclose(after.search.z[:, 0], np.stack([z[0, 0], z[0, 0]]))
    np.testing.assert_allclose(after.search.z[0, 1], (2 * z[0, 1] + z[1, 1]) / 3)
    np.testing.assert_allclose(after.search.z[0, 2], (2 * z[0, 2] + z[1, 2]) / 3)
    last = after.head.params["params"]["Dense_1"]["kernel"]
    np.testing.assert_allclose(last[1, :, 0], kernel[0, :, 0])


@pytest.mark.parametrize("exchange", ["prompt", "head"])
def test_what_is_not_exchanged_stays_at_home(exchange):
    rng = np.random.default_rng(0)
    state = _state(rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 4, 3)))
    after = mixing.mixed(state, np.ones((2, 2)), np.ones((2, 3)), _how(exchange=exchange))
    moved = {
        "prompt": np.abs(after.search.z - state.search.z).max() > 0,
        "head": np.abs(after.head.params["params"]["Dense_1"]["bias"] - state.search.z[..., 0]).max() > 0,
    }

    assert [name for name, has in moved.items() if has] == [exchange]


def test_any_number_of_devices_gives_every_client_the_same():
    def one(shared, own):
        return jax.numpy.sum(shared * own**2, axis=-1), own[0] + 1

    shared, own = np.arange(4.0, dtype=np.float32), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = [steps.over_devices(devices.Spread(jax.devices()[:count]), one, shared, own) for count in (1, 3, 8)]
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
    np.testing.assert_allclose(found[0][0], (own**2) @ shared, rtol=1e-6)


@pytest.mark.slow
def test_devices_and_a_kill_change_no_bit(config, small_black_box, tmp_path):
    federation, calls = _federation(config), []

    def on(count, workdir, stop=lambda: False):
        own = dataclasses.replace(config, run=dataclasses.replace(config.run, devices=count))
        return searching.simulate(small_black_box, federation, own, _how(), workdir, stop=stop)

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = on(1, tmp_path / "whole")
    with pytest.raises(Interrupted, match="stopped after step 2 of 4"):
        on(2, tmp_path / "killed", stop=lambda: calls.append(1) or len(calls) > 1)
    resumed = on(2, tmp_path / "killed")

    np.testing.assert_array_equal(resumed.trust, whole.trust)
    assert resumed.measured == whole.measured
    kept = [np.load(tmp_path / name / "state.npz") for name in ("whole", "killed")]
    for leaf in kept[0].files:
        np.testing.assert_array_equal(kept[0][leaf], kept[1][leaf])
    with pytest.raises(UserError, match="holds clients with other settings"):
        searching.simulate(small_black_box, federation, config, _how(trust="average"), tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("trust", ["weights", "validation", "alone"])
def test_every_way_to_trust_leaves_accuracies_and_a_ledger(trust, config, small_black_box):
    federation = _federation(config, "permuted:2")
    found = searching.simulate(small_black_box, federation, config, _how(trust=trust))
    held_out = [len(one.held_out) for one in federation.holdings]
    views = [len(one.train) * config.data.views for one in federation.holdings]

    assert max(held_out) > 0
    assert [ledger.images_encoded for ledger in found.ledgers] == [
        own + more + len(federation.public) for own, more in zip(views, held_out, strict=True)
    ]
    assert list(found.measured) == ["zero-shot", trust]
    assert found.trust.shape == (CLIENTS, CLIENTS)
    assert all(ledger.prompts == 37 for ledger in found.ledgers)
    names = {item.name for item in found.logs[0]}
    assert names <= {"photographs of each class", "z", "head", "changes"}
    assert bool(names) == (trust != "alone")


@pytest.mark.slow
def test_trust_is_found_once_before_anything_is_mixed(config, small_black_box, tmp_path):
    federation, how = _federation(config, "permuted:2"), _how(trust="predictions")
    stops = iter([False, True])
    with pytest.raises(Interrupted):
        searching.simulate(small_black_box, federation, config, how, tmp_path, stop=lambda: next(stops))
    at_first = np.load(tmp_path / "state.npz")["trust"]
    found = searching.simulate(small_black_box, federation, config, how, tmp_path)

    assert np.any(at_first != np.eye(CLIENTS))
    np.testing.assert_array_equal(found.trust, at_first)
    assert [item.name for item in found.logs[0]].count("changes") == 1


@pytest.mark.slow
def test_unequal_clients_keep_their_own_photographs(config, small_black_box):
    federation = _unequal(config)
    own = federation.holdings[0].train
    run = parts.assemble(small_black_box, federation, config, _how())

    assert run.images == (3, 4, 4)
    np.testing.assert_array_equal(run.party.labels[0], [item.label for item in (*own, own[0])])
    np.testing.assert_array_equal(run.party.views[0][:, 3], run.party.views[0][:, 0])


@pytest.mark.slow
def test_the_head_at_home_is_made_of_a_clients_own_photographs_each_once(config, small_black_box):
    federation = _unequal(config)
    run = parts.assemble(small_black_box, federation, config, _how())
    heads = simulation._heads_at_home(run, run.party.state)

    def zero_shot_of(i, view):
        return run.zero_shot(jax.tree.map(lambda leaf: leaf[i, view, : run.images[i]], run.party.views))

    for i, head in enumerate(heads):
        views = range(config.data.views)
        answers = np.stack([zero_shot_of(i, view) for view in views])
        labels = np.array([item.label for item in federation.holdings[i].train])
        expected = client.head_of(client.of_views(answers, labels, run.classes), len(views))
        np.testing.assert_allclose(head.weights, expected.weights, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(head.bias, expected.bias, rtol=1e-3, atol=1e-4)
