"""The search over texts: proposers, replies of every kind, scores, what is made of wordings, budget and resume."""

import contextlib
import dataclasses
import io
import subprocess
import sys
import zlib
from pathlib import Path

import httpx
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft_jax
from craft_jax import language, training
from craft_jax.blackbox import Ledger, Metered
from craft_jax.config import (
    ApiConfig,
    ChatConfig,
    Config,
    DeployConfig,
    LanguageConfig,
    ProbeConfig,
    RunConfig,
    config_dict,
    from_config_dict,
)
from craft_jax.errors import UserError
from craft_jax.language import ask_tell, combination, results, scoring, search
from craft_jax.language.ask_tell import Proposal, Scored, State, unseen
from craft_jax.language.proposers import library, mutation, parsing
from craft_jax.language.wordings import Wording, captions
from craft_jax.method import stacked
from craft_jax.reporting import words
from tests import proposing

NAMES = ("pizza", "grand piano", "sunflower")
ROOT = Path(__file__).parent.parent


# Replies


@pytest.mark.parametrize("number", range(len(proposing.HOSTILE)))
def test_a_hostile_reply_gives_clean_texts_or_a_reason(number):
    reply = proposing.HOSTILE[number] or ""
    for read in (parsing.templates(reply, NAMES), parsing.descriptions(reply, NAMES)):
        assert read.refused or read[0]
        assert all(line.isascii() and len(line) < 200 and "\n" not in line for line in read.refused)
    for text in parsing.templates(reply, NAMES).texts:
        _check_template(text)


@given(st.text(max_size=400) | st.lists(st.text('-*{} ab\n"`:[]', max_size=60)).map("\n".join))
@settings(max_examples=100, deadline=None)
def test_whatever_is_replied_what_is_taken_is_a_caption(reply):
    for text in parsing.templates(reply, NAMES).texts:
        _check_template(text)
    for name, phrases in parsing.descriptions(reply, NAMES).phrases.items():
        assert name in NAMES
        assert all(phrase.isprintable() and not set("{}") & set(phrase) for phrase in phrases)


def _check_template(text):
    assert text.isprintable()
    assert "{}" in text
    assert not set("{}") & set(text.replace("{}", ""))
    assert len(text.split()) <= parsing.MOST_WORDS


@pytest.mark.parametrize(
    "reply",
    [
        '{"templates": ["a photo of the {}", "one {}, a kind of {}"]}',
        'Sure!\n```json\n["a photo of the {}.", "one {}, a kind of {}."]\n```',
        '- "a photo of the {}"\n- **one {}, a kind of {}.**',
        '{"templates": ["a photo of the {}.", "one {}, a kind of {}.", "a photo of',
        "1. a photo of the {class}.\n2) one <class name>, a kind of [CLASS]\n",
        "a photo of the { }\none {name}, a kind of {name}",
    ],
)
def test_templates_are_read_in_every_usual_form(reply):
    assert parsing.templates(reply, NAMES).texts == ("a photo of the {}.", "one {}, a kind of {}.")


@pytest.mark.parametrize(
    "reply",
    [
        '{"descriptions": [{"class": "pizza", "text": "with cheese."}, {"class": "Grand Piano", "text": "with keys"}]}',
        '{"pizza": "with cheese", "grand piano": "with keys"}',
        "- pizza: with cheese\n- grand piano: with keys\n- a dog: with fur",
    ],
)
def test_descriptions_are_read_in_every_usual_form(reply):
    read = parsing.descriptions(reply, NAMES)
    assert read.phrases == {"pizza": ("with cheese",), "grand piano": ("with keys",)}
    assert len(read.refused) == reply.count("dog")


# Proposals


def _state(*texts):
    return State(1, tuple(Scored(Wording(text), float(i)) for i, text in enumerate(texts)))


@pytest.mark.parametrize("what", ["templates", "descriptions", "both"])
def test_mutation_proposes_new_wordings_that_follow_from_seed_and_state(what):
    pool = mutation.pool(Wording("a photo of a {}."), 6, what, NAMES, seed=1)
    assert pool[0].template == "a photo of a {}."
    assert len(set(pool)) == 6
    state = State(1, tuple(Scored(wording, float(i)) for i, wording in enumerate(pool)), np.ones((3, 6)))
    ask = mutation.build(count=8, what=what, class_names=NAMES, seed=1)
    proposal = ask(state)
    assert proposal == ask(state)
    assert len(unseen(state, proposal.wordings)) == 8
    assert proposal != mutation.build(count=8, what=what, class_names=NAMES, seed=2)(state)
    for wording in proposal.wordings:
        assert "{}" in wording.template
        assert len(wording.template.split()) <= 16
        assert len(captions(wording, NAMES)) == 3


def test_children_come_from_the_best():
    state = _state("zzz {} yyy.", *(f"bad{i} {{}} worse{i}." for i in range(8)))
    ask = mutation.build(count=30, what="templates", class_names=NAMES, seed=1)
    words = " ".join(wording.template for wording in ask(state).wordings).split()
    assert not [word for word in words if word.startswith(("bad5", "bad6", "bad7"))]
    assert "zzz" in words


def test_the_library_names_no_class_and_has_no_twins():
    assert len(set(library.TEMPLATES)) == len(library.TEMPLATES)
    assert "apple" in library.words(NAMES)
    assert "apple" not in library.words(("Apple",))


# Scores and combinations


@pytest.fixture
def answers():
    """Logits of 4 wordings for 2 views of 12 images of 3 classes, the last wording the best; labels; images."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(np.arange(3), 4), 2)
    logits = rng.normal(size=(4, 24, 3)).astype(np.float32)
    logits[3, np.arange(24), labels] += 2
    return logits, labels, np.tile(np.arange(12), 2)


def test_images_of_a_class_are_spread_over_folds_and_views_stay_together(answers):
    _, labels, images = answers
    shots = scoring.shots_of(labels, images, seed=1)
    np.testing.assert_array_equal(shots.folds[:12], shots.folds[12:])
    for label in range(3):
        assert sorted(shots.folds[:12][labels[:12] == label]) == [0, 1, 2, 3]
    few = scoring.shots_of(labels[:6], images[:6], seed=1)
    assert not few.folds.any()


def test_a_better_wording_has_a_lower_loss_whatever_its_scale(answers):
    logits, labels, images = answers
    shots = scoring.shots_of(labels, images, seed=1)
    losses = [scoring.loss(one, shots, 1.0) for one in (*logits, 4 * logits[3])]
    assert min(losses[:3]) > losses[3]
    assert losses[4] == pytest.approx(losses[3], abs=0.05)


def test_a_class_is_judged_by_its_own_caption(answers):
    logits, labels, _ = answers
    found = scoring.by_class(logits[0], logits, labels, scale=0.5)
    for label in range(3):
        for k in range(4):
            swapped = logits[0].copy()
            swapped[:, label] = logits[k, :, label]
            expected = scoring.cross_entropies(0.5 * swapped, labels).mean()
            assert found[label, k] == pytest.approx(expected, rel=1e-5)


def test_weights_are_convex_and_find_the_wording_that_tells(answers):
    logits, labels, images = answers
    shots = scoring.shots_of(labels, images, seed=1)
    losses = np.array([scoring.loss(one, shots, 1.0) for one in logits])
    weights = combination.weights(logits.transpose(2, 0, 1), losses, shots, 12, 1.0)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.mean(axis=0).argmax() == 3


def test_a_combination_is_the_weighted_sum_of_its_wordings_logits():
    wordings = [Wording("a photo of a {}."), Wording("the {}.", ("red", "", "tall")), Wording("the {}.")]
    weights = np.array([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [0.0, 0.3, 0.7]])
    texts, head = results.mixed(wordings, weights, NAMES)
    assert len(texts) == 8  # "the grand piano." is in two of them
    answers = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    of = dict(zip(texts, answers.T, strict=True))
    expected = sum(
        weight * np.stack([of[text] for text in captions(wording, NAMES)], axis=1)
        for weight, wording in zip(weights.T, wordings, strict=True)
    )
    np.testing.assert_allclose(stacked.apply(head, answers), expected, atol=1e-5)
    np.testing.assert_allclose(stacked.apply(head, answers + 7), expected + 7, atol=1e-5)


# The search


class Owner:
    """Knows each word by some numbers, and images too; takes texts alone, and counts what is asked."""

    def __init__(self, constant=False):
        self.asked, self.constant = [], constant

    def encode_images(self, images):
        return list(images)

    def predict_texts(self, texts, images):
        self.asked += texts
        known = np.array([4 * np.tanh(sum(map(_numbers_of, text.split()))) for text in texts])
        named = np.array([[4.0 * (name in text) for name in NAMES] for text in texts])
        logits = np.stack(images) @ np.concatenate([named, known], axis=1).T / 4
        return logits + (100 + len(self.asked) if self.constant else 0)


def _numbers_of(word):
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=7)


def _shown(shots=4):
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), shots)
    views = np.concatenate([np.eye(3)[labels], rng.normal(size=(labels.size, 7))], axis=1)
    views = views[None] + 0.8 * rng.normal(size=(2, labels.size, 10))
    return views, language.Shown(np.zeros(0), labels, None, np.zeros(0, int), "these")


def _find(folder, owner=None, budget=None, chat=None, **changes):
    """A search on the owner's three classes, 14 wordings at most."""
    owner = owner or Owner()
    black_box = craft_jax.connect_black_box(owner, NAMES, image_size=8, name="words")
    views, shown = _shown()
    handles = [black_box.encode_images(views[v]) for v in range(2)]
    shown = shown._replace(views=jax.tree.map(lambda *leaves: np.stack(leaves), *handles))
    settings = LanguageConfig(**{"wordings": 14, "start": 5, "each_round": 3, **changes})
    metered = Metered(black_box, budget)
    found = language.find(metered, shown, language=settings, chat=chat or ChatConfig(), texts=24, seed=1, folder=folder)
    return found, metered.meter.ledger, owner


@pytest.mark.parametrize("what", ["templates", "descriptions", "both"])
def test_a_search_stays_within_its_wordings_and_books_each_text_once(what, tmp_path):
    found, ledger, owner = _find(tmp_path, what=what)
    once = set(owner.asked)
    assert ledger.texts == len(once) <= 14 * 3
    assert ledger.prompts == -(-ledger.texts // 3)
    assert ledger.probe_predictions == ledger.prompts * 2 * 12
    assert found.told["best"]["loss"] < found.told["start"]["loss"]
    for texts, head in found.heads.values():
        assert set(texts) <= once
        assert head.weights.shape == (len(texts), 3)


def test_the_budget_bounds_the_search():
    _, ledger, _ = _find(None, budget=7)
    assert ledger.prompts <= 7
    assert ledger.texts > 7
    with pytest.raises(UserError, match="pays for no set of captions"):
        _find(None, budget=0)


def test_what_a_question_adds_to_all_answers_changes_nothing(tmp_path):
    plain, _, _ = _find(tmp_path / "a", what="both")
    shifted, _, _ = _find(tmp_path / "b", Owner(constant=True), what="both")
    assert plain.told["best"]["wording"] == shifted.told["best"]["wording"]
    assert [one["wording"] for one in plain.told["combined"]] == [one["wording"] for one in shifted.told["combined"]]
    np.testing.assert_allclose(plain.target, shifted.target, atol=1e-2)


class Killed(Exception):
    pass


class Mortal(Owner):
    """Ends its process at the third question."""

    def predict_texts(self, texts, images):
        if len(self.asked) > 30:
            raise Killed
        return super().predict_texts(texts, images)


def test_a_search_that_was_killed_goes_on_and_asks_no_text_twice(tmp_path):
    whole, ledger, _ = _find(tmp_path / "whole")
    with pytest.raises(Killed):
        _find(tmp_path / "x", Mortal())
    asked = len(list((tmp_path / "x" / "language").iterdir()))
    resumed, again, owner = _find(tmp_path / "x")
    assert asked >= 2
    assert again == ledger
    assert not set(owner.asked) & set(library.TEMPLATES)
    assert resumed.told == whole.told
    np.testing.assert_array_equal(resumed.target, whole.target)

    read, booked, unasked = _find(tmp_path / "x")
    assert not unasked.asked
    assert booked == ledger
    assert read.told == whole.told
    for name, (texts, head) in whole.heads.items():
        assert read.heads[name][0] == texts
        np.testing.assert_array_equal(read.heads[name][1].weights, head.weights)


@pytest.mark.parametrize("file", ["language/round-001.npz", "language.npz"])
def test_a_file_that_a_disk_spoilt_is_asked_again_to_the_same_result(file, tmp_path):
    whole, ledger, _ = _find(tmp_path / "whole")
    if file.startswith("language/"):
        with pytest.raises(Killed):
            _find(tmp_path / "x", Mortal())
    else:
        _find(tmp_path / "x")
    path = tmp_path / "x" / file
    path.write_bytes(path.read_bytes()[:-100])
    again, booked, _ = _find(tmp_path / "x")
    assert again.told == whole.told
    assert booked == ledger


# A language model


@contextlib.contextmanager
def serving(manner):
    """The address of a language model in a process of its own."""
    command = [sys.executable, "-m", "tests.proposing", manner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.terminate()


def _chat(address, tmp_path, **changes):
    return ChatConfig(
        address=f"{address}/v1", model="rules", pause=0.0, store=str(tmp_path / "store.sqlite"), **changes
    )


@pytest.mark.parametrize(
    ("manner", "proposer", "what"),
    [
        ("structured", "chat", "both"),
        ("lines", "chat", "templates"),
        ("structured", "published", "templates"),
        pytest.param("structured", "chat", "templates", marks=pytest.mark.slow),
        pytest.param("lines", "chat", "both", marks=pytest.mark.slow),
        pytest.param("lines", "published", "templates", marks=pytest.mark.slow),
    ],
)
def test_a_language_model_proposes_until_the_wordings_are_spent(manner, proposer, what, tmp_path):
    with serving(manner) as address:
        chat = _chat(address, tmp_path)
        found, ledger, _ = _find(tmp_path / "one", chat=chat, proposer=proposer, what=what)
        asked = httpx.get(f"{address}/asked").json()
        again, free, _ = _find(tmp_path / "other", chat=chat, proposer=proposer, what=what)
        assert httpx.get(f"{address}/asked").json() == asked == ledger.proposal_calls > 0
        last = httpx.get(f"{address}/last").json()
    assert ledger.proposal_tokens == asked * proposing.TOKENS
    assert free == dataclasses.replace(ledger, proposal_tokens=0)
    assert again.told == found.told
    assert found.told["wordings"] > 5
    assert found.told["calls"] == asked
    assert all(name in last for name in NAMES) == (proposer == "chat")


def test_bad_replies_cost_calls_and_notes_and_never_the_run(tmp_path):
    with serving("hostile") as address:
        chat = _chat(address, tmp_path, calls=len(proposing.HOSTILE))
        found, ledger, _ = _find(tmp_path, chat=chat, proposer="chat", wordings=30)
    assert ledger.proposal_calls == len(proposing.HOSTILE)
    assert len(found.told["notes"]) >= len(proposing.HOSTILE) - 1
    assert all(note.isascii() and len(note) < 200 for note in found.told["notes"])
    assert "\n".join(words.wordings(found.told)).count("`") % 2 == 0


def test_a_caption_that_the_model_has_no_room_for_costs_a_note(small_black_box):
    long = Wording("a {} " + " ".join(f"q{number}z" for number in range(40)) + ".")
    proposal = Proposal((Wording("the {}."), long), 1)
    fitting = search._fitting(Metered(small_black_box, budget=None), proposal, NAMES)
    assert fitting.wordings == (Wording("the {}."),)
    assert "more tokens than the model takes" in fitting.notes[0]


def test_a_ceiling_ends_the_proposals_and_not_the_run(tmp_path):
    with serving("structured") as address:
        chat = _chat(address, tmp_path, max_requests=1)
        found, ledger, _ = _find(tmp_path, chat=chat, proposer="published")
    assert ledger.proposal_calls == 1
    assert "chat.max_requests=1 covers no further request" in found.told["notes"][-1]


def test_a_language_model_that_is_not_there_is_one_line_that_names_its_settings(tmp_path):
    chat = _chat("http://127.0.0.1:9", tmp_path, attempts=1)
    with pytest.raises(UserError, match="127.0.0.1:9/v1/chat/completions does not answer"):
        _find(tmp_path, chat=chat, proposer="chat")
    with pytest.raises(UserError, match=r"chat.address is empty; .* take the recipe mutation"):
        from_config_dict(config_dict(Config(), "llm"))
    secret = ChatConfig(address="https://me:secret@example.com/v1", model="any")
    with pytest.raises(UserError, match="chat.address holds a key"):
        from_config_dict(config_dict(Config(chat=secret), "llm"))
    assert from_config_dict(config_dict(Config(chat=chat), "llm-published")).language.proposer == "published"


def test_a_note_of_a_proposal_is_kept_by_the_state():
    state = ask_tell.tell(State(), Proposal((), 1, ("reply 1: it is empty",)), [], np.zeros((0, 0)), [])
    assert state.calls == 1
    assert state.notes == ("reply 1: it is empty",)
    assert Ledger(proposal_calls=1) + Ledger(proposal_calls=2) == Ledger(proposal_calls=3)


# A run


class Seeing(Owner):
    """The same, of photographs: by their colours and by noise."""

    def encode_images(self, images):
        rng = np.random.default_rng(0)
        colours = images.reshape(len(images), -1, 3).mean(axis=1) / 64 - 2
        return list(np.concatenate([colours, rng.normal(size=(len(images), 7))], axis=1))


def _run(folder, dataset, **changes):
    settings = LanguageConfig(wordings=12, start=6, each_round=3, what="both")
    run = RunConfig(devices=1)
    config = Config(learn="texts", language=settings, run=run, probe=ProbeConfig(texts=24), **changes)
    config = dataclasses.replace(config, data=dataclasses.replace(dataset.settings, views=2))
    owner, stream = Seeing(), io.StringIO()
    black_box = craft_jax.connect_black_box(owner, dataset.class_names, image_size=8, name="words")
    outcome = craft_jax.train(black_box, dataset, config, folder, stream=stream)
    return outcome, black_box, owner, stream.getvalue()


@pytest.mark.slow
def test_a_run_reports_its_sentences_and_its_checkpoint_predicts_what_was_measured(small_set, tmp_path):
    outcome, black_box, _, shown = _run(tmp_path / "x", small_set)
    told, result = outcome.result.wordings, outcome.result
    page = (tmp_path / "x" / training.REPORT).read_text()
    assert "## The texts that it found" in page
    for caption in told["best"]["captions"]:
        assert f"`{caption}`" in page
    assert shown.count("the best so far, loss") >= 2
    assert result.prompts_per_image["best wording"] == 1
    assert set(told["accuracy"]) == {"best wording", "wordings combined"}
    loaded = craft_jax.load_run(tmp_path / "x").tuned
    assert loaded.texts == outcome.tuned.texts
    accuracy = craft_jax.evaluate(loaded, black_box, small_set.test)
    assert accuracy.deployed == pytest.approx(result.accuracy)


def test_one_prompt_an_image_deploys_the_best_sentence(small_set, tmp_path):
    outcome, _, owner, _ = _run(tmp_path / "x", small_set, held_out="none", deploy=DeployConfig(prompts_per_image=1))
    assert outcome.result.chosen == "best wording"
    assert outcome.tuned.prompts_per_image == 1
    assert outcome.tuned.texts[:3] == tuple(outcome.result.wordings["best"]["captions"])
    assert "## The texts that it found" in (tmp_path / "x" / training.REPORT).read_text()
    asked = len(owner.asked)
    (tmp_path / "x" / training.RESULT).unlink()
    again, _, owner, _ = _run(tmp_path / "x", small_set, held_out="none", deploy=DeployConfig(prompts_per_image=1))
    assert dataclasses.replace(again.result, seconds=0) == dataclasses.replace(outcome.result, seconds=0)
    assert len(owner.asked) < asked / 4  # what measures, and nothing that searches


def test_what_a_search_will_ask_is_said_before(small_set):
    chat = ChatConfig(address="http://127.0.0.1:9/v1", model="rules")
    settings = LanguageConfig(proposer="chat", wordings=12, start=6)
    config = Config(learn="texts", language=settings, chat=chat, data=small_set.settings)
    black_box = craft_jax.connect_black_box(Seeing(), small_set.class_names, image_size=8, name="words")
    lines = training.estimate(black_box, small_set, config)
    assert "36 texts, 12 for each class, are asked" in lines[1]
    assert lines[2].startswith("at most 20 calls of the language model rules at http://127.0.0.1:9/v1")
    api = ApiConfig(store="")
    asked_over_http = craft_jax.connect_api("http://127.0.0.1:9", small_set.class_names, form="labels", api=api)
    told = "\n".join(training.estimate(asked_over_http, small_set, config))
    assert "requests" in told


@pytest.mark.slow
def test_a_local_model_is_searched_as_any(small_set, small_black_box, tmp_path):
    config = Config(
        learn="texts",
        data=small_set.settings,
        language=LanguageConfig(wordings=12, start=6, each_round=3),
        run=RunConfig(devices=1, reuse_features=False),
    )
    outcome = craft_jax.train(small_black_box, small_set, config, tmp_path / "x", stream=io.StringIO())
    accuracy = craft_jax.evaluate(outcome.tuned, small_black_box, small_set.test)
    assert accuracy.deployed == pytest.approx(outcome.result.accuracy)
    assert outcome.result.ledger.texts == outcome.result.wordings["wordings"] * 3
