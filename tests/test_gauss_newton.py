"""The search that uses whole answers, on black boxes whose answers are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from craft_jax.method import stacked
from craft_jax.method.estimators import GaussNewton, gauss_newton

CLASSES, DIM, IMAGES = 4, 6, 50


@pytest.fixture(scope="module")
def images():
    """50 images of 6 numbers."""
    return jax.random.normal(jax.random.key(0), (IMAGES, DIM))


def _logits(images, z):
    """Column c is linear in class c's own prompt, and moves with no other."""
    return jnp.einsum("md,...cd->...mc", images, z)


def _step(search, state, images, target, answer=_logits):
    present = answer(images, state.z)
    proposed = search.propose(state, present, answer(images, search.ask(state)), target)
    logits = stacked.centred(jnp.concatenate([present[None], answer(images, proposed)]))
    objectives = jnp.stack([gauss_newton.objective(one, target) for one in logits])
    return search.settle(state, proposed, objectives[1:], objectives[0]), objectives


def _run(answer, images, target, steps):
    search = GaussNewton(jax.random.key(1), directions=DIM, sigma=0.02)
    state, seen = search.init(0.1 * jax.random.normal(jax.random.key(2), (CLASSES, DIM))), []
    for _ in range(steps):
        state, objectives = _step(search, state, images, target, answer)
        seen.append(float(objectives[0]))
    return state, seen


@pytest.fixture(scope="module")
def target(images):
    """What prompts of their own would answer."""
    return stacked.centred(_logits(images, jax.random.normal(jax.random.key(3), (CLASSES, DIM))))


def test_linear_answers_are_fitted_in_a_few_steps(images, target):
    _, seen = _run(_logits, images, target, 4)
    assert seen[-1] < 0.05 * seen[0]


def test_answers_that_bend_are_fitted_without_ever_going_up(images, target):
    def bent(images, z):
        return jnp.tanh(_logits(images, z)) + 0.1 * _logits(images, z)

    _, seen = _run(bent, images, target, 12)
    assert seen[-1] < 0.5 * seen[0]
    assert all(after <= before for before, after in zip(seen, seen[1:], strict=False))


def test_the_objective_is_the_distance_at_the_best_map_and_its_penalty(images, target):
    logits = stacked.centred(_logits(images, jax.random.normal(jax.random.key(4), (CLASSES, DIM))))
    weights = gauss_newton.linear_map(logits, target)
    ridge = 3e-3 * jnp.trace(logits.T @ logits) / CLASSES
    multiple = jnp.sum(logits * target) / jnp.sum(logits**2)

    def distance(weights):
        return jnp.sum((logits @ weights - target) ** 2) + ridge * jnp.sum((weights - multiple * jnp.eye(CLASSES)) ** 2)

    np.testing.assert_allclose(gauss_newton.objective(logits, target), distance(weights), rtol=1e-4)
    assert float(jnp.linalg.norm(jax.grad(distance)(weights))) < 1e-3 * float(jnp.sum(target**2))


def test_a_step_that_helps_nobody_is_not_taken_and_trust_shrinks(images):
    search = GaussNewton(jax.random.key(1), directions=3, sigma=0.02)
    state = search.init(jnp.ones((CLASSES, DIM)))
    proposed = jnp.zeros((len(gauss_newton.RADII), CLASSES, DIM))
    worse = jnp.full(len(gauss_newton.RADII), 2.0)
    for objectives in (worse, worse.at[0].set(jnp.nan)):
        stayed = search.settle(state, proposed, objectives, jnp.asarray(1.0))
        np.testing.assert_array_equal(stayed.z, state.z)
        assert stayed.memory.damping > state.memory.damping
        assert stayed.step == 1
    moved = search.settle(state, proposed, worse.at[0].set(0.5), jnp.asarray(1.0))
    np.testing.assert_array_equal(moved.z, proposed[0])
    assert moved.memory.damping < state.memory.damping


def test_what_is_asked_depends_on_the_state_alone():
    search = GaussNewton(jax.random.key(1), directions=3, sigma=0.02)
    state = search.init(jnp.zeros((CLASSES, DIM)))
    np.testing.assert_allclose(search.ask(state), jax.jit(search.ask)(state), atol=1e-7)
    lengths = jnp.linalg.norm(search.ask(state), axis=-1)
    np.testing.assert_allclose(lengths, 0.02, rtol=1e-5)
    assert not np.array_equal(search.ask(state), search.ask(state._replace(step=state.step + 1)))
