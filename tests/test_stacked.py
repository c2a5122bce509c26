"""The head in closed form on stacked answers."""

import numpy as np
import pytest

from craft_jax.method import stacked

CLASSES, TEXTS, IMAGES = 3, 12, 60


@pytest.fixture(scope="module")
def drawn():
    """Answers of three classes that overlap, measured by 12 random texts, with a constant an image; labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    features = rng.normal(size=(CLASSES, 5))[labels] + rng.normal(size=(IMAGES, 5))
    return features @ rng.normal(size=(5, TEXTS)) + rng.normal(size=(IMAGES, 1)), labels


def _accuracy(head, answers, labels):
    return np.mean(np.argmax(stacked.apply(head, answers), axis=-1) == labels)


def test_the_statistics_of_two_sets_of_images_add_up_to_those_of_both(drawn):
    answers, labels = drawn
    parts = [stacked.statistics(answers[part], labels[part], CLASSES) for part in (slice(20), slice(20, None))]
    for one, both in zip(stacked.add(*parts), stacked.statistics(answers, labels, CLASSES), strict=True):
        np.testing.assert_allclose(one, both, rtol=1e-12)


def test_a_constant_an_image_such_as_softmaxs_changes_no_prediction(drawn):
    answers, labels = drawn
    shift = np.random.default_rng(1).normal(size=(IMAGES, 1))
    for held_out in (slice(0), slice(20)):
        plain, shifted = (
            stacked.apply(stacked.fit(stacked.statistics(a, labels, CLASSES), 20, a[held_out], labels[held_out]), a)
            for a in (answers, answers + shift)
        )
        np.testing.assert_allclose(shifted - shift, plain, atol=1e-4)


def test_the_head_knows_what_the_class_names_alone_do_not(drawn):
    answers, labels = drawn
    head = stacked.fit(stacked.statistics(answers, labels, CLASSES), IMAGES / CLASSES)
    assert _accuracy(head, answers, labels) > 0.75
    assert np.mean(np.argmax(answers[:, :CLASSES], axis=-1) == labels) < 0.6


def test_the_discriminant_solves_its_own_equation(drawn):
    """W = S^-1 M, written down again without principal axes where they are not scaled."""
    answers, labels = drawn
    of = stacked.statistics(answers, labels, CLASSES)
    ((weights, bias),) = stacked.discriminants(of, [0.5], whitening=0.0)
    stack = answers - answers.mean(axis=1, keepdims=True)
    mean = stack.mean(axis=0)
    means = np.stack([stack[labels == c].mean(axis=0) for c in range(CLASSES)])
    within = sum((stack[labels == c] - means[c]).T @ (stack[labels == c] - means[c]) for c in range(CLASSES)) / IMAGES
    total = (stack - mean).T @ (stack - mean) / IMAGES
    rank = 5
    inverse = np.linalg.inv(within + 0.5 * np.trace(total) / rank * np.eye(TEXTS))
    scores = (stack - mean) @ inverse @ (means - mean).T - np.diag((means - mean) @ inverse @ (means - mean).T) / 2
    scores -= scores.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(stack @ weights + bias, scores, atol=1e-8)


def test_permuting_the_classes_permutes_the_logits(drawn):
    answers, labels = drawn
    order = np.array([2, 0, 1])
    moved = answers.copy()
    moved[:, :CLASSES] = answers[:, order]
    inverse = np.argsort(order)
    plain = stacked.apply(stacked.fit(stacked.statistics(answers, labels, CLASSES), 20), answers)
    permuted = stacked.apply(stacked.fit(stacked.statistics(moved, inverse[labels], CLASSES), 20), moved)
    np.testing.assert_allclose(permuted, plain[:, order], atol=1e-3)


def test_rank_counts_the_independent_numbers_of_an_image(drawn):
    answers, labels = drawn
    assert stacked.rank(stacked.statistics(answers, labels, CLASSES)) == 5


def test_without_held_out_images_the_rule_stands_and_few_move_it_little(drawn):
    answers, labels = drawn
    of = stacked.statistics(answers, labels, CLASSES)
    rule, none = stacked.fit(of, 20), stacked.fit(of, 20, answers[:0], labels[:0])
    np.testing.assert_array_equal(rule.weights, none.weights)
    wrong = (labels + 1) % CLASSES
    far = [
        np.linalg.norm(stacked.fit(of, 20, answers[:few], wrong[:few]).weights - rule.weights) for few in (3, IMAGES)
    ]
    # Held-out images that contradict the training images speak against the head, the more of them the louder.
    assert 0 < far[0] < far[1]


def test_answers_that_tell_images_not_apart_leave_zero_shot():
    answers = np.broadcast_to(np.arange(4.0), (6, 4))
    head = stacked.fit(stacked.statistics(answers, np.arange(6) % 2, 2), 3)
    np.testing.assert_array_equal(stacked.apply(head, answers), answers[:, :2])
