"""How a caption's tokens attend: to SOS, to the soft prompt that all classes share, and causally to their own class.

Two ways to the same sums. In buckets of one length, small matrix products: best on CPUs, and for long captions. By
offsets, sums over the few tokens before each: a handful of kernels without a matrix product, best on accelerators.
Shapes: K candidates, n prompt tokens, T packed suffix tokens, H heads, e numbers a head.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.blackbox.towers.blocks import CausalLayer


def in_buckets(lengths: Sequence[int]) -> list[Callable[[Array], Array]]:
    """For each distinct suffix length, the view of packed [K, T, ...] as [K, classes, length, ...]."""
    distinct, counts = np.unique(lengths, return_counts=True)
    stops = np.cumsum(distinct * counts)

    def view(start: int, stop: int, length: int) -> Callable[[Array], Array]:
        return lambda x: x[:, start:stop].reshape(x.shape[0], -1, length, *x.shape[2:])

    return [
        view(int(stop - length * count), int(stop), int(length))
        for stop, length, count in zip(stops, distinct, counts, strict=True)
    ]


def pack(bucket: Array) -> Array:
    """[K, classes, length, ...] as [K, classes * length, ...]."""
    return bucket.reshape(bucket.shape[0], -1, *bucket.shape[3:])


def with_sos(layer: CausalLayer, key: Array, value: Array) -> tuple[Array, Array]:
    """Key and value [K, n, H, e] of the soft prompt with those of SOS before them, [K, 1 + n, H, e]."""

    def prepend(sos: Array, rest: Array) -> Array:
        return jnp.concatenate([jnp.broadcast_to(sos, (rest.shape[0], *sos.shape)), rest], axis=1)

    return prepend(layer.sos_key, key), prepend(layer.sos_value, value)


def attend_prefix(query: Array, key: Array, value: Array) -> Array:
    """The soft prompt attends to SOS and causally to itself: query [K, n, H, e], key and value [K, 1 + n, H, e]."""
    scores = jnp.einsum("knhe,kmhe->khnm", query, key)
    visible = jnp.tril(jnp.ones(scores.shape[-2:], bool), k=1)
    return jnp.einsum("khnm,kmhe->knhe", _softmax(jnp.where(visible, scores, -jnp.inf)), value)


def attend_suffix(query: Array, key: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    """A bucket [K, c, l, H, e] attends to what all classes share and causally to its own class."""
    own = jnp.einsum("kclhe,kcmhe->kchlm", query, key)
    visible = jnp.tril(jnp.ones(own.shape[-2:], bool))
    return _mix(query, jnp.where(visible, own, -jnp.inf), value, shared_key, shared_value)


def attend_eos(query: Array, key: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    """EOS, query [K, c, 1, H, e], attends to everything before it."""
    return _mix(query, jnp.einsum("kclhe,kcmhe->kchlm", query, key), value, shared_key, shared_value)


def _mix(query: Array, own: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    shared = jnp.einsum("kclhe,kmhe->kchlm", query, shared_key)
    weights = _softmax(jnp.concatenate([shared, own], axis=-1))
    to_shared, to_own = jnp.split(weights, [shared_key.shape[1]], axis=-1)
    return jnp.einsum("kchlm,kmhe->kclhe", to_shared, shared_value) + jnp.einsum("kchlm,kcmhe->kclhe", to_own, value)


def _softmax(scores: Array) -> Array:
    return jax.nn.softmax(scores.astype(jnp.float32)).astype(scores.dtype)


def by_offsets(
    layer: CausalLayer,
    query: Float[Array, "K S H e"],
    key: Float[Array, "K tokens H e"],
    value: Float[Array, "K tokens H e"],
    *,
    n_ctx: int,
    lengths: Sequence[int],
    rows: np.ndarray,
) -> Float[Array, "K S H e"]:
    """What tokens attend to, soft prompt and packed suffixes in one array; sums are float32.

    Args:
      layer: for what SOS attends with.
      query: of the tokens that attend.
      key: of all tokens, the n_ctx of the soft prompt first.
      value: likewise.
      n_ctx: soft prompt tokens that all classes share.
      lengths: of the classes' suffixes.
      rows: which tokens attend, [S].
    """
    place = np.concatenate([np.arange(length) for length in (n_ctx, *lengths)])[rows]
    in_suffix = np.asarray(rows) >= n_ctx

    def before(x: Array, offset: int) -> Array:
        if len(rows) < x.shape[1]:
            return x[:, np.maximum(rows - offset, 0)]
        return jnp.pad(x[:, : x.shape[1] - offset], ((0, 0), (offset, 0), (0, 0), (0, 0)))

    def seen(sos: Array, x: Array) -> list[Array]:
        shared = [x[:, m : m + 1] for m in range(n_ctx)]
        return [sos[None], *shared, *[before(x, offset) for offset in range(place.max() + 1)]]

    visible = [np.ones(len(rows), bool), *[in_suffix] * n_ctx, *[place >= j for j in range(place.max() + 1)]]
    wide = query.astype(jnp.float32)
    scores = [
        jnp.where(shown[:, None], jnp.sum(wide * one.astype(jnp.float32), axis=-1), -jnp.inf)
        for shown, one in zip(visible, seen(layer.sos_key, key), strict=True)
    ]
    weights = jax.nn.softmax(jnp.stack(scores), axis=0)
    values = seen(layer.sos_value, value)
    attended = sum(weight[..., None] * one.astype(jnp.float32) for weight, one in zip(weights, values, strict=True))
    return jnp.asarray(attended, value.dtype)
