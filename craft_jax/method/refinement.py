"""Prediction refinement: a small residual head on the black box's logits, f + g(f), trained by optax.

g is a two-layer MLP (C -> hidden -> C, ReLU). Source: CraFT, section 3.3 (arXiv 2402.04050).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from craft_jax.method import objectives

_LINEAR = "linear"


class RefinementHead(nn.Module):
    """f + g(f). The last layer starts at zero, so that an untrained head changes nothing.

    g sees the logits less their mean over classes: CLIP's cosines share a large offset that no softmax notices but that
    would drown what differs between images. `linear` adds a linear map of them to g, which may be known in closed form.
    """

    hidden: int
    dropout: float = 0.0
    linear: bool = False

    @nn.compact
    def __call__(self, logits: Float[Array, "*N C"], *, train: bool = False) -> Float[Array, "*N C"]:
        """The refined logits; `train` drops hidden units, from the rng stream `dropout`."""
        centred = logits - logits.mean(axis=-1, keepdims=True)
        hidden = nn.relu(nn.Dense(self.hidden)(centred))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        refined = logits + nn.Dense(logits.shape[-1], kernel_init=nn.initializers.zeros)(hidden)
        if not self.linear:
            return refined
        zeros = nn.initializers.zeros
        return refined + nn.Dense(logits.shape[-1], use_bias=False, kernel_init=zeros, name=_LINEAR)(centred)


class HeadState(NamedTuple):
    """The head's parameters and its optimiser's state."""

    params: Any
    opt_state: Any


class Batch(NamedTuple):
    """A minibatch; targets are distributions over classes, and the mask tells images from padding."""

    logits: Float[Array, "n C"]
    targets: Float[Array, "n C"]
    mask: Bool[Array, " n"]


class Refinement(NamedTuple):
    """The head as pure functions.

    Attributes:
      init: (key, C) -> state.
      train: (state, key, logits [E, N, C], labels [N], weight) -> (state, mean loss): E epochs, one on each view of
        the images, in random minibatches, on CE(f + g(f), y) + weight * KL(f || f + g(f)).
    """

    init: Callable[[Array, int], HeadState]
    train: Callable[..., tuple[HeadState, Array]]


def apply(params: Any, logits: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """The refined logits f + g(f), float32; the parameters themselves tell the head's width."""
    layers = params["params"]
    return _refine(RefinementHead(hidden=layers["Dense_0"]["bias"].size, linear=_LINEAR in layers), params, logits)


def with_linear(state: HeadState, weights: Float[Array, "C C"]) -> HeadState:
    """The head whose linear part makes f W of centred logits f, and whose other layers stay."""
    layers = state.params["params"] | {_LINEAR: {"kernel": weights - jnp.eye(len(weights))}}
    return state._replace(params={"params": layers})


def build(
    *,
    hidden: int,
    dropout: float,
    mixup: bool,
    tx: optax.GradientTransformation,
    batch_size: int,
    linear: bool = False,
) -> Refinement:
    """A head of the given width, trained with `tx`.

    Args:
      hidden: width of the hidden layer.
      dropout: share of its units that training drops.
      mixup: whether an epoch trains on random mixtures of two images' logits and labels.
      tx: the optimiser; it makes `batches_in_epoch` steps an epoch.
      batch_size: images in a minibatch; the last one of an epoch is padded.
      linear: whether g has a linear part, which `with_linear` sets.
    """
    head = RefinementHead(hidden, dropout, linear)

    def init(key: Array, classes: int) -> HeadState:
        params = head.init(key, jnp.zeros((1, classes)))
        return HeadState(params, tx.init(params))

    def loss(params: Any, key: Array, batch: Batch, weight: Array) -> Array:
        refined = _refine(head, params, batch.logits, train=True, rngs={"dropout": key})
        consistency = objectives.head_consistency(batch.logits, refined, batch.mask)
        return objectives.soft_cross_entropy(refined, batch.targets, batch.mask) + weight * consistency

    def train(
        state: HeadState, key: Array, logits: Float[Array, "E N C"], labels: Int[Array, " N"], weight: Array
    ) -> tuple[HeadState, Float[Array, ""]]:
        targets = jax.nn.one_hot(labels, logits.shape[-1])

        def epoch(state: HeadState, view: tuple[Array, Array]) -> tuple[HeadState, Array]:
            key, logits = view
            order_key, dropout_key, mixup_key = jax.random.split(key, 3)
            mixed = _mix(mixup_key, logits, targets) if mixup else (logits, targets)
            rows, masks = _minibatches(order_key, labels.size, batch_size)
            keys = jax.random.split(dropout_key, rows.shape[0])

            def update(state: HeadState, minibatch: tuple[Array, Array, Array]) -> tuple[HeadState, Array]:
                key, rows, mask = minibatch
                batch = Batch(mixed[0][rows], mixed[1][rows], mask)
                value, gradient = jax.value_and_grad(loss)(state.params, key, batch, weight)
                updates, opt_state = tx.update(gradient, state.opt_state, state.params)
                return HeadState(optax.apply_updates(state.params, updates), opt_state), value

            return jax.lax.scan(update, state, (keys, rows, masks))

        state, losses = jax.lax.scan(epoch, state, (jax.random.split(key, logits.shape[0]), logits))
        return state, losses.mean()

    return Refinement(init, train)


def batches_in_epoch(images: int, batch_size: int) -> int:
    """Optimiser steps of one epoch over N images."""
    return -(-images // min(batch_size, images))


def _mix(key: Array, logits: Array, targets: Array) -> tuple[Array, Array]:
    """Mixes each image with a random other, in uniformly random shares (mixup; Zhang et al., ICLR 2018)."""
    partner_key, share_key = jax.random.split(key)
    partner = jax.random.permutation(partner_key, logits.shape[0])
    share = jax.random.uniform(share_key, (logits.shape[0], 1))
    return share * logits + (1 - share) * logits[partner], share * targets + (1 - share) * targets[partner]


def _refine(head: RefinementHead, params: Any, logits: Array, **options: Any) -> Array:
    with jax.default_matmul_precision("float32"):
        refined: Any = head.apply(params, logits, **options)
    return refined


def _minibatches(key: Array, images: int, batch_size: int) -> tuple[Array, Array]:
    """A random permutation of the images in rows of `batch_size`, and which entries are images, not padding."""
    batch_size = min(batch_size, images)
    batches = batches_in_epoch(images, batch_size)
    rows = jnp.pad(jax.random.permutation(key, images), (0, batches * batch_size - images))
    mask = jnp.arange(rows.size) < images
    return rows.reshape(batches, batch_size), mask.reshape(batches, batch_size)
