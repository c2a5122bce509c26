"""The collaborative step: refine the predictions, propose, query, update the prompt; `candidates` spreads the queries.

Source: CraFT, algorithm 1 (arXiv 2402.04050). The head goes first here: the predictions that it learns from then also
serve as the centre of the search.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from craft_jax.blackbox import BlackBox, Handle, Ledger, draw_views
from craft_jax.method import candidates, divergence, objectives, prompt, refinement, stacked
from craft_jax.method.candidates import Centre, Loss
from craft_jax.method.divergence import Guard
from craft_jax.method.estimators import GaussNewton, Search, SearchState, gauss_newton
from craft_jax.method.refinement import HeadState, Refinement
from craft_jax.randomness import Stream


class Problem(struct.PyTreeNode):
    """What a run looks at and never changes: replicated to every device once, before the loop.

    Attributes:
      black_box: answers the queries.
      generator: from z to soft prompts.
      views: handle of V views of the N training images, leaves [V, N, ...].
      labels: of the N training images.
      seed_key: of the run; streams and steps are folded in.
      target: what `GaussNewton` fits in every view, less its mean over classes; None for other searches.
    """

    black_box: BlackBox
    generator: prompt.PromptGenerator
    views: Handle
    labels: Int[Array, " N"]
    seed_key: Array
    target: Float[Array, "V N C"] | None = None


class TuningState(NamedTuple):
    """What a step changes, and how many were made."""

    search: SearchState
    guard: Guard
    head: HeadState
    step: Int[Array, ""]


class Metrics(NamedTuple):
    """Of one step, on the training images, with the prompt that the step began with.

    Attributes:
      loss: of the prompt with the head (`loss_of`).
      refined_loss: mean loss of the head over its epochs; `loss` where no head is learnt.
      prompt_accuracy, train_accuracy: without and with the head, in [0, 1].
      damping: of the search's steps, 1 until the search has diverged (`divergence`).
    """

    loss: Float[Array, ""]
    refined_loss: Float[Array, ""]
    prompt_accuracy: Float[Array, ""]
    train_accuracy: Float[Array, ""]
    damping: Float[Array, ""]


class Method(NamedTuple):
    """How a step is carried out.

    Attributes:
      search: over z.
      refinement: the head's functions.
      learn_prompt, learn_head: False leaves the one or the other as it starts.
      refined_share: of f + g(f) in a candidate's cross-entropy, in [0, 1]; the rest is that of f, 0 as published.
      white_box: takes the true gradient past the interface in the place of queries; for studies.
      guarded: whether a search that diverges is taken back (`divergence`).
      query_images: images that answer a query, the same for all candidates of a step; 0 asks for all. Of `GaussNewton`
        views, of which all V N answer.
      labelled_views: the first of the V views show their image's class well enough to train the head.
      epochs: over the images, that train the head in a step.
      consistency: lambda.
      head_consistency_steps: steps during which the head's side of the consistency counts.
      chunk_pairs: pairs of candidates evaluated at once.
      devices: over which they are spread.
      draw_views: `interface.draw_views`, or `candidates.draw_from_shares` where each device holds a share.
    """

    search: Search | GaussNewton
    refinement: Refinement
    learn_prompt: bool
    learn_head: bool
    refined_share: float
    white_box: bool
    guarded: bool
    query_images: int
    labelled_views: int
    epochs: int
    consistency: float
    head_consistency_steps: int
    chunk_pairs: int
    devices: int
    draw_views: Callable[[Handle, Array], Handle] = draw_views


Step = Callable[[Problem, TuningState], tuple[TuningState, Metrics]]


def build_step(method: Method) -> Step:
    """The collaborative step of `method`, to be run on the axis `AXIS`.

    Returns:
      (problem, state) -> (state, metrics).
    """

    def step(problem: Problem, state: TuningState) -> tuple[TuningState, Metrics]:
        views = _draw_views(method, problem, state.step)
        present = problem.generator(state.search.z)
        logits = problem.black_box.predict(present[None], method.draw_views(problem.views, views))
        # The barrier keeps XLA from fusing them with what follows in ways that depend on the devices.
        logits = jax.lax.optimization_barrier(logits.reshape(*views.shape, -1))

        guard, diverged = state.guard, jnp.zeros((), bool)
        if method.guarded and method.learn_prompt:
            # Without the consistency, which grows as the head learns.
            judge = loss_of(method._replace(consistency=0.0), state.head)
            losses = jax.vmap(judge)(logits[0][:, None], problem.labels[:, None])
            guard, diverged = divergence.update(guard, state.search.z, losses)

        head, refined_loss = state.head, jnp.zeros(())
        if method.learn_head:
            weight = jnp.where(state.step < method.head_consistency_steps, method.consistency, 0.0)
            key = _step_key(problem, Stream.BATCHES, state.step)
            trained, refined_loss = method.refinement.train(head, key, logits, problem.labels, weight)
            head = divergence.choose(diverged, head, trained)

        search = state.search
        if isinstance(method.search, GaussNewton):
            search, weights = _fit_whole_answers(method, method.search, problem, search)
            head = refinement.with_linear(head, weights) if method.learn_head else head
        elif method.learn_prompt:
            centre = _centre(method, problem, views, logits[0], state.step)
            told = method.search.tell(search, _fitness(method, problem, head, search, centre))
            search = divergence.apply(method.search, guard, diverged, search, told) if method.guarded else told

        loss = loss_of(method, head)(logits[0], problem.labels)
        metrics = Metrics(
            loss=loss,
            refined_loss=refined_loss if method.learn_head else loss,
            prompt_accuracy=objectives.accuracy(logits[0], problem.labels),
            train_accuracy=objectives.accuracy(refinement.apply(head.params, logits[0]), problem.labels),
            damping=guard.damping,
        )
        return TuningState(search, guard, head, state.step + 1), metrics

    return step


def cost_of_step(method: Method, population_size: int, *, images: int, trained: int) -> Ledger:
    """What one step asks: candidates of `images` (N, or V N where all views answer), and the present prompt of each.

    The head is trained on `trained` of them, N, an epoch.
    """
    prompts = population_size if method.learn_prompt else 0
    answering = method.query_images or images
    centred = answering if isinstance(method.search, GaussNewton) else 0
    return Ledger(
        prompts=prompts,
        search_predictions=prompts * answering,
        centre_predictions=method.epochs * trained + centred,
    )


def _draw_views(method: Method, problem: Problem, number: Array) -> Int[Array, "E N"]:
    """Which view of each image a step looks at: the first row to judge candidates, every row for an epoch."""
    key = _step_key(problem, Stream.TRAIN_VIEWS, number)
    return jax.random.randint(key, (method.epochs, problem.labels.size), 0, method.labelled_views)


def _step_key(problem: Problem, stream: Stream, number: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(problem.seed_key, stream), number)


def _centre(method: Method, problem: Problem, views: Array, logits: Array, number: Array) -> Centre:
    """All images, or the step's minibatch, in the first row of `views`."""
    handle = method.draw_views(problem.views, views[:1])
    if not method.query_images:
        return Centre(handle, problem.labels, logits)
    order = jax.random.permutation(_step_key(problem, Stream.QUERY_IMAGES, number), problem.labels.size)
    rows = order[: method.query_images]
    return Centre(jax.tree.map(lambda leaf: leaf[rows], handle), problem.labels[rows], logits[rows])


def _fit_whole_answers(
    method: Method, search: GaussNewton, problem: Problem, state: SearchState
) -> tuple[SearchState, Float[Array, "C C"]]:
    """A step of Gauss-Newton, and the linear map that refines the predictions of the prompts it leads to."""
    handle, target = _fitted_views(method, problem, state.step)
    total = target.shape[0]

    def answers(z: Float[Array, "K C dim"]) -> Float[Array, "K M C"]:
        flat = candidates.evaluate(
            problem.black_box,
            problem.generator,
            jnp.ravel,
            handle,
            z,
            chunk_pairs=method.chunk_pairs,
            devices=method.devices,
        )
        return flat.reshape(-1, *target.shape)

    # The barriers keep XLA from fusing in ways that depend on the devices, which would change the last bits.
    fixed = jax.lax.optimization_barrier

    with jax.default_matmul_precision("float32"):
        present = fixed(problem.black_box.predict(problem.generator(state.z)[None], handle)[0])
        proposed = fixed(search.propose(state, present, answers(fixed(search.ask(state))), target))
        logits = fixed(stacked.centred(jnp.concatenate([present[None], answers(proposed)])))
        of_present, *of_proposed = fixed(jax.lax.map(lambda one: gauss_newton.objective(one, target), logits) / total)
        moved = search.settle(state, proposed, jnp.stack(of_proposed), of_present)
        least, better = gauss_newton.best(jnp.stack(of_proposed), of_present)
        return fixed((moved, gauss_newton.linear_map(logits[jnp.where(better, 1 + least, 0)], target)))


def _fitted_views(method: Method, problem: Problem, number: Array) -> tuple[Handle, Float[Array, "M C"]]:
    """The views that answer a step of Gauss-Newton, all or a random part, and what is fitted in them."""
    assert problem.target is not None
    views, images, classes = problem.target.shape
    each = jnp.broadcast_to(jnp.arange(views)[:, None], (views, images))
    handle, target = method.draw_views(problem.views, each), problem.target.reshape(-1, classes)
    if not method.query_images:
        return handle, target
    rows = jax.random.permutation(_step_key(problem, Stream.QUERY_IMAGES, number), views * images)
    rows = rows[: method.query_images]
    return jax.tree.map(lambda leaf: leaf[rows], handle), target[rows]


def loss_of(method: Method, head: HeadState) -> Loss:
    """(logits [n, C], labels) -> a prompt's loss, with the head of the moment.

    L = s CE(f + g(f), y) + (1 - s) CE(f, y) + lambda KL(f + g(f) || f), where s is `Method.refined_share`.
    """

    def loss(logits: Float[Array, "n C"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        refined = refinement.apply(head.params, logits)
        terms = (
            objectives.cross_entropy(refined, labels),
            objectives.cross_entropy(logits, labels),
            objectives.prompt_consistency(logits, refined),
        )
        # The barrier keeps XLA from fusing them in ways that depend on the devices, which would change the last bits.
        of_refined, of_plain, consistency = jax.lax.optimization_barrier(terms)
        share = method.refined_share
        return share * of_refined + (1 - share) * of_plain + method.consistency * consistency

    return loss


def _fitness(
    method: Method, problem: Problem, head: HeadState, search: SearchState, centre: Centre
) -> Float[Array, "K B"]:
    """What the search is told: the candidates' fitness, or in a white-box study the gradient."""
    loss = loss_of(method, head)
    if method.white_box:
        return white_box_gradient(problem, loss, search.z, centre)
    fitness_of = (candidates.by_class if problem.generator.per_class else candidates.by_candidate)(loss, centre)
    return candidates.evaluate(
        problem.black_box,
        problem.generator,
        fitness_of,
        centre.handle,
        method.search.ask(search),
        chunk_pairs=method.chunk_pairs,
        devices=method.devices,
    )


def white_box_gradient(problem: Problem, loss: Loss, z: Float[Array, "B dim"], centre: Centre) -> Float[Array, "B dim"]:
    """The true gradient of the loss at z, by the one way past the interface; for studies."""
    local: Any = problem.black_box

    def loss_at(z: Array) -> Array:
        logits = local.predict_for_study(problem.generator(z)[None], centre.handle)[0]
        return loss(logits, centre.labels)

    return jax.grad(loss_at)(z)


def run_steps(step: Step, steps: int) -> Step:
    """`steps` collaborative steps in one call; metrics come back as [steps]."""

    def run(problem: Problem, state: TuningState) -> tuple[TuningState, Metrics]:
        return jax.lax.scan(lambda state, _: step(problem, state), state, length=steps)

    return run
