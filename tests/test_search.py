"""The search against the real black box: fitness, calibration, minibatches, recipes, and the choice at the end."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from craft_jax import data, training
from craft_jax.config import Config, ConsistencyConfig, ProbeConfig, PromptConfig, SearchConfig, recipes
from craft_jax.errors import UserError
from craft_jax.method import calibration, candidates, collaborative, objectives, refinement
from craft_jax.method.candidates import Centre
from craft_jax.training import assembly, checkpoints, recorder, selection


def _train(black_box, dataset, config, workdir):
    return training.train(black_box, dataset, config, workdir, stream=io.StringIO())


def _run(black_box, dataset, config, **search):
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, **search))
    return assembly.assemble(black_box, dataset, config)


def _centre(run, black_box, z):
    handle = jax.tree.map(lambda leaf: leaf[0], run.problem.views)
    logits = black_box.predict(run.problem.generator(z)[None], handle)[0]
    return Centre(handle, run.problem.labels, logits)


def _wild_head(run):
    """A head that refines much, so that its slope matters."""
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(7), leaf.shape), run.state.head)


# Credits


@pytest.mark.slow
def test_credits_by_class_give_the_true_gradient_of_every_classs_prompt(small_black_box, small_set, small_config):
    """As many small orthogonal pairs as a block has coordinates must find what the white box says."""
    config = dataclasses.replace(small_config, prompt=PromptConfig(intrinsic_dim=4, std=0.01))
    run = _run(small_black_box, small_set, config, population_size=8, sigma=0.05)
    z = 0.3 * jax.random.normal(jax.random.key(3), run.state.search.z.shape)
    loss, centre = collaborative.loss_of(run.method, _wild_head(run)), _centre(run, small_black_box, z)
    state = run.state.search._replace(z=z)
    asked = run.method.search.ask(state)
    answers = small_black_box.predict(run.problem.generator(asked), centre.handle)
    fitness = jax.vmap(candidates.by_class(loss, centre))(answers)

    slopes = (fitness[0::2] - fitness[1::2]) / (2 * 0.05)
    directions = (asked[0::2] - z) / 0.05
    estimate = jnp.einsum("pb,pbz->bz", slopes, directions) / len(directions)
    gradient = collaborative.white_box_gradient(run.problem.replace(black_box=small_black_box), loss, z, centre)
    np.testing.assert_allclose(estimate, gradient, rtol=0.02, atol=0.01 * float(jnp.abs(gradient).max()))


@pytest.mark.parametrize(("fitness", "share"), [("prompt", 0.0), ("both", 0.5), ("refined", 1.0)])
def test_a_candidate_is_judged_by_its_own_predictions_the_refined_ones_or_their_mean(
    small_black_box, small_set, small_config, fitness, share
):
    config = dataclasses.replace(small_config, consistency=ConsistencyConfig(weight=0.25))
    run = _run(small_black_box, small_set, config, fitness=fitness)
    head = _wild_head(run)
    _, labels, logits = _centre(run, small_black_box, run.state.search.z)
    refined = refinement.apply(head.params, logits)

    of_plain, of_refined = objectives.cross_entropy(logits, labels), objectives.cross_entropy(refined, labels)
    consistency = objectives.prompt_consistency(logits, refined)
    loss = collaborative.loss_of(run.method, head)(logits, labels)
    assert abs(of_plain - of_refined) > 0.01
    np.testing.assert_allclose(loss, share * of_refined + (1 - share) * of_plain + 0.25 * consistency, rtol=1e-5)


def test_a_classs_prompt_moves_its_own_column_of_the_logits_alone(small_black_box, small_set, small_config):
    run = _run(small_black_box, small_set, small_config)
    z = run.state.search.z
    centre, moved = _centre(run, small_black_box, z), _centre(run, small_black_box, z.at[1].set(1.0))
    changed = jnp.abs(moved.logits - centre.logits).max(axis=0)

    assert changed[1] > 0.01
    np.testing.assert_allclose(changed[jnp.array([0, 2])], 0, atol=1e-4)


def test_the_same_prompt_for_every_class_answers_as_the_one_they_share(small_black_box, small_set, small_config):
    run = _run(small_black_box, small_set, small_config)
    handle = jax.tree.map(lambda leaf: leaf[0], run.problem.views)
    shared = small_black_box.initial_prompt + 0.02 * jax.random.normal(jax.random.key(0), (2, 4, 192))
    apart = jnp.broadcast_to(shared[:, None], (2, 3, 4, 192))

    np.testing.assert_allclose(
        small_black_box.predict(apart, handle), small_black_box.predict(shared, handle), atol=1e-4
    )


# The scale by the first queries


def test_the_measured_scale_does_not_depend_on_the_scale_of_the_logits():
    logits = jax.random.normal(jax.random.key(0), (calibration.RUNGS * 2 + 1, 5, 3))

    np.testing.assert_allclose(calibration.curvature(7 * logits), calibration.curvature(logits), rtol=1e-5)


def test_the_measured_scale_is_the_last_before_curvature_outgrows_the_slope():
    start = jnp.ones((4, 8))
    prompts = calibration.perturbed(jax.random.key(0), start, classes=0)
    moves = prompts - start
    slope = jax.random.normal(jax.random.key(1), start.shape)
    linear = jnp.einsum("kij,ij->k", moves, slope)
    answers = jnp.stack([linear, jnp.zeros(len(prompts))], axis=-1)[:, None]
    bent = answers + jnp.stack([0.2 * linear**2, jnp.zeros(len(prompts))], axis=-1)[:, None]

    assert calibration.scale(start, answers) == pytest.approx(float(calibration.sizes(start)[-1]))
    shares = np.asarray(calibration.curvature(bent))
    expected = calibration.sizes(start)[max(int(np.argmax(shares > 0.5)) - 1, 0)]
    assert calibration.scale(start, bent) == pytest.approx(float(expected))


@pytest.mark.parametrize("context", ["full", "low-rank"])
def test_every_map_is_measured_so_that_sigma_1_moves_the_prompt_alike(
    context, small_black_box, small_set, small_config
):
    def moved_by_sigma(context):
        settings = PromptConfig(context=context, intrinsic_dim=32)
        generator = _run(
            small_black_box, small_set, dataclasses.replace(small_config, prompt=settings)
        ).problem.generator
        noise = jax.random.normal(jax.random.key(0), (200, *generator.origin.shape))
        return float(jnp.std(generator(generator.origin + noise) - small_black_box.initial_prompt))

    assert moved_by_sigma(context) == pytest.approx(moved_by_sigma("unified"), rel=0.1)


def test_the_scale_is_paid_for_from_the_budget(small_black_box, small_set, small_config):
    measured = _run(small_black_box, small_set, small_config)
    given = _run(small_black_box, small_set, dataclasses.replace(small_config, prompt=PromptConfig(std=0.01)))

    assert (measured.black_box.meter.ledger.prompts, given.black_box.meter.ledger.prompts) == (21, 0)
    assert measured.config.steps == 6
    assert given.config.steps == 8


# Which images answer


def test_a_minibatch_answers_every_candidate_of_a_step_and_is_billed_as_such(
    tmp_path, small_black_box, small_set, small_config
):
    config = dataclasses.replace(
        small_config, search=SearchConfig(estimator="antithetic", sigma=1.0, population_size=8, query_images=5)
    )
    result = _train(small_black_box, small_set, config, tmp_path / "x").result

    assert result.ledger.search_predictions == 21 * 12 + 48 * 5


def test_the_images_of_a_minibatch_change_from_step_to_step(small_black_box, small_set, small_config):
    run = _run(small_black_box, small_set, small_config, population_size=8, query_images=5)
    labels = []
    for step in (0, 0, 1):
        views = collaborative._draw_views(run.method, run.problem, jnp.asarray(step))
        logits = jnp.arange(12.0)[:, None] * jnp.ones(3)
        centre = collaborative._centre(run.method, run.problem, views, logits, jnp.asarray(step))
        rows = centre.logits[:, 0].astype(int)
        np.testing.assert_array_equal(centre.labels, run.problem.labels[rows])
        np.testing.assert_array_equal(centre.handle, run.problem.views[views[0, rows], rows])
        labels.append(sorted(rows.tolist()))

    assert labels[0] == labels[1] != labels[2]
    assert len(set(labels[0])) == 5


# Recipes


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in recipes.RECIPES if not name.startswith("llm")],  # they ask a language model: test_language.py
)
def test_every_recipe_runs_and_spends_no_more_than_its_budget(name, tmp_path, small_black_box, small_set, small_config):
    asked = ProbeConfig(texts=60)
    config = recipes.apply(dataclasses.replace(small_config, query_budget=600, held_out="none", probe=asked), name)
    run = dataclasses.replace(config.run, steps_per_call=1, eval_every=0, checkpoint_every=1)
    search = dataclasses.replace(config.search, population_size=min(config.search.population_size, 120))
    config = dataclasses.replace(config, run=run, search=search)
    tuned, result = _train(small_black_box, small_set, config, tmp_path)

    assert result.queries <= 600
    assert (result.queries == 0) == (name == "head-only")
    rows = [json.loads(line) for line in (tmp_path / training.METRICS).read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows)
    start = np.broadcast_to(small_black_box.initial_prompt, tuned.prompt.shape)
    assert np.array_equal(tuned.prompt, start) == (name in ("head-only", "probe", "api", "mutation"))
    assert ("White box" in (tmp_path / training.REPORT).read_text()) == (name == "white-box")


def test_an_unknown_recipe_is_named_with_the_known_ones():
    with pytest.raises(UserError, match="no recipe 'crafty'; there are craft, probe, api, by-class, unified, paper"):
        recipes.apply(Config(), "crafty")


@pytest.mark.slow
def test_the_white_box_gradient_descends_faster_than_its_estimate(tmp_path, small_black_box, small_set, small_config):
    def last_loss(estimator):
        config = dataclasses.replace(
            small_config,
            learn="prompt",
            search=SearchConfig(estimator=estimator, population_size=8, learning_rate=0.3),
        )
        _train(small_black_box, small_set, config, tmp_path / estimator)
        rows = (tmp_path / estimator / training.METRICS).read_text().splitlines()
        return json.loads(rows[-1])["loss"]

    assert last_loss("white-box") < last_loss("antithetic")


def test_a_step_that_finds_no_finite_loss_goes_back_to_the_best_point_and_leaves_the_head(
    small_black_box, small_set, small_config
):
    run = assembly.assemble(small_black_box, small_set, small_config)
    placed, axes = assembly.place(run, small_black_box)
    step = run.spread.compile(collaborative.run_steps(collaborative.build_step(run.method), 1), axes)
    good = run.spread.fetch(step(placed, run.spread.mapped(run.state))[0])
    lost = good._replace(search=good.search._replace(z=np.full_like(good.search.z, np.nan)))
    back = run.spread.fetch(step(placed, run.spread.mapped(lost))[0])

    np.testing.assert_array_equal(back.search.z, good.guard.best_z)
    jax.tree.map(np.testing.assert_array_equal, back.head, good.head)
    assert (back.search.step, back.guard.damping) == (2, 0.5)


# The choice at the end


def _misled(run):
    """The models of a run that has learnt nothing but a head that is of no use."""
    models = recorder.candidate_models(run, run.state)
    tuned = models[selection.REFINED]
    misled = jax.tree.map(lambda leaf: leaf + 5 * jax.random.normal(jax.random.key(0), leaf.shape), tuned.head)
    return models | {selection.REFINED: tuned._replace(head=misled)}


def test_a_misleading_head_is_left_out(small_black_box, small_set, small_config):
    run = _run(small_black_box, small_set, small_config)
    models = _misled(run)
    said = selection.answers(run.black_box, models, run.held_out, run.held_out_labels.size)
    losses = selection.losses(said, run.held_out_labels)

    assert losses[selection.PROMPT] < losses[selection.REFINED]
    assert losses[selection.PROMPT] == pytest.approx(losses[selection.ZERO_SHOT])
    chosen = models[selection.PROMPT]
    logits = jax.random.normal(jax.random.key(1), (4, 3))
    np.testing.assert_array_equal(refinement.apply(chosen.head, logits), logits)


def test_the_checkpoint_predicts_as_chosen(tmp_path, small_black_box, small_set, small_config):
    outcome = _train(small_black_box, small_set, small_config, tmp_path / "x")
    kept = checkpoints.open_for_prediction(tmp_path / "x").tuned
    losses = outcome.result.held_out["loss"]

    assert outcome.result.chosen == min(losses, key=losses.get)
    np.testing.assert_array_equal(kept.prompt, outcome.tuned.prompt)
    for ours, theirs in zip(jax.tree.leaves(kept.head), jax.tree.leaves(outcome.tuned.head), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shots_that_are_held_out_are_a_quarter_of_each_class_and_not_trained_on(small_set):
    kept, held = data.hold_out(small_set, "shots", seed=1)

    assert sorted(item.label for item in held) == [0, 1, 2]
    assert not {item.image for item in held} & {item.image for item in kept.train}
    assert len(kept.train) + len(held) == len(small_set.train)


def test_a_photograph_that_was_drawn_twice_is_held_out_whole_or_not_at_all(small_data):
    pool = data.read(small_data)
    few = dataclasses.replace(pool, train=tuple(item for i, item in enumerate(pool.train) if i % 3))
    drawn = data.draw_shots(few, shots=16, seed=1, with_replacement=True)
    kept, held = data.hold_out(drawn, "shots", seed=1)
    held_content, kept_content = ({item.image.fingerprint() for item in part} for part in (held, kept.train))

    assert len(held_content) == 3
    assert not held_content & kept_content
    assert len(kept.train) + len(held) == len(drawn.train)


def test_one_shot_cannot_be_held_out(small_set):
    alone = dataclasses.replace(small_set, train=small_set.train[::4])

    with pytest.raises(UserError, match="held_out=shots leaves class 'pizza' without a training photograph"):
        data.hold_out(alone, "shots", seed=1)


def test_without_held_out_photographs_the_refined_prompt_is_deployed(
    tmp_path, small_black_box, small_set, small_config
):
    result = _train(small_black_box, dataclasses.replace(small_set, val=()), small_config, tmp_path / "x").result

    assert (result.chosen, result.held_out) == (selection.REFINED, {"images": 0, "loss": {}})
    assert result.accuracy == result.refined
