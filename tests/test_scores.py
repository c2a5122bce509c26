"""Scores as APIs give them, and the logits that are made of them."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft_jax.blackbox.apis import chunks, treatment
from craft_jax.blackbox.apis.chat import Chat
from craft_jax.blackbox.apis.messages import Wrong, picture
from craft_jax.config import ApiConfig

LOGITS = 3 * np.random.default_rng(0).normal(size=(6, 40))


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _centred(logits):
    return logits - logits.mean(axis=-1, keepdims=True)


def _treated(scores, **how):
    return treatment.treat(scores, **{"logit_scale": 100.0} | how)


@pytest.mark.parametrize(
    "scores",
    [_softmax(LOGITS), 100 * _softmax(LOGITS), LOGITS - 1, 20 + LOGITS],
    ids=["probabilities", "per cent", "logits", "positive logits"],
)
def test_logits_come_back_from_whatever_tells_them(scores):
    np.testing.assert_allclose(_centred(_treated(scores).logits), _centred(LOGITS), atol=1e-6)


def test_cosines_are_scaled_and_sigmoids_undone():
    cosines = LOGITS / 20
    np.testing.assert_allclose(_treated(cosines, logit_scale=20.0).logits, LOGITS)
    sigmoids = 1 / (1 + np.exp(4 - LOGITS))
    found = _treated(sigmoids)
    np.testing.assert_allclose(_centred(found.logits), _centred(LOGITS), atol=1e-6)
    assert "do not sum to 1" in found.notes[0]


@pytest.mark.parametrize("decimals", [3, 4, 5])
def test_rounding_is_found_and_what_it_leaves_is_right_to_half_a_step(decimals):
    scores = np.round(_softmax(LOGITS), decimals)
    found = _treated(scores)

    assert found.step == 10.0**-decimals
    assert f"steps of {found.step:g}" in found.notes[0]
    known = scores > 0
    np.testing.assert_allclose(np.exp(found.logits)[known], scores[known], rtol=1e-6)
    assert found.logits[~known].max() < np.log(found.step / 2)
    assert found.weights[~known].max() < found.weights[known].min()
    assert _treated(100 * np.round(_softmax(LOGITS), decimals)).step == found.step
    assert _treated(_softmax(LOGITS)).step == 0


def test_a_single_sure_answer_does_not_change_the_step_that_others_have():
    sure = np.array([[1.0] + [0.0] * 39])

    assert _treated(sure, finest=1e-4).step == 1e-4


def test_the_best_alone_leave_the_rest_below_them():
    scores = _softmax(LOGITS)
    least = np.sort(scores, axis=-1)[:, -10][:, None]
    found = _treated(np.where(scores >= least, scores, np.nan))

    assert (np.where(scores < least, found.logits, -np.inf) < np.log(least)).all()
    assert "leave out 75% of the labels" in found.notes[0]


def test_an_answer_that_says_nothing_favours_no_label():
    scores = np.concatenate([_softmax(LOGITS), np.full((1, 40), np.nan)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _treated(scores, kind=treatment.PROBABILITIES)

    np.testing.assert_array_equal(found.logits[-1], 0.0)
    np.testing.assert_allclose(_centred(found.logits[:-1]), _centred(LOGITS), atol=1e-6)


@given(texts=st.integers(1, 60), most=st.integers(2, 30))
def test_chunks_hold_every_text_and_no_more_than_they_may(texts, most):
    plan = chunks.plan(texts, most)

    assert {place for chunk in plan.chunks for place in chunk} == set(range(texts))
    assert max(map(len, plan.chunks)) <= most
    assert all(len(set(chunk)) == len(chunk) for chunk in plan.chunks)
    assert all(chunk[: plan.references] == plan.chunks[0][: plan.references] for chunk in plan.chunks)


@pytest.mark.parametrize(("decimals", "tolerance"), [(None, 1e-9), (6, 0.02)])
def test_chunks_are_put_on_one_scale_by_their_references(decimals, tolerance):
    plan = chunks.plan(40, 12)
    treated = []
    for chunk in plan.chunks:
        scores = _softmax(LOGITS[:, list(chunk)] / 2)
        treated.append(_treated(scores if decimals is None else np.round(scores, decimals)))
    tied = chunks.tie(plan, [part.logits for part in treated], [part.weights for part in treated])

    np.testing.assert_allclose(_centred(tied), _centred(LOGITS / 2), atol=tolerance)


def _chat(alternatives):
    rows = [{"token": token, "logprob": float(np.log(p))} for token, p in alternatives.items()]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": rows}]}}]}


def test_a_chats_alternatives_are_the_labels_probabilities():
    chat = Chat("http://x/v1", ApiConfig(model="m", marks="letters"))
    request = chat.request(picture(np.zeros((8, 8, 3), np.uint8), "png"), ["cat", "dog", "eel"])
    assert request.address == "http://x/v1/chat/completions"
    assert b"A. cat\\nB. dog\\nC. eel" in request.content

    scores = chat.read(_chat({"A": 0.5, " a": 0.1, "C": 0.2, "The": 0.1}), ["cat", "dog", "eel"])
    np.testing.assert_allclose(scores, [0.6, np.nan, 0.2])


def test_a_chat_that_does_not_do_as_it_is_asked_is_told():
    chat = Chat("http://x/v1", ApiConfig(model="m"))
    labels = [f"label {i}" for i in range(20)]
    with pytest.raises(Wrong, match="single digits; set api.marks=letters"):
        chat.read(_chat({str(digit): 0.1 for digit in range(10)}), labels)
    for _ in range(2):
        assert np.isnan(chat.read(_chat({"Sorry": 0.9}), labels)).all()
    with pytest.raises(Wrong, match="no label's number is among its likeliest tokens, 'Sorry'"):
        chat.read(_chat({"Sorry": 0.9}), labels)
    with pytest.raises(Wrong, match="no log-probabilities"):
        chat.read({"choices": [{"logprobs": None}]}, labels)
