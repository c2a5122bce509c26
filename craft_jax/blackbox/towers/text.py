"""CLIP's text encoder for many soft prompts at once: the public class's features by less work.

The encoder is causal and pools at EOS. So tokens after EOS are left out, SOS's state is computed once for the run, the
soft prompt's once per candidate, and class suffixes are packed without padding, bucketed by length; the last layer is
evaluated at EOS alone. Shapes: K candidates, C classes, T packed suffix tokens, d width, H heads.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

Params = Mapping[str, Any]


class Layer(struct.PyTreeNode):
    """One encoder layer's parameters, with query, key and value side by side, and what SOS attends with."""

    qkv_kernel: Array
    qkv_bias: Array
    out: Params
    norm1: Params
    norm2: Params
    fc1: Params
    fc2: Params
    sos_key: Array
    sos_value: Array


class TextTower(struct.PyTreeNode):
    """Text features of C captions "<soft prompt> <class suffix>" under any soft prompt.

    Attributes:
      layers: the encoder's layers.
      suffix: embedded suffix tokens with their positions, packed class after class in order of length, [T, d].
      prompt_positions: position embeddings of the soft prompt, [n_ctx, d].
      final_norm, projection: from EOS state to feature.
      class_rows: where each class, in the caller's order, stands in order of length, [C].
      lengths: suffix length of each class, ascending.
      heads, epsilon, activation: of the encoder.
      dtype: that the layers compute in; sums over a row (norms, softmax) and the feature itself stay float32.
    """

    layers: tuple[Layer, ...]
    suffix: Array
    prompt_positions: Array
    final_norm: Params
    projection: Array
    class_rows: Array
    lengths: tuple[int, ...] = struct.field(pytree_node=False)
    heads: int = struct.field(pytree_node=False)
    epsilon: float = struct.field(pytree_node=False)
    activation: Callable[[Array], Array] = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)

    def features(self, prompts: Float[Array, "K n_ctx d"]) -> Float[Array, "K C p"]:
        """Normalised text features of every class under every prompt, float32."""
        prefix = (prompts + self.prompt_positions).astype(self.dtype)
        return self._encode(prefix, jnp.broadcast_to(self.suffix, (prompts.shape[0], *self.suffix.shape)))

    def class_features(self, prompts: Float[Array, "K C n_ctx d"]) -> Float[Array, "K C p"]:
        """The same where every class has a soft prompt of its own: then classes share SOS alone."""
        candidates, _, n_ctx, width = prompts.shape
        contexts = (prompts[:, jnp.argsort(self.class_rows)] + self.prompt_positions).astype(self.dtype)
        captions, first = [], 0
        for rows in self._buckets():
            suffixes = rows(self.suffix[None])
            classes = suffixes.shape[1]
            shape = (candidates, *suffixes.shape[1:])
            own = contexts[:, first : first + classes]
            captions.append(_pack(jnp.concatenate([own, jnp.broadcast_to(suffixes, shape)], axis=2)))
            first += classes
        apart = self.replace(lengths=tuple(n_ctx + length for length in self.lengths))
        nothing_shared = jnp.zeros((candidates, 0, width), self.dtype)
        encoded: Array = apart._encode(nothing_shared, jnp.concatenate(captions, axis=1))
        return encoded

    def _encode(self, prefix: Float[Array, "K n d"], suffix: Float[Array, "K T d"]) -> Float[Array, "K C p"]:
        for layer in self.layers[:-1]:
            prefix, suffix = self._advance(layer, prefix, suffix)
        pooled = self._advance_to_eos(self.layers[-1], prefix, suffix)
        features = _layer_norm(pooled.astype(jnp.float32), self.final_norm, self.epsilon) @ self.projection
        features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
        return features[:, self.class_rows]

    def _advance(self, layer: Layer, prefix: Array, suffix: Array) -> tuple[Array, Array]:
        query, key, value = self._heads(layer, prefix)
        shared_key, shared_value = _with_sos(layer, key, value)
        attended = _attend_prefix(query, shared_key, shared_value)
        prefix = self._feed_forward(layer, prefix, attended)

        query, key, value = self._heads(layer, suffix)
        parts = [
            _attend_suffix(rows(query), rows(key), rows(value), shared_key, shared_value) for rows in self._buckets()
        ]
        attended = jnp.concatenate([_pack(part) for part in parts], axis=1)
        return prefix, self._feed_forward(layer, suffix, attended)

    def _advance_to_eos(self, layer: Layer, prefix: Array, suffix: Array) -> Array:
        _, key, value = self._heads(layer, prefix)
        shared_key, shared_value = _with_sos(layer, key, value)
        query, key, value = self._heads(layer, suffix)
        parts = [
            _attend_eos(rows(query)[:, :, -1:], rows(key), rows(value), shared_key, shared_value)
            for rows in self._buckets()
        ]
        attended = jnp.concatenate([_pack(part) for part in parts], axis=1)
        at_eos = np.cumsum(self.lengths) - 1
        return self._feed_forward(layer, suffix[:, at_eos], attended)

    def _buckets(self) -> list[Callable[[Array], Array]]:
        """For each distinct suffix length, the view of packed [K, T, H, dh] as [K, classes, length, H, dh]."""
        lengths, counts = np.unique(self.lengths, return_counts=True)
        stops = np.cumsum(lengths * counts)

        def view(start: int, stop: int, length: int) -> Callable[[Array], Array]:
            return lambda x: x[:, start:stop].reshape(x.shape[0], -1, length, *x.shape[2:])

        return [
            view(int(stop - length * count), int(stop), int(length))
            for stop, length, count in zip(stops, lengths, counts, strict=True)
        ]

    def _heads(self, layer: Layer, x: Array) -> tuple[Array, Array, Array]:
        normed = _layer_norm(x, layer.norm1, self.epsilon)
        qkv = normed @ layer.qkv_kernel + layer.qkv_bias
        query, key, value = jnp.split(qkv.reshape(*x.shape[:-1], 3 * self.heads, x.shape[-1] // self.heads), 3, axis=-2)
        return query * key.shape[-1] ** -0.5, key, value

    def _feed_forward(self, layer: Layer, x: Array, attended: Array) -> Array:
        x = x + _dense(attended.reshape(x.shape), layer.out)
        hidden = self.activation(_dense(_layer_norm(x, layer.norm2, self.epsilon), layer.fc1))
        return x + _dense(hidden, layer.fc2)


def build(
    params: Params,
    suffixes: Sequence[Sequence[int]],
    sos_token: int,
    n_ctx: int,
    *,
    heads: int,
    epsilon: float,
    activation: Callable[[Array], Array],
    dtype: Any = jnp.float32,
) -> TextTower:
    """Arranges FlaxCLIPModel's parameters for `TextTower.features`.

    Args:
      params: FlaxCLIPModel's parameters, float32.
      suffixes: token ids of each class after the soft prompt, up to and with the position that the model pools at.
      sos_token: the token that starts every caption.
      n_ctx: soft prompt vectors between SOS and the suffix.
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      dtype: that the layers compute in.
    """
    text = params["text_model"]
    tokens = text["embeddings"]["token_embedding"]["embedding"]
    positions = text["embeddings"]["position_embedding"]["embedding"]
    order = sorted(range(len(suffixes)), key=lambda c: len(suffixes[c]))
    packed = [tokens[np.array(suffixes[c])] + positions[n_ctx + 1 : n_ctx + 1 + len(suffixes[c])] for c in order]
    encoder = text["encoder"]["layers"]
    layers = [_arrange(encoder[str(i)]) for i in range(len(encoder))]
    tower = TextTower(
        layers=tuple(layers),
        suffix=jnp.concatenate(packed),
        prompt_positions=positions[1 : n_ctx + 1],
        final_norm=text["final_layer_norm"],
        projection=params["text_projection"]["kernel"],
        class_rows=jnp.argsort(jnp.array(order)),
        lengths=tuple(len(suffixes[c]) for c in order),
        heads=heads,
        epsilon=epsilon,
        activation=activation,
        dtype=jnp.dtype(dtype),
    )
    with jax.default_matmul_precision("float32"):
        complete = _with_sos_states(tower, tokens[sos_token] + positions[0])
    cast = functools.partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    return tower.replace(layers=cast(complete), suffix=cast(tower.suffix))


def _arrange(layer: Params) -> Layer:
    attention = layer["self_attn"]
    projections = [attention[name] for name in ("q_proj", "k_proj", "v_proj")]
    nothing = jnp.zeros(())
    return Layer(
        qkv_kernel=jnp.concatenate([p["kernel"] for p in projections], axis=1),
        qkv_bias=jnp.concatenate([p["bias"] for p in projections]),
        out=attention["out_proj"],
        norm1=layer["layer_norm1"],
        norm2=layer["layer_norm2"],
        fc1=layer["mlp"]["fc1"],
        fc2=layer["mlp"]["fc2"],
        sos_key=nothing,
        sos_value=nothing,
    )


def _with_sos_states(tower: TextTower, sos: Array) -> tuple[Layer, ...]:
    # SOS sees only itself, so attention returns its own value and its states depend on no prompt.
    x = sos[None, None]
    layers = []
    for layer in tower.layers:
        _, key, value = tower._heads(layer, x)
        layers.append(layer.replace(sos_key=key[0], sos_value=value[0]))
        x = tower._feed_forward(layer, x, value)
    return tuple(layers)


def _with_sos(layer: Layer, key: Array, value: Array) -> tuple[Array, Array]:
    def prepend(sos: Array, rest: Array) -> Array:
        return jnp.concatenate([jnp.broadcast_to(sos, (rest.shape[0], *sos.shape)), rest], axis=1)

    return prepend(layer.sos_key, key), prepend(layer.sos_value, value)


def _attend_prefix(query: Array, key: Array, value: Array) -> Array:
    """The soft prompt attends to SOS and causally to itself: query [K, n, H, dh], key and value [K, 1 + n, H, dh]."""
    scores = jnp.einsum("knhe,kmhe->khnm", query, key)
    visible = jnp.tril(jnp.ones(scores.shape[-2:], bool), k=1)
    return jnp.einsum("khnm,kmhe->knhe", _softmax(jnp.where(visible, scores, -jnp.inf)), value)


def _attend_suffix(query: Array, key: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    """A bucket [K, c, l, H, dh] attends to what all classes share and causally to its own class."""
    own = jnp.einsum("kclhe,kcmhe->kchlm", query, key)
    visible = jnp.tril(jnp.ones(own.shape[-2:], bool))
    return _mix(query, jnp.where(visible, own, -jnp.inf), value, shared_key, shared_value)


def _attend_eos(query: Array, key: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    """EOS, query [K, c, 1, H, dh], attends to everything before it."""
    return _mix(query, jnp.einsum("kclhe,kcmhe->kchlm", query, key), value, shared_key, shared_value)


def _mix(query: Array, own: Array, value: Array, shared_key: Array, shared_value: Array) -> Array:
    shared = jnp.einsum("kclhe,kmhe->kchlm", query, shared_key)
    weights = _softmax(jnp.concatenate([shared, own], axis=-1))
    to_shared, to_own = jnp.split(weights, [shared_key.shape[1]], axis=-1)
    return jnp.einsum("kchlm,kmhe->kclhe", to_shared, shared_value) + jnp.einsum("kchlm,kcmhe->kclhe", to_own, value)


def _pack(bucket: Array) -> Array:
    return bucket.reshape(bucket.shape[0], -1, *bucket.shape[3:])


def _dense(x: Array, params: Params) -> Array:
    return x @ params["kernel"] + params["bias"]


def _softmax(scores: Array) -> Array:
    return jax.nn.softmax(scores.astype(jnp.float32)).astype(scores.dtype)


def _layer_norm(x: Array, params: Params, epsilon: float) -> Array:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype) * params["scale"] + params["bias"]
