"""The collaborative step: propose, query, update the prompt, refine the predictions; `devices.Spread` spreads it.

Every device regenerates all candidates, evaluates its share, gathers the losses of all, and computes the same update:
only scalars travel, and any number of devices gives the same bits. Source: CraFT, algorithm 1 (arXiv 2402.04050).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from craft_jax import objectives, prompt, refinement
from craft_jax.blackbox.meter import Ledger
from craft_jax.blackbox.wall import BlackBox, Handle, draw_views
from craft_jax.devices import AXIS
from craft_jax.estimators import Search, SearchState
from craft_jax.randomness import Stream
from craft_jax.refinement import HeadState, Refinement


class Problem(struct.PyTreeNode):
    """What a run looks at and never changes: replicated to every device once, before the loop.

    Attributes:
      black_box: answers the queries.
      generator: from z to soft prompt.
      views: handle of V views of the N training images, leaves [V, N, ...].
      labels: of the N training images.
      seed_key: of the run; streams and steps are folded in.
    """

    black_box: BlackBox
    generator: prompt.PromptGenerator
    views: Handle
    labels: Int[Array, " N"]
    seed_key: Array


class TuningState(NamedTuple):
    """What a step changes, and how many were made."""

    search: SearchState
    head: HeadState
    step: Int[Array, ""]


class Metrics(NamedTuple):
    """Of one step, on the training images.

    Attributes:
      loss: mean loss of the candidates.
      refined_loss: mean loss of the head over its epoch; the candidates' where no head is learnt.
      prompt_accuracy, train_accuracy: of the new prompt, without and with the head, in [0, 1].
    """

    loss: Float[Array, ""]
    refined_loss: Float[Array, ""]
    prompt_accuracy: Float[Array, ""]
    train_accuracy: Float[Array, ""]


class Method(NamedTuple):
    """How a step is carried out.

    Attributes:
      search: over z.
      refinement: the head's functions.
      learn_prompt, learn_head: False leaves the one or the other as it starts.
      judge_refined: whether a candidate's cross-entropy is that of f + g(f), or of f as published.
      epochs: over the images, that train the head in a step.
      consistency: lambda.
      head_consistency_steps: steps during which the head's side of the consistency counts.
      chunk_pairs: antithetic pairs evaluated at once.
      devices: over which the pairs are spread.
      draw_views: `wall.draw_views`, or `draw_from_shares` where each device holds a share of the images.
    """

    search: Search
    refinement: Refinement
    learn_prompt: bool
    learn_head: bool
    judge_refined: bool
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
        views = _draw_views(problem, method.epochs, state.step)
        search, loss = state.search, jnp.zeros(())

        if method.learn_prompt:
            candidates = method.search.ask(search)
            losses = _query(method, problem, state, method.draw_views(problem.views, views[:1]), candidates)
            search, loss = method.search.tell(search, losses), losses.mean()

        tuned = prompt.generate(problem.generator, search.z)
        logits = problem.black_box.predict(tuned[None], method.draw_views(problem.views, views))
        logits = logits.reshape(*views.shape, -1)

        head, refined_loss = state.head, loss
        if method.learn_head:
            weight = jnp.where(state.step < method.head_consistency_steps, method.consistency, 0.0)
            key = _step_key(problem, Stream.BATCHES, state.step)
            head, refined_loss = method.refinement.train(head, key, logits, problem.labels, weight)

        metrics = Metrics(
            loss=loss,
            refined_loss=refined_loss,
            prompt_accuracy=objectives.accuracy(logits[0], problem.labels),
            train_accuracy=objectives.accuracy(refinement.apply(head.params, logits[0]), problem.labels),
        )
        return TuningState(search, head, state.step + 1), metrics

    return step


def cost_of_step(method: Method, population_size: int, images: int) -> Ledger:
    """What one step asks of the black box: the candidates, and the new prompt's predictions for the head."""
    prompts = population_size if method.learn_prompt else 0
    return Ledger(prompts=prompts, search_predictions=prompts * images, head_predictions=method.epochs * images)


def _draw_views(problem: Problem, epochs: int, number: Array) -> Int[Array, "E N"]:
    """Which view of each image a step looks at: the first row to judge candidates, every row for an epoch."""
    views = jax.tree.leaves(problem.views)[0].shape[0]
    key = _step_key(problem, Stream.TRAIN_VIEWS, number)
    return jax.random.randint(key, (epochs, problem.labels.size), 0, views)


def draw_from_shares(share: Handle, views: Int[Array, "E N"]) -> Handle:
    """`draw_views` where each device holds an equal share of the images: it draws its own, and all are gathered.

    A step then moves what it draws, E N images, and each device stores V N / devices. The bits are the same.
    """
    rows = jax.tree.leaves(share)[0].shape[1]
    start = jax.lax.axis_index(AXIS) * rows
    own = jax.lax.dynamic_slice_in_dim(_padded(views, rows), start, rows, axis=1)

    def gather(leaf: Float[Array, "E_rows ..."]) -> Array:
        by_epoch = leaf.reshape(views.shape[0], rows, *leaf.shape[1:])
        everyone = jax.lax.all_gather(by_epoch, AXIS, axis=1, tiled=True)[:, : views.shape[1]]
        return everyone.reshape(views.size, *leaf.shape[1:])

    return jax.tree.map(gather, draw_views(share, own))


def _padded(views: Int[Array, "E N"], rows: int) -> Int[Array, "E N_padded"]:
    """Padded to a multiple of the devices, each with `rows` images; padding draws view 0 and is cut away again."""
    return jnp.pad(views, ((0, 0), (0, jax.lax.axis_size(AXIS) * rows - views.shape[1])))


def _step_key(problem: Problem, stream: Stream, number: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(problem.seed_key, stream), number)


def candidate_loss(method: Method, problem: Problem, state: TuningState) -> Callable[[Array], Array]:
    """Logits [N, C] of a candidate -> its loss, CE + lambda KL(f + g(f) || f) with the head of the moment."""

    def loss(logits: Float[Array, "N C"]) -> Float[Array, ""]:
        refined = refinement.apply(state.head.params, logits)
        judged = refined if method.judge_refined else logits
        tie = objectives.prompt_consistency(logits, refined)
        return objectives.cross_entropy(judged, problem.labels) + method.consistency * tie

    return loss


def _query(
    method: Method, problem: Problem, state: TuningState, handle: Handle, candidates: Float[Array, "K dim"]
) -> Float[Array, " K"]:
    """Every candidate's loss, each device asking for its share."""
    loss = candidate_loss(method, problem, state)

    def query_chunk(chunk: Float[Array, "k dim"]) -> Float[Array, " k"]:
        soft_prompts = prompt.generate(problem.generator, chunk)
        return jax.vmap(loss)(problem.black_box.predict(soft_prompts, handle))

    mine = _share(candidates, method.chunk_pairs, method.devices)
    losses = jax.lax.all_gather(jax.lax.map(query_chunk, mine), AXIS)
    # The barrier keeps XLA from summing losses in the order of devices, which would change the last bits.
    return jax.lax.optimization_barrier(losses.reshape(-1)[: candidates.shape[0]])


def _share(candidates: Float[Array, "K dim"], chunk_pairs: int, devices: int) -> Float[Array, "chunks k dim"]:
    """This device's candidates in chunks of whole pairs, padded so that every device has as many chunks.

    The size of a chunk does not depend on the devices, so neither do the bits of what it computes. Padding repeats a
    candidate, which a local black box answers again for nothing but time; it is neither used nor billed.
    """
    rows = 2 * chunk_pairs
    chunks = -(-candidates.shape[0] // (rows * devices))
    padding = chunks * rows * devices - candidates.shape[0]
    padded = jnp.pad(candidates, ((0, padding), (0, 0)), mode="edge")
    return padded.reshape(devices, chunks, rows, -1)[jax.lax.axis_index(AXIS)]


def run_steps(step: Step, steps: int) -> Step:
    """`steps` collaborative steps in one call; metrics come back as [steps]."""

    def run(problem: Problem, state: TuningState) -> tuple[TuningState, Metrics]:
        return jax.lax.scan(lambda state, _: step(problem, state), state, length=steps)

    return run
