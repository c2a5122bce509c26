"""Prompt, objectives and refinement head against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft_jax.method import calibration, objectives, prompt, refinement

# Prompt generation


def test_the_prompt_starts_at_p0_and_is_affine_in_z():
    start = jnp.ones((4, 8))
    generator = prompt.linear(jax.random.key(0), start, intrinsic_dim=16, std=0.1)
    z, w = jax.random.normal(jax.random.key(1), (2, 1, 16))

    def shift(z):
        return generator(z) - start

    np.testing.assert_array_equal(generator(generator.origin), start)
    np.testing.assert_allclose(shift(2 * z - w), 2 * shift(z) - shift(w), atol=1e-5)
    np.testing.assert_allclose(generator(jnp.stack([z, w]))[1], generator(w), atol=1e-6)


def test_the_projection_has_the_standard_deviation_asked_for():
    generator = prompt.linear(jax.random.key(0), jnp.zeros((4, 192)), intrinsic_dim=512, std=0.2)

    assert generator.projection.std() == pytest.approx(0.2, rel=0.01)


def test_the_bound_clips_each_coordinate_of_z():
    generator = prompt.linear(jax.random.key(0), jnp.zeros((4, 8)), intrinsic_dim=3, std=1.0, bound=5.0)

    np.testing.assert_array_equal(generator(jnp.array([[9.0, -9.0, 2.0]])), generator(jnp.array([[5.0, -5.0, 2.0]])))


def test_a_prompt_per_class_moves_each_class_by_its_own_block_with_the_same_map():
    start = jnp.ones((4, 8))
    one, many = (prompt.linear(jax.random.key(0), start, intrinsic_dim=6, std=0.1, classes=c) for c in (0, 3))
    z = jax.random.normal(jax.random.key(1), (3, 6))

    assert many.origin.shape == (3, 6)
    assert many(z).shape == (3, 4, 8)
    for c in range(3):
        np.testing.assert_allclose(many(z)[c], one(z[c : c + 1]), atol=1e-6)


def test_a_full_prompt_is_p0_and_every_number_of_it_moves_by_its_own_coordinate():
    start = jnp.arange(6.0).reshape(2, 3)
    generator = prompt.full(start, std=0.5)

    np.testing.assert_allclose(generator(jnp.arange(6.0)[None]), 1.5 * start)


def test_zips_prompt_has_the_published_number_of_parameters_and_starts_at_p0():
    start = jnp.ones((8, 16))
    generator = prompt.low_rank(jax.random.key(0), start, intrinsic_dim=62, std=0.02, rank=5)

    assert generator.origin.shape == (1, 417)
    np.testing.assert_array_equal(generator(generator.origin), start)


def test_zips_shared_row_moves_every_token_and_a_row_of_u_moves_its_own():
    generator = prompt.low_rank(jax.random.key(0), jnp.zeros((3, 16)), intrinsic_dim=7, std=0.02, rank=2)
    shared = generator.origin.at[0, -1].set(1.0)
    first_token = generator.origin.at[0, 0].set(1.0)

    assert (jnp.abs(generator(shared)).sum(axis=-1) > 0).all()
    assert (jnp.abs(generator(first_token)).sum(axis=-1) > 0).tolist() == [True, False, False]


# Objectives. With logits log(1), log(3) the softmax is 1/4, 3/4; with equal logits it is 1/2, 1/2.

QUARTER = jnp.log(jnp.array([[1.0, 3.0]]))
HALF = jnp.zeros((1, 2))


def test_cross_entropy_equals_the_hand_worked_value():
    logits = jnp.concatenate([QUARTER, HALF])

    assert objectives.cross_entropy(logits, jnp.array([0, 1])) == pytest.approx((np.log(4) + np.log(2)) / 2)


def test_prompt_consistency_is_the_divergence_of_the_refined_from_the_plain_predictions():
    # KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 log 2 + 1/2 log(2/3)
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)

    assert objectives.prompt_consistency(logits=QUARTER, refined=HALF) == pytest.approx(expected, abs=1e-6)


def test_head_consistency_is_the_divergence_of_the_plain_from_the_refined_predictions():
    # KL((1/4, 3/4) || (1/2, 1/2)) = 1/4 log(1/2) + 3/4 log(3/2)
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)

    assert objectives.head_consistency(logits=QUARTER, refined=HALF) == pytest.approx(expected, abs=1e-6)


def test_soft_cross_entropy_of_certain_targets_is_the_cross_entropy_of_labels():
    logits, labels = jnp.concatenate([QUARTER, HALF]), jnp.array([0, 1])
    soft = objectives.soft_cross_entropy(logits, jax.nn.one_hot(labels, 2), jnp.array([True, True]))

    assert soft == pytest.approx(float(objectives.cross_entropy(logits, labels)))


def test_masked_images_count_in_no_loss():
    logits = jnp.concatenate([QUARTER, HALF])
    refined = jnp.concatenate([HALF, QUARTER])
    targets, mask = jnp.array([[0.3, 0.7], [1.0, 0.0]]), jnp.array([True, False])

    alone = objectives.soft_cross_entropy(QUARTER, targets[:1], mask[:1])
    assert objectives.soft_cross_entropy(logits, targets, mask) == alone
    assert objectives.head_consistency(logits, refined, mask) == objectives.head_consistency(QUARTER, HALF)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.floats(0.1, 30))
def test_consistency_is_never_negative_and_zero_only_between_equal_predictions(seed, scale):
    a, b = scale * jax.random.normal(jax.random.key(seed), (2, 3, 5))

    for consistency in (objectives.prompt_consistency, objectives.head_consistency):
        assert consistency(a, b) > 0
        assert consistency(a, a + 3.0) == pytest.approx(0, abs=1e-5)  # logits count up to a constant


def test_accuracy_counts_the_highest_logit():
    assert objectives.accuracy(jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]]), jnp.array([1, 0, 0])) == pytest.approx(
        2 / 3
    )


# Refinement head


def _refinement(batch_size=8, learning_rate=1e-2):
    return refinement.build(hidden=32, dropout=0.0, mixup=False, tx=optax.adam(learning_rate), batch_size=batch_size)


def _train_head(logits, labels, *, epochs, consistency):
    head = _refinement()
    views = jnp.broadcast_to(logits, (epochs, *logits.shape))
    train = jax.jit(head.train)
    return train(head.init(jax.random.key(0), logits.shape[-1]), jax.random.key(1), views, labels, consistency)[0]


def test_an_untrained_head_changes_nothing():
    logits = jax.random.normal(jax.random.key(0), (6, 5))

    np.testing.assert_array_equal(refinement.apply(_refinement().init(jax.random.key(1), 5).params, logits), logits)


def test_the_head_learns_a_systematic_confusion_of_the_black_box():
    labels = jnp.arange(40) % 4
    confused = jax.nn.one_hot((labels + 1) % 4, 4) + 0.1 * jax.random.normal(jax.random.key(0), (40, 4))
    state = _train_head(confused, labels, epochs=60, consistency=0.0)

    assert objectives.accuracy(confused, labels) < 0.3
    assert objectives.accuracy(refinement.apply(state.params, confused), labels) == 1.0


def test_consistency_holds_the_head_back():
    labels = jnp.arange(40) % 4
    logits = jax.random.normal(jax.random.key(0), (40, 4))

    def divergence(weight):
        state = _train_head(logits, labels, epochs=30, consistency=weight)
        return objectives.head_consistency(logits, refinement.apply(state.params, logits))

    assert divergence(5.0) < 0.5 * divergence(0.0)


def test_an_epoch_in_one_padded_batch_equals_a_batch_of_exactly_the_images():
    logits, labels = jax.random.normal(jax.random.key(0), (7, 3)), jnp.arange(7) % 3
    states = []
    for batch_size in (7, 100):
        head = _refinement(batch_size)
        states.append(head.train(head.init(jax.random.key(1), 3), jax.random.key(2), logits[None], labels, 0.1))

    jax.tree.map(np.testing.assert_array_equal, *states)


def test_the_head_sees_logits_up_to_a_constant():
    logits, labels = jax.random.normal(jax.random.key(0), (40, 4)), jnp.arange(40) % 4
    params = _train_head(logits, labels, epochs=3, consistency=0.0).params

    shifted = refinement.apply(params, logits + 5.0) - 5.0
    np.testing.assert_allclose(shifted, refinement.apply(params, logits), atol=1e-5)


def test_mixup_mixes_logits_and_labels_in_the_same_shares():
    labels = jnp.arange(12) % 3
    targets = jax.nn.one_hot(labels, 3)
    logits, mixed = refinement._mix(jax.random.key(0), 2 * targets, targets)

    np.testing.assert_allclose(logits, 2 * mixed, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(axis=-1), 1, atol=1e-6)
    assert ((mixed > 0.01).sum(axis=-1) == 2).any()


@pytest.mark.parametrize("batch_size", [1, 3, 5, 7, 9])
def test_an_epoch_sees_every_image_once(batch_size):
    rows, mask = refinement._minibatches(jax.random.key(0), 7, batch_size)

    assert sorted(np.asarray(rows)[np.asarray(mask)].tolist()) == list(range(7))


@pytest.mark.parametrize("images", [1, 7, 256, 257, 1600])
def test_the_scale_is_measured_on_images_from_all_over_the_list(images):
    shown = calibration.evenly_spaced(images)

    assert len(shown) == len(set(shown)) == min(images, calibration.IMAGES)
    assert shown[-1] >= images - -(-images // calibration.IMAGES)
    if images <= calibration.IMAGES:
        assert shown.tolist() == list(range(images))
