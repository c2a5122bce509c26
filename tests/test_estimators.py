"""Searches against known gradients and optima."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft_jax.config import SearchConfig
from craft_jax.method import divergence, estimators
from craft_jax.method.estimators.antithetic import estimate as antithetic_estimate

DIRECTIONS = pytest.mark.parametrize("directions", estimators.DIRECTIONS.values(), ids=estimators.DIRECTIONS.keys())

DIM = 12


def _told(search, state, loss):
    """The state after one step on a loss of the one block [dim]."""
    return search.tell(state, jax.vmap(loss)(search.ask(state)[:, 0])[:, None])


def _gradients(loss, z, directions, *, draws, pairs=4, sigma=0.5, shaping=estimators.raw_losses):
    """Gradient estimates of independent draws: with SGD at rate 1, z moves by minus the estimate."""

    def estimate(seed):
        search = estimators.antithetic(
            jax.random.key(seed),
            pairs=pairs,
            sigma=optax.constant_schedule(sigma),
            tx=optax.sgd(1.0),
            directions=directions,
            shaping=shaping,
        )
        return z - _told(search, search.init(z[None]), loss).z[0]

    return jax.jit(jax.vmap(estimate))(jnp.arange(draws))


def _assert_mean_within_standard_errors(samples, expected, errors=5):
    deviation = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(axis=0) - expected) <= errors * deviation + 1e-6).all()


@DIRECTIONS
def test_the_estimate_of_a_linear_function_is_exact_in_expectation(directions):
    slope = jnp.linspace(-1, 2, DIM)

    samples = _gradients(lambda z: slope @ z, jnp.ones(DIM), directions, draws=2000)

    _assert_mean_within_standard_errors(samples, slope)


@DIRECTIONS
def test_the_mean_estimate_on_a_quadratic_is_the_true_gradient(directions):
    curvature = jnp.linspace(0.1, 3, DIM)
    z = jnp.linspace(-1, 1, DIM)

    samples = _gradients(lambda z: 0.5 * curvature @ jnp.square(z), z, directions, draws=2000)

    _assert_mean_within_standard_errors(samples, curvature * z)


@DIRECTIONS
def test_even_terms_cancel_within_a_pair(directions):
    centre = jnp.linspace(-1, 1, DIM)

    samples = _gradients(lambda z: jnp.sum((z - centre) ** 4) + 7.0, centre, directions, draws=20)

    np.testing.assert_allclose(samples, 0, atol=1e-4)


def test_as_many_orthogonal_pairs_as_dimensions_give_the_exact_gradient_of_a_quadratic():
    curvature, z = jnp.linspace(0.1, 3, DIM), jnp.linspace(-1, 1, DIM)

    samples = _gradients(lambda z: 0.5 * curvature @ jnp.square(z), z, estimators.orthogonal, draws=3, pairs=DIM)

    np.testing.assert_allclose(samples, jnp.broadcast_to(curvature * z, (3, DIM)), atol=1e-4)


def test_orthogonal_directions_are_orthogonal_and_as_long_as_gaussian_ones_on_average():
    directions = estimators.orthogonal(jax.random.key(0), jnp.arange(5), 64)

    np.testing.assert_allclose(directions @ directions.T, 64 * np.eye(5), atol=1e-3)


@DIRECTIONS
def test_each_step_draws_new_directions(directions):
    key = jax.random.key(0)
    first, second = (directions(jax.random.fold_in(key, step), jnp.arange(4), DIM) for step in (0, 1))

    assert (first != second).any(axis=-1).all()


def test_candidates_come_in_mirrored_pairs_around_z():
    search = estimators.antithetic(
        jax.random.key(0),
        pairs=3,
        sigma=optax.constant_schedule(0.1),
        tx=optax.sgd(1.0),
        directions=estimators.gaussian,
        shaping=estimators.raw_losses,
    )
    z = jnp.arange(10.0).reshape(2, 5)
    candidates = search.ask(search.init(z))

    assert candidates.shape == (6, 2, 5)
    np.testing.assert_allclose((candidates[0::2] + candidates[1::2]) / 2, jnp.broadcast_to(z, (3, 2, 5)), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)))
def test_centred_ranks_keep_the_order_and_forget_the_scale(losses):
    losses = jnp.array(losses, jnp.float32).reshape(3, 2)
    ranks = estimators.centred_ranks(losses)

    assert ranks.sum() == pytest.approx(0, abs=1e-6)
    assert (jnp.argsort(ranks.ravel()) == jnp.argsort(losses.ravel())).all()
    np.testing.assert_array_equal(estimators.centred_ranks(jnp.exp(losses)), ranks)


# Blocks


def test_each_blocks_gradient_comes_from_its_own_credits():
    slopes = jnp.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]])
    search = estimators.antithetic(
        jax.random.key(0),
        pairs=3,
        sigma=optax.constant_schedule(0.1),
        tx=optax.sgd(1.0),
        directions=estimators.orthogonal,
        shaping=estimators.raw_losses,
    )
    state = search.init(jnp.zeros((2, 3)))
    fitness = jnp.einsum("kbz,bz->kb", search.ask(state), slopes)

    # As many orthogonal pairs as a block has coordinates give its gradient exactly.
    np.testing.assert_allclose(-search.tell(state, fitness).z, slopes, atol=1e-5)


def test_ranks_are_taken_within_each_block():
    fitness = jnp.array([[1.0, 500.0], [2.0, 100.0], [3.0, 300.0], [4.0, 200.0]])
    directions = jnp.ones((2, 2, 1))
    found = antithetic_estimate(fitness, directions, jnp.asarray(0.5), estimators.centred_ranks)

    # Block 0: ranks (0, 1), (2, 3) of 3; block 1: (3, 0), (2, 1).
    np.testing.assert_allclose(found[:, 0], [-1 / 3, (3 - 0 + 2 - 1) / 3 / 2], atol=1e-6)


# Other searches


def test_a_guided_search_measures_the_previous_estimate_again_and_fresh_directions_across_it():
    slope = jnp.linspace(-1, 2, DIM)
    search = estimators.guided(
        jax.random.key(0),
        pairs=3,
        sigma=optax.constant_schedule(0.1),
        tx=optax.sgd(0.0),
        directions=estimators.gaussian,
        shaping=estimators.raw_losses,
    )
    state = _told(search, search.init(jnp.zeros((1, DIM))), lambda z: slope @ z)
    past = state.memory[0].trace[0]
    directions = search.ask(state)[::2, 0] / 0.1

    np.testing.assert_allclose(directions @ directions.T, DIM * np.eye(3), atol=1e-3)
    np.testing.assert_allclose(directions[0], past * DIM**0.5 / jnp.linalg.norm(past), rtol=1e-4)


def test_a_guided_searchs_estimate_of_a_linear_function_only_gets_nearer_to_its_gradient():
    slope = jnp.linspace(-1, 2, DIM)
    search = estimators.guided(
        jax.random.key(0),
        pairs=3,
        sigma=optax.constant_schedule(0.1),
        tx=optax.sgd(0.0),
        directions=estimators.gaussian,
        shaping=estimators.raw_losses,
    )
    state, cosines = search.init(jnp.zeros((1, DIM))), []
    for _ in range(25):
        state = _told(search, state, lambda z: slope @ z)
        past = state.memory[0].trace[0]
        cosines.append(float(past @ slope / jnp.linalg.norm(past) / jnp.linalg.norm(slope)))

    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.9 > cosines[0]


def _mean_step(search, z, loss, draws=4000):
    return jax.jit(jax.vmap(lambda key: z[0] - _told(search(key), search(key).init(z), loss).z[0]))(
        jax.random.split(jax.random.key(0), draws)
    )


def test_spsas_estimate_of_a_linear_function_is_exact_in_expectation():
    slope, z = jnp.linspace(-1, 2, 4), jnp.ones((1, 4))

    def search(key):
        return estimators.spsa(key, pairs=5, sigma=optax.constant_schedule(0.01), tx=optax.sgd(1.0))

    _assert_mean_within_standard_errors(_mean_step(search, z, lambda z: slope @ z), slope)


def test_the_one_sided_estimate_of_a_linear_function_points_along_its_gradient():
    slope, z, eps = jnp.linspace(-1, 2, 4), jnp.ones((1, 4)), 0.1

    def search(key):
        sigma = optax.constant_schedule(eps / 2)  # directions have length sqrt(4)
        return estimators.one_sided(key, directions=6, sigma=sigma, draw=estimators.sphere, tx=optax.sgd(1.0))

    # E[u u^T] = I / dim on the unit sphere, and the published estimate is scaled by s = 1 / eps.
    _assert_mean_within_standard_errors(_mean_step(search, z, lambda z: slope @ z), slope / 4 / eps)


def test_the_one_sided_search_asks_for_the_point_itself_first():
    search = estimators.one_sided(
        jax.random.key(0),
        directions=3,
        sigma=optax.constant_schedule(0.1),
        draw=estimators.sphere,
        tx=optax.sgd(1.0),
    )
    candidates = search.ask(search.init(jnp.ones((1, 4))))

    np.testing.assert_array_equal(candidates[0], jnp.ones((1, 4)))
    np.testing.assert_allclose(jnp.linalg.norm(candidates[1:] - 1.0, axis=-1), 0.2, rtol=1e-5)


def test_cma_es_asks_the_same_twice_and_finds_the_optimum_of_a_quadratic():
    optimum = jnp.linspace(-1, 1, 6)
    search = estimators.cma_es(jax.random.key(0), population_size=12, sigma=0.5, shape=(1, 6))
    state = search.init(jnp.zeros((1, 6)))
    np.testing.assert_array_equal(search.ask(state), search.ask(state))

    def step(state, _):
        return _told(search, state, lambda z: jnp.sum(jnp.square(z - optimum))), None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=120))(state)

    np.testing.assert_allclose(state.z[0], optimum, atol=1e-2)


def test_cma_es_adapts_its_step_size_by_the_cumulative_rule():
    """Hansen's tutorial, equations 43 to 45 and the defaults of its table 1, after one generation from C = I."""
    n, population, sigma = 6, 12, 0.5
    search = estimators.cma_es(jax.random.key(0), population_size=population, sigma=sigma, shape=(1, n))
    state = _told(search, search.init(jnp.zeros((1, n))), lambda z: jnp.sum(jnp.square(z - 1.0)))

    weights = np.log((population + 1) / 2) - np.log(np.arange(1, population // 2 + 1))
    mu_eff = weights.sum() ** 2 / np.square(weights).sum()
    c = (mu_eff + 2) / (n + mu_eff + 5)
    damping = 1 + 2 * max(0, np.sqrt((mu_eff - 1) / (n + 1)) - 1) + c
    path = np.sqrt(c * (2 - c) * mu_eff) * np.asarray(state.z) / sigma
    expected_norm = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
    adapted = sigma * np.exp(c / damping * (np.linalg.norm(path) / expected_norm - 1))
    np.testing.assert_allclose(state.memory.std, adapted, rtol=1e-4)


def test_the_exact_search_asks_nothing_and_descends_the_gradient_that_it_is_told():
    search = estimators.exact(optax.sgd(0.5))
    state = search.init(jnp.ones((1, 3)))

    assert search.ask(state).shape == (0, 1, 3)
    np.testing.assert_allclose(search.tell(state, jnp.full((1, 3), 2.0)).z, 0.0)


@pytest.mark.parametrize("shaping", ["none", "ranks"])
@pytest.mark.parametrize("estimator", ["antithetic", "guided"])
def test_8000_evaluations_bring_a_512_dimensional_quadratic_nine_tenths_of_the_way_to_its_optimum(estimator, shaping):
    dim, steps = 512, 200
    optimum = jax.random.normal(jax.random.key(1), (dim,))

    def loss(z):
        return jnp.mean(jnp.square(z - optimum))

    chosen = SearchConfig(estimator=estimator, population_size=40, sigma=0.1, learning_rate=0.1, shaping=shaping)
    search = estimators.build(chosen, jax.random.key(0), jnp.zeros((1, dim)), steps)
    state, _ = jax.lax.scan(
        lambda state, _: (_told(search, state, loss), None), search.init(jnp.zeros((1, dim))), length=steps
    )

    assert loss(state.z[0]) < 0.1 * loss(jnp.zeros(dim))


# Clipping, schedules, divergence


def test_a_clip_of_minus_one_is_zips_square_root_of_the_number_of_coordinates():
    chosen = SearchConfig(estimator="white-box", optimizer="sgd", schedule="constant", learning_rate=1.0, clip=-1.0)
    search = estimators.build(chosen, jax.random.key(0), jnp.zeros((1, 9)), 10)
    steep, gentle = jnp.full((1, 9), 100.0), jnp.full((1, 9), 0.5)

    state = search.init(jnp.zeros((1, 9)))
    assert jnp.linalg.norm(search.tell(state, steep).z) == pytest.approx(3.0)
    np.testing.assert_allclose(search.tell(state, gentle).z, -gentle)


def test_spalls_schedule_shortens_perturbations_and_steps_by_its_power_laws():
    chosen = SearchConfig(estimator="spsa", population_size=2, sigma=0.01, schedule="spall", optimizer="sgd")
    search = estimators.build(chosen, jax.random.key(0), jnp.zeros((1, 400)), 10)
    state = search.init(jnp.zeros((1, 400)))

    def largest(step):
        return float(jnp.abs(search.ask(state._replace(step=jnp.asarray(step)))).max())

    assert largest(0) == pytest.approx(0.01, rel=0.02)
    assert largest(99) == pytest.approx(0.01 / 100**0.1, rel=0.02)


@pytest.mark.parametrize("k", [1, 100])
def test_spalls_schedule_shortens_steps_by_zips_power_law(k):
    chosen = SearchConfig(estimator="white-box", schedule="spall", optimizer="sgd", learning_rate=0.01)
    search = estimators.build(chosen, jax.random.key(0), jnp.zeros((1, 4)), steps=10)
    state = search.init(jnp.zeros((1, 4)))._replace(step=jnp.asarray(k - 1))

    np.testing.assert_allclose(search.tell(state, jnp.ones((1, 4))).z, -0.01 / (k + 1) ** 0.4, rtol=1e-5)


def test_a_search_that_goes_astray_returns_to_its_best_point_and_halves_its_steps():
    search = estimators.exact(optax.sgd(1.0))
    state = search.init(jnp.zeros((1, 2)))
    guard = divergence.init(state.z)
    best = jnp.ones((1, 2))

    guard, diverged = divergence.update(guard, state.z, jnp.full(4, 2.0))
    assert not diverged
    guard, _ = divergence.update(guard, best, jnp.full(4, 1.0))
    for bad in (3.1, jnp.nan):
        guard, diverged = divergence.update(guard, 100 * best, jnp.full(4, bad))
        assert diverged
    lost = state._replace(z=100 * best)
    back = divergence.apply(search, guard, diverged, lost, search.tell(lost, jnp.full((1, 2), jnp.nan)))

    np.testing.assert_array_equal(back.z, best)
    told = search.tell(back, jnp.full((1, 2), 4.0))
    np.testing.assert_allclose(divergence.apply(search, guard, jnp.asarray(False), back, told).z, best - 4.0 / 4)


def test_a_healthy_search_holds_no_nan_where_jax_stops_at_one():
    z = jnp.zeros((1, 2))
    with jax.debug_nans(True):
        search = estimators.cma_es(jax.random.key(0), population_size=4, sigma=1.0, shape=(1, 2))
        guard, diverged = divergence.update(divergence.init(z), z, jnp.full(4, 2.0))
        np.testing.assert_array_equal(search.init(z).z, z)

    assert not diverged
    assert guard.first_loss == 2.0
    old = guard._replace(first_loss=jnp.asarray(jnp.nan))  # as checkpoints once held one that was not known
    assert divergence.update(old, z, jnp.full(4, 3.0))[0].first_loss == 3.0


@pytest.mark.parametrize(("images", "expected"), [(4, False), (400, True)])
def test_a_loss_that_chance_can_make_of_few_images_is_not_astray(images, expected):
    guard, _ = divergence.update(divergence.init(jnp.zeros((1, 2))), jnp.zeros((1, 2)), jnp.full(images, 1.0))
    losses = jnp.tile(jnp.array([0.5, 2.5]), images // 2)  # mean 1.5, three standard errors 1.5 and 0.15

    assert divergence.update(guard, jnp.ones((1, 2)), losses)[1] == expected


def test_a_fresh_start_at_the_best_point_does_not_turn_the_learning_rate_back():
    chosen = SearchConfig(estimator="white-box", optimizer="adam", schedule="cosine", learning_rate=1.0)
    search = estimators.build(chosen, jax.random.key(0), jnp.zeros((1, 3)), steps=10)
    slope = jnp.ones((1, 3))
    state = search.init(jnp.zeros((1, 3)))
    for _ in range(8):
        state = search.tell(state, slope)
    guard = divergence.init(state.z)
    back = divergence.apply(search, guard, jnp.asarray(True), state, search.tell(state, slope))

    assert back.step == 9
    # Adam's first step is as long as the rate, which a cosine from 1 over 10 steps has brought to (1 + cos 0.9 pi) / 2.
    np.testing.assert_allclose(back.z - search.tell(back, slope).z, (1 + np.cos(0.9 * np.pi)) / 2, rtol=1e-4)
