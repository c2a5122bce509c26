"""Clients that exchange sums in the place of images: splits, trust, what leaves them, and what they end with."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest

from craft_jax.clients import client, closed_form, command, measures, privacy, splits, strategy, trust
from craft_jax.clients.client import Answers
from craft_jax.clients.settings import ClientsConfig, Noise, Split, parse_noise, parse_split
from craft_jax.config import Config
from craft_jax.data import FewShotSet, Labelled
from craft_jax.errors import UserError
from craft_jax.method import StackedHead, stacked
from tests.miniatures import BUNDLED

CLASSES, TEXTS, FEATURES, CLIENTS, VIEWS = 6, 24, 12, 6, 2


class _World:
    """Classes as Gaussians in a feature space, which texts measure with the first C as captions."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.means = 2.5 * self.rng.normal(size=(CLASSES, FEATURES))
        self.texts = self.rng.normal(size=(FEATURES, TEXTS))

    def answers(self, labels):
        features = self.means[labels] + self.rng.normal(size=(len(labels), FEATURES))
        return (features @ self.texts).astype(np.float32)

    def client(self, index, labels, config, meaning=None, given=None, clients=CLIENTS):
        own = np.asarray(labels)
        train = np.stack([self.answers(own) for _ in range(VIEWS)])
        meaning = np.arange(CLASSES) if meaning is None else meaning
        public = self.public if hasattr(self, "public") else self.answers(np.arange(60) % CLASSES)
        self.public = public
        held_out = np.repeat(own[:2], 2)
        answers = Answers(
            train, meaning[own] if given is None else given, self.answers(held_out), meaning[held_out], public
        )
        return closed_form.build(index, answers, client.Ledger(), CLASSES, Config(), config, clients)


def _alike(config, per_class=3):
    world = _World()
    return [world.client(i, np.repeat(np.arange(CLASSES), per_class), config) for i in range(CLIENTS)]


def _exchange(clients, groups=None):
    carry = closed_form.in_this_process(clients)
    return strategy.exchange(carry, clients[0].config, len(clients), groups)


def _pooled_head(clients):
    return client.head_of(functools.reduce(stacked.add, [one.own for one in clients]), VIEWS)


def test_equal_trust_gives_every_client_the_pooled_head_exactly():
    clients = _alike(ClientsConfig(trust="pooled"))
    _exchange(clients)
    answers = np.concatenate([one.answers.train for one in clients], axis=1)
    labels = np.concatenate([one.answers.labels for one in clients])
    from_photographs = client.head_of(client.of_views(answers, labels, CLASSES), VIEWS)

    for one in clients:
        np.testing.assert_array_equal(one.settled[0].head.weights, _pooled_head(clients).weights)
        np.testing.assert_array_equal(one.settled[0].head.bias, _pooled_head(clients).bias)
        np.testing.assert_allclose(one.settled[0].head.weights, from_photographs.weights, rtol=1e-4, atol=1e-6)


def test_the_average_of_heads_is_another_than_the_pooled_head():
    clients = _alike(ClientsConfig(trust="average"))
    _exchange(clients)

    assert np.abs(clients[0].settled[0].head.weights - _pooled_head(clients).weights).max() > 1e-2


@pytest.mark.parametrize("way", ["predictions", "validation", "weights"])
def test_trust_finds_the_groups_that_mean_the_same_by_the_classes(way):
    world, config = _World(), ClientsConfig(trust=way)
    meanings = [np.arange(CLASSES), np.roll(np.arange(CLASSES), 1)]
    labels = np.repeat(np.arange(CLASSES), 4)
    clients = [world.client(i, labels, config, meanings[i % 2]) for i in range(CLIENTS)]
    exchanged = _exchange(clients)

    assert trust.inside(exchanged.trust, [i % 2 for i in range(CLIENTS)]) > 0.95
    oracle = client.head_of(functools.reduce(stacked.add, [one.own for one in clients[::2]]), VIEWS)
    np.testing.assert_allclose(clients[0].settled[0].head.weights, oracle.weights, atol=0.05)


@pytest.mark.parametrize("way", ["predictions", "validation"])
def test_a_client_with_wrong_labels_is_left_aside(way):
    world, config = _World(), ClientsConfig(trust=way)
    labels = np.repeat(np.arange(CLASSES), 4)
    wrong = [np.random.default_rng(5).permutation(labels)] + [None] * (CLIENTS - 1)
    clients = [world.client(i, labels, config, given=wrong[i]) for i in range(CLIENTS)]
    believed = _exchange(clients).trust

    assert believed[1:, 0].max() < 0.2
    assert believed[1:, 1:].min() > 0.8


def test_clients_without_a_class_in_common_believe_one_another_and_learn_each_others_classes():
    world, config = _World(), ClientsConfig(trust="predictions")
    clients = [world.client(i, np.full(6, i), config) for i in range(CLIENTS)]
    _exchange(clients)
    labels = np.arange(120) % CLASSES
    answers = world.answers(labels)

    def accuracy(head):
        return np.nanmean(measures.by_class(stacked.apply(head, answers), labels))

    assert accuracy(clients[0].settled[0].head) > accuracy(_pooled_head(clients)) - 3
    assert accuracy(clients[0].settled[0].head) > accuracy(clients[0].head_alone) + 20


def test_a_class_below_the_least_count_is_not_sent_but_used_at_home():
    world, config = _World(), ClientsConfig(trust="pooled", least_count=2)
    clients = [world.client(i, [0, 0, 0, 1, 1, 2], config, clients=2) for i in range(2)]
    _exchange(clients)
    one = clients[0]

    np.testing.assert_array_equal(one.shown.counts, VIEWS * np.array([3, 2, 0, 0, 0, 0]))
    assert not one.shown.sums[2].any()
    assert np.abs(one.settled[0].head.weights[:, 2]).max() > 0
    np.testing.assert_allclose(
        one.shown.scatter, client.of_views(one.answers.train[:, :5], one.answers.labels[:5], CLASSES).scatter
    )


def test_masks_hide_each_upload_and_cancel_in_the_sum():
    plain, masked = (_alike(ClientsConfig(trust="predictions", masks=masks)) for masks in (False, True))
    _exchange(plain), _exchange(masked)

    np.testing.assert_allclose(masked[2].settled[0].head.weights, plain[2].settled[0].head.weights, atol=1e-5)
    secrets = masked[0].secrets
    upload = privacy.masked(np.ones(5000), 1.0, 0, secrets, "0/0")
    bits = np.unpackbits(upload.view(np.uint8)).mean()
    assert abs(bits - 0.5) < 4 * 0.5 / np.sqrt(5000 * 64)


def test_under_masks_a_client_that_is_lost_after_its_offer_does_not_spoil_the_sum():
    clients = _alike(ClientsConfig(trust="pooled", masks=True))
    whole = closed_form.in_this_process(clients)

    def carry(step, messages):
        return {i: reply for i, reply in whole(step, messages).items() if i != 3 or step == client.OFFER}

    exchanged = strategy.exchange(carry, clients[0].config, CLIENTS)

    assert exchanged.lost == (3,)
    left = client.head_of(functools.reduce(stacked.add, [clients[i].own for i in (0, 1, 2, 4, 5)]), VIEWS)
    np.testing.assert_allclose(clients[0].settled[0].head.weights, left.weights, atol=1e-5)


@pytest.mark.parametrize("step", [client.OFFER, client.JUDGE, client.SEND, client.SETTLE])
def test_the_others_go_on_without_a_client_that_dies(step):
    clients = _alike(ClientsConfig(trust="validation"))
    whole = closed_form.in_this_process(clients)
    dead = []

    def carry(at, messages):
        if at == step:
            dead.append(1)
        return whole(at, {i: message for i, message in messages.items() if i != 1 or not dead})

    exchanged = strategy.exchange(carry, clients[0].config, CLIENTS)

    assert exchanged.lost == (1,)
    assert not exchanged.trust[1].any()
    assert all(one.settled for one in clients if one.index != 1)


def test_one_client_alone_is_no_exchange():
    clients = _alike(ClientsConfig())
    with pytest.raises(UserError, match="1 of 6 clients answered"):
        strategy.exchange(lambda step, messages: {0: clients[0].reply(step, messages[0])}, clients[0].config, CLIENTS)


@pytest.mark.parametrize("way", ["predictions", "validation", "weights", "pooled", "average"])
def test_what_leaves_a_client_has_the_same_shape_however_many_photographs_it_has(way):
    world, config = _World(), ClientsConfig(trust=way)
    clients = [world.client(i, np.repeat(np.arange(CLASSES), 2 + i), config) for i in range(CLIENTS)]
    _exchange(clients)
    sent = [[item[1:] for item in one.log if item.direction == "out"] for one in clients]

    assert all(one == sent[0] for one in sent)
    assert {item[1] for item in sent[0]} <= {"held", "changes", "weights", "bias", "matches", "statistics"}


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-5), (1.0, 1e-5), (8.0, 1e-6)])
def test_noise_is_the_least_that_gives_epsilon_and_delta(epsilon, delta):
    sigma = privacy.deviation(epsilon, delta, 1.0)
    x = np.linspace(-40, 40, 400001) * sigma
    one, other = (np.exp(-np.square(x - at) / (2 * sigma**2)) for at in (0.0, 1.0))
    told = np.maximum(one - np.exp(epsilon) * other, 0).sum() / one.sum()

    assert told == pytest.approx(delta, rel=2e-2)


def test_noised_statistics_scatter_as_stated_and_hide_one_photograph():
    config = ClientsConfig(trust="pooled", noise=Noise(2.0, 1e-5))
    world = _World()
    one = world.client(0, np.repeat(np.arange(CLASSES), 20), config)
    basis = privacy.basis(one.answers.public)
    draws = [
        privacy.noised(one.answers.train, one.answers.labels, CLASSES, config.noise, basis, np.random.default_rng(i))
        for i in range(200)
    ]
    sigma = VIEWS * privacy.deviation(2.0, 1e-5, np.sqrt(2))

    assert np.std([draw.counts for draw in draws], axis=0).mean() == pytest.approx(sigma, rel=0.1)
    along = np.array([draw.sums @ basis.axes for draw in draws])
    assert np.std(along, axis=0).mean() == pytest.approx(sigma * basis.radius, rel=0.1)
    for draw in draws[:2]:  # nothing of the scatter is the client's own
        mean = draw.sums.sum(axis=0) / draw.counts.sum()
        np.testing.assert_allclose(draw.scatter / draw.counts.sum() - np.outer(mean, mean), basis.covariance, atol=1e-8)


def test_a_head_that_noise_has_spoilt_is_not_taken():
    config = ClientsConfig(trust="pooled", noise=Noise(0.1, 1e-6))
    world = _World()
    labels = np.arange(120) % CLASSES
    clients = [world.client(i, np.repeat(np.arange(CLASSES), 4), config) for i in range(CLIENTS)]
    spoilt = client.head_of(functools.reduce(stacked.add, [one.shown for one in clients]), VIEWS)
    _exchange(clients)
    answers = world.answers(labels)
    accuracy = [
        np.mean(np.argmax(stacked.apply(head, answers), axis=1) == labels)
        for head in (spoilt, clients[0].settled[0].head, StackedHead(0 * spoilt.weights, 0 * spoilt.bias))
    ]

    assert accuracy[1] >= max(accuracy[0], accuracy[2]) - 0.05


def test_own_mix_is_a_prior_that_held_out_photographs_weigh():
    world = _World()
    one = world.client(0, [0] * 9 + [1], ClientsConfig())
    personal = one.personal(one.head_alone)
    moved = personal.own_mix.bias - personal.head.bias

    assert moved[0] > moved[1] > moved[2]
    assert moved[2] == pytest.approx(moved[5])


def _set(per_class=8, val=2, classes=5):
    items = [Labelled(_Named(f"{c}-{i}"), c) for c in range(classes) for i in range(per_class)]
    held = [Labelled(_Named(f"val {c}-{i}"), c) for c in range(classes) for i in range(val)]
    return FewShotSet(tuple("abcde"[:classes]), tuple(items), tuple(held), tuple(items[:3]), split="made")


@dataclasses.dataclass(frozen=True)
class _Named:
    name: str


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.1", "dirichlet:10", "disjoint", "permuted:2", "noisy"])
def test_every_photograph_is_one_clients(how):
    dealt = splits.split(_set(), [], parse_split(how), 4, seed=1)
    names = [item.image.name for holding in dealt.holdings for item in holding.train]

    assert sorted(names) == sorted(item.image.name for item in _set().train)
    assert dealt == splits.split(_set(), [], parse_split(how), 4, seed=1)
    assert dealt != splits.split(_set(), [], parse_split(how), 4, seed=2)
    held = [item.image.name for holding in dealt.holdings for item in holding.held_out]
    assert len(held) == len(set(held)) == len(_set().val)


def test_label_skew_grows_as_alpha_falls_and_clients_have_as_many_photographs():
    def classes_held(alpha):
        dealt = splits.split(_set(per_class=16), [], Split("dirichlet", alpha), 4, seed=0)
        assert {len(holding.train) for holding in dealt.holdings} == {20}
        return np.mean([len({item.label for item in holding.train}) for holding in dealt.holdings])

    assert classes_held(0.05) < classes_held(1000)


def test_disjoint_clients_share_no_class_and_hold_out_their_own():
    dealt = splits.split(_set(), [], Split("disjoint", 0), 3, seed=0)
    held = [{item.label for item in holding.train} for holding in dealt.holdings]

    assert sum(map(len, held)) == len(set.union(*held)) == 5
    for holding, own in zip(dealt.holdings, held, strict=True):
        assert {item.label for item in holding.held_out} == own


def test_domains_show_the_same_photographs_otherwise():
    dealt = splits.split(_set(), [], Split("domains", 2), 4, seed=0)
    names = [
        sorted(item.image.name.partition(",")[0] for h in dealt.holdings if h.domain == d for item in h.train)
        for d in range(2)
    ]

    assert names[0] == names[1] == sorted(item.image.name for item in _set().train)
    assert [holding.group for holding in dealt.holdings] == [0, 1, 0, 1]


def test_groups_with_permuted_labels_call_the_same_photographs_by_other_classes():
    dealt = splits.split(_set(), [], Split("permuted", 2), 4, seed=0)
    for holding in dealt.holdings:
        true = [int(item.image.name[0]) for item in holding.train]
        assert [item.label for item in holding.train] == [holding.meaning[label] for label in true]
    assert dealt.holdings[0].meaning == tuple(range(5)) != dealt.holdings[1].meaning


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dirichlets", "--split=dirichlets must be one of"),
        ("dirichlet:-1", "the number must be between"),
        ("dirichlet:x", "'x' is no number"),
        ("disjoint:3", "takes no number"),
        ("domains:4", "must be 2 or 3"),
    ],
)
def test_a_split_that_is_none_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_split(text)


def test_noise_that_another_step_would_undo_is_refused():
    with pytest.raises(UserError, match="--trust=validation looks at photographs without noise"):
        ClientsConfig(trust="validation", noise=Noise(1.0, 1e-5))


@pytest.mark.parametrize("text", ["8", "8:", "0:1e-5", "8:2", "a:b"])
def test_noise_is_epsilon_and_delta(text):
    with pytest.raises(UserError, match="--noise="):
        parse_noise(text)


def _arguments(root, workdir, *more):
    return [
        "craft-jax clients", "--config=demo", f"--config.data.root={root}",
        "--config.data.images=caltech-101/101_ObjectCategories",
        "--config.data.split=caltech-101/split_zhou_Caltech101.json", "--config.data.shots=4", "--config.data.views=1",
        "--config.probe.texts=24", "--clients=2", "--public=6", f"--workdir={workdir}", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_leaves_a_report_and_asks_nothing_twice(coop_root, tmp_path, capsys, monkeypatch):
    command.main(_arguments(coop_root, tmp_path / "run", "--split=iid"))
    first = json.loads((tmp_path / "run" / "result.json").read_text())
    monkeypatch.setattr(client, "ask", None)
    command.main(_arguments(coop_root, tmp_path / "run", "--split=iid"))

    assert json.loads((tmp_path / "run" / "result.json").read_text()) == first
    assert list(first["accuracy"]) == ["zero-shot", "alone", "average", "pooled", "oracle", "predictions"]
    assert {one["ledger"]["prompts"] for one in first["clients"]} == {8}
    assert all(one["bytes_sent"] > 0 for one in first["clients"])
    assert (tmp_path / "run" / "clients.png").stat().st_size > 10_000
    assert "no image, label or prediction" in (tmp_path / "run" / "report.md").read_text()
    with pytest.raises(UserError, match="holds other photographs or settings"):
        command.main(_arguments(coop_root, tmp_path / "run", "--split=noisy"))


def test_a_folder_a_client(tmp_path):
    for name, classes in (("ann", ("pizza", "sunflower")), ("bob", ("sunflower", "grand_piano"))):
        for label in classes:
            target = tmp_path / "clients" / name / label
            target.mkdir(parents=True)
            for path in sorted((BUNDLED / "images" / label).iterdir())[:8]:
                shutil.copy(path, target)
    dealt = splits.read_folders(tmp_path / "clients", 0, split_seed=0)

    assert dealt.class_names == ("grand piano", "pizza", "sunflower")
    assert [sorted({item.label for item in holding.train}) for holding in dealt.holdings] == [[1, 2], [0, 2]]
    with pytest.raises(UserError, match="2 folders of clients; --split=folders needs 3"):
        splits.read_folders(tmp_path / "clients", 3, split_seed=0)


def test_a_head_for_no_photographs_is_zero_shot():
    head = client.head_of(stacked.statistics(np.zeros((0, TEXTS)), np.zeros(0, int), CLASSES), VIEWS)

    assert isinstance(head, StackedHead)
    assert not head.weights.any()
    assert not head.bias.any()
