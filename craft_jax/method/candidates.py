"""How candidates are judged, and spread over the devices that ask.

Every device regenerates all candidates, evaluates its share, gathers the fitness of all, and computes the same update:
only scalars travel, and any number of devices gives the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from craft_jax.blackbox import BlackBox, Handle, draw_views
from craft_jax.method import prompt

AXIS = "devices"  # that the step names, and `distributed.devices` maps over

Loss = Callable[[Array, Array], Array]


class Centre(NamedTuple):
    """What candidates are compared at: the images that answer, and the present prompt's predictions of them.

    Attributes:
      handle: of n images.
      labels: their labels.
      logits: of the present prompt.
    """

    handle: Handle
    labels: Int[Array, " n"]
    logits: Float[Array, "n C"]


def by_candidate(loss: Loss, centre: Centre) -> Callable[[Array], Array]:
    """Logits [n, C] of a candidate -> its loss, as its fitness [1]."""
    return lambda logits: loss(logits, centre.labels)[None]


def by_class(loss: Loss, centre: Centre) -> Callable[[Array], Array]:
    """Logits [n, C] of a candidate -> the fitness of each class [C]: what its own soft prompt did to the loss.

    Class c's soft prompt moves column c of the logits f and no other, so its share of the loss's change is
    sum_n dL/df_nc (f'_nc - f_nc). The derivative is of our own side of the interface: of the loss and the head, at
    answers that the black box gave. One query thus measures a direction for every class, a loss alone only one in all.

    The difference needs logits. Probabilities hide a constant an image, which moves with every class's prompt; less
    their mean over classes (`remote.logits_of`), logits move with others' prompts least.
    """
    slope = jax.grad(loss)(centre.logits, centre.labels)
    return lambda logits: jnp.sum(slope * (logits - centre.logits), axis=0)


def evaluate(
    black_box: BlackBox,
    generator: prompt.PromptGenerator,
    fitness_of: Callable[[Array], Array],
    handle: Handle,
    candidates: Float[Array, "K B dim"],
    *,
    chunk_pairs: int,
    devices: int,
) -> Float[Array, "K F"]:
    """Every candidate's fitness, each device asking for its share.

    Args:
      black_box: that answers.
      generator: from z to soft prompts.
      fitness_of: logits [n, C] of a candidate -> its fitness, or whatever else is kept of them, [F].
      handle: of the n images that answer.
      candidates: z of each.
      chunk_pairs: pairs evaluated at once.
      devices: on the axis `AXIS`.
    """

    def query_chunk(chunk: Float[Array, "k B dim"]) -> Float[Array, "k F"]:
        # The barriers keep XLA from merging a chunk, where it is its device's only one, with what is asked beside it.
        owner, prompts, images = jax.lax.optimization_barrier((black_box, generator(chunk), handle))
        return jax.vmap(fitness_of)(jax.lax.optimization_barrier(owner.predict(prompts, images)))

    mine = _share(candidates, chunk_pairs, devices)
    fitness = jax.lax.all_gather(jax.lax.map(query_chunk, mine), AXIS)
    # The barrier keeps XLA from summing losses in the order of devices, which would change the last bits.
    return jax.lax.optimization_barrier(fitness.reshape(-1, fitness.shape[-1])[: candidates.shape[0]])


def _share(candidates: Float[Array, "K B dim"], chunk_pairs: int, devices: int) -> Float[Array, "chunks k B dim"]:
    """This device's candidates in chunks of whole pairs, padded so that every device has as many chunks.

    The size of a chunk does not depend on the devices, so neither do the bits of what it computes. Padding repeats a
    candidate, which a local black box answers again for nothing but time; it is neither used nor billed.
    """
    rows = 2 * chunk_pairs
    chunks = -(-candidates.shape[0] // (rows * devices))
    padding = chunks * rows * devices - candidates.shape[0]
    padded = jnp.pad(candidates, ((0, padding), (0, 0), (0, 0)), mode="edge")
    return padded.reshape(devices, chunks, rows, *candidates.shape[1:])[jax.lax.axis_index(AXIS)]


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
