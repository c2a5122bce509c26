"""Prediction refinement: a small residual head on the black box's logits, f + g(f), trained by optax.

g is a two-layer MLP (C -> hidden -> C, ReLU). Source: CraFT, section 3.3 (arXiv 2402.04050).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from craft_jax import objectives


class RefinementHead(nn.Module):
    """f + g(f). The last layer starts at zero, so that an untrained head changes nothing."""

    hidden: int

    @nn.compact
    def __call__(self, logits: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
        """The refined logits."""
        residual = nn.relu(nn.Dense(self.hidden)(logits))
        return logits + nn.Dense(logits.shape[-1], kernel_init=nn.initializers.zeros)(residual)


class HeadState(NamedTuple):
    """The head's parameters and its optimiser's state."""

    params: Any
    opt_state: Any


class Refinement(NamedTuple):
    """The head as pure functions.

    Attributes:
      init: (key, C) -> state.
      train_epoch: (state, key, logits [N, C], labels [N], consistency weight) -> (state, mean loss).
    """

    init: Callable[[Array, int], HeadState]
    train_epoch: Callable[..., tuple[HeadState, Array]]


def apply(params: Any, logits: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """The refined logits f + g(f), float32; the parameters themselves tell the head's width."""
    with jax.default_matmul_precision("float32"):
        return RefinementHead(hidden=params["params"]["Dense_0"]["bias"].size).apply(params, logits)


def build(*, hidden: int, tx: optax.GradientTransformation, batch_size: int) -> Refinement:
    """A head of the given width, trained with `tx` in minibatches of `batch_size` images."""
    head = RefinementHead(hidden)

    def init(key: Array, classes: int) -> HeadState:
        params = head.init(key, jnp.zeros((1, classes)))
        return HeadState(params, tx.init(params))

    def loss(params: Any, logits: Array, labels: Array, mask: Array, consistency: Array) -> Array:
        refined = apply(params, logits)
        tie = objectives.head_consistency(logits, refined, mask)
        return objectives.cross_entropy(refined, labels, mask) + consistency * tie

    def train_epoch(
        state: HeadState, key: Array, logits: Float[Array, "N C"], labels: Int[Array, "N"], consistency: Array
    ) -> tuple[HeadState, Float[Array, ""]]:
        """One pass over the images in random minibatches, on CE(f + g(f), y) + consistency * KL(f || f + g(f))."""
        rows, mask = _minibatches(key, labels.size, batch_size)

        def update(state: HeadState, batch: tuple[Array, Array]) -> tuple[HeadState, Array]:
            rows, mask = batch
            value, gradient = jax.value_and_grad(loss)(state.params, logits[rows], labels[rows], mask, consistency)
            updates, opt_state = tx.update(gradient, state.opt_state, state.params)
            return HeadState(optax.apply_updates(state.params, updates), opt_state), value

        state, losses = jax.lax.scan(update, state, (rows, mask))
        return state, losses.mean()

    return Refinement(init, train_epoch)


def _minibatches(key: Array, images: int, batch_size: int) -> tuple[Array, Array]:
    """A random permutation of the images in rows of `batch_size`, and which entries are images, not padding."""
    batch_size = min(batch_size, images)
    batches = -(-images // batch_size)
    padding = batches * batch_size - images
    rows = jnp.pad(jax.random.permutation(key, images), (0, padding))
    mask = jnp.arange(rows.size) < images
    return rows.reshape(batches, batch_size), mask.reshape(batches, batch_size)
