"""CLIP's text encoder for many soft prompts at once: the public class's features by less work.

The encoder is causal and pools at EOS. So tokens after EOS are left out, SOS's state is computed once for the run, the
soft prompt's once per candidate, and class suffixes are packed without padding; the last layer is evaluated at EOS
alone. Shapes: K candidates, C classes, T packed suffix tokens, d width, H heads.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from craft_jax.blackbox.towers import attention, blocks
from craft_jax.blackbox.towers.blocks import Blocks, CausalLayer, Params

_MOST_OFFSETS = 16  # longest caption, after what is shared, that attends by offsets: each is an operation more


class TextTower(struct.PyTreeNode):
    """Text features of C captions "<soft prompt> <class suffix>" under any soft prompt.

    Attributes:
      inner: the encoder's layers but the last, on an accelerator stacked along a leading axis.
      last: the last layer.
      suffix: embedded suffix tokens with their positions, packed class after class in order of length, [T, d].
      prompt_positions: position embeddings of the soft prompt, [n_ctx, d].
      final_norm, projection: from EOS state to feature.
      class_rows: where each class, in the caller's order, stands in order of length, [C].
      lengths: suffix length of each class, ascending.
      blocks: what the layers have alike.
      dtype: that the layers compute in; sums over a row (norms, softmax) and the feature itself stay float32.
    """

    inner: CausalLayer | tuple[CausalLayer, ...]
    last: CausalLayer
    suffix: Array
    prompt_positions: Array
    final_norm: Params
    projection: Array
    class_rows: Array
    lengths: tuple[int, ...] = struct.field(pytree_node=False)
    blocks: Blocks
    dtype: Any = struct.field(pytree_node=False)

    def features(self, prompts: Float[Array, "K n_ctx d"]) -> Float[Array, "K C p"]:
        """Normalised text features of every class under every prompt, float32."""
        prefix = (prompts + self.prompt_positions[None]).astype(self.dtype)
        return self._encode(prefix, jnp.broadcast_to(self.suffix, (prompts.shape[0], *self.suffix.shape)))

    def class_features(self, prompts: Float[Array, "K C n_ctx d"]) -> Float[Array, "K C p"]:
        """The same where every class has a soft prompt of its own: then classes share SOS alone."""
        candidates, _, n_ctx, width = prompts.shape
        contexts = (prompts[:, jnp.argsort(self.class_rows)] + self.prompt_positions[None, None]).astype(self.dtype)
        captions, first = [], 0
        for rows in attention.in_buckets(self.lengths):
            suffixes = rows(self.suffix[None])
            classes = suffixes.shape[1]
            shape = (candidates, *suffixes.shape[1:])
            own = contexts[:, first : first + classes]
            captions.append(attention.pack(jnp.concatenate([own, jnp.broadcast_to(suffixes, shape)], axis=2)))
            first += classes
        apart = self.replace(lengths=tuple(n_ctx + length for length in self.lengths))
        nothing_shared = jnp.zeros((candidates, 0, width), self.dtype)
        encoded: Array = apart._encode(nothing_shared, jnp.concatenate(captions, axis=1))
        return encoded

    def _encode(self, prefix: Float[Array, "K n d"], suffix: Float[Array, "K T d"]) -> Float[Array, "K C p"]:
        few_offsets = max(prefix.shape[1], *self.lengths) <= _MOST_OFFSETS
        encode = self._merged if isinstance(self.inner, CausalLayer) and few_offsets else self._apart
        pooled = encode(prefix, suffix)
        features = blocks.layer_norm(pooled.astype(jnp.float32), self.final_norm, self.blocks.epsilon) @ self.projection
        features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
        return features[:, self.class_rows]

    def _merged(self, prefix: Float[Array, "K n d"], suffix: Float[Array, "K T d"]) -> Float[Array, "K C d"]:
        """EOS's last states, all tokens in one array: few kernels, and large."""
        tokens, n_ctx = jnp.concatenate([prefix, suffix], axis=1), prefix.shape[1]
        attend = functools.partial(attention.by_offsets, n_ctx=n_ctx, lengths=self.lengths)

        def advance(layer: CausalLayer, x: Array) -> Array:
            query, key, value = self.blocks.heads_of(layer, x)
            attended = attend(layer, query, key, value, rows=np.arange(x.shape[1]))
            return self.blocks.feed_forward(layer, x, attended)

        tokens = blocks.through(self.inner, advance, tokens)
        query, key, value = self.blocks.heads_of(self.last, tokens)
        at_eos = n_ctx + self._at_eos()
        attended = attend(self.last, query[:, at_eos], key, value, rows=at_eos)
        return self.blocks.feed_forward(self.last, tokens[:, at_eos], attended)

    def _apart(self, prefix: Float[Array, "K n d"], suffix: Float[Array, "K T d"]) -> Float[Array, "K C d"]:
        """EOS's last states, soft prompt and suffixes in turn, and these in buckets of one length."""
        buckets = attention.in_buckets(self.lengths)

        def advance(layer: CausalLayer, x: tuple[Array, Array]) -> tuple[Array, Array]:
            prefix, suffix = x
            query, key, value = self.blocks.heads_of(layer, prefix)
            shared_key, shared_value = attention.with_sos(layer, key, value)
            attended = attention.attend_prefix(query, shared_key, shared_value)
            prefix = self.blocks.feed_forward(layer, prefix, attended)

            query, key, value = self.blocks.heads_of(layer, suffix)
            parts = [
                attention.attend_suffix(rows(query), rows(key), rows(value), shared_key, shared_value)
                for rows in buckets
            ]
            attended = jnp.concatenate([attention.pack(part) for part in parts], axis=1)
            return prefix, self.blocks.feed_forward(layer, suffix, attended)

        prefix, suffix = blocks.through(self.inner, advance, (prefix, suffix))
        _, key, value = self.blocks.heads_of(self.last, prefix)
        shared_key, shared_value = attention.with_sos(self.last, key, value)
        query, key, value = self.blocks.heads_of(self.last, suffix)
        parts = [
            attention.attend_eos(rows(query)[:, :, -1:], rows(key), rows(value), shared_key, shared_value)
            for rows in buckets
        ]
        attended = jnp.concatenate([attention.pack(part) for part in parts], axis=1)
        return self.blocks.feed_forward(self.last, suffix[:, self._at_eos()], attended)

    def _at_eos(self) -> np.ndarray:
        return np.cumsum(self.lengths) - 1

    def arranged(
        self,
        tokens: Float[Array | np.ndarray, "V d"],
        positions: Float[Array | np.ndarray, "L d"],
        captions: Sequence[Sequence[int]],
        n_ctx: int,
    ) -> "TextTower":
        """The tower for other captions.

        Args:
          tokens: the embedding of every token.
          positions: of every position.
          captions: token ids of each class, from SOS to the position that is pooled.
          n_ctx: how many of them after SOS a soft prompt takes the place of.
        """
        suffixes = [caption[n_ctx + 1 :] for caption in captions]
        return self.replace(**_packed(tokens, positions, suffixes, n_ctx, self.dtype))


def _packed(tokens: Any, positions: Any, suffixes: Sequence[Sequence[int]], n_ctx: int, dtype: Any) -> dict[str, Any]:
    """A tower's attributes that are the captions'."""
    tokens, positions = np.asarray(tokens), np.asarray(positions)
    order = np.argsort([len(suffix) for suffix in suffixes], kind="stable")
    packed = [tokens[np.array(suffixes[c])] + positions[n_ctx + 1 : n_ctx + 1 + len(suffixes[c])] for c in order]
    return {
        "suffix": jnp.asarray(np.concatenate(packed)).astype(dtype),
        "prompt_positions": jnp.asarray(positions[1 : n_ctx + 1]),
        "class_rows": jnp.asarray(np.argsort(order)),
        "lengths": tuple(len(suffixes[c]) for c in order),
    }


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
    scanned: bool | None = None,
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
      scanned: whether the layers run in a scan, which compiles one of them; None does so on accelerators. On CPUs each
        layer's weights would be copied out of the stack, at every call.
    """
    text = params["text_model"]
    tokens = text["embeddings"]["token_embedding"]["embedding"]
    positions = text["embeddings"]["position_embedding"]["embedding"]
    encoder, shared = text["encoder"]["layers"], Blocks(heads, epsilon, activation)
    with jax.default_matmul_precision("float32"):
        arranged = [blocks.arrange(encoder[str(i)]) for i in range(len(encoder))]
        complete = blocks.with_sos_states(shared, arranged, tokens[sos_token] + positions[0])
    *inner, last = blocks.cast(complete, dtype)
    scanned = jax.default_backend() != "cpu" if scanned is None else scanned
    return TextTower(
        inner=blocks.stacked(inner) if scanned else tuple(inner),
        last=last,
        final_norm=text["final_layer_norm"],
        projection=params["text_projection"]["kernel"],
        blocks=shared,
        dtype=jnp.dtype(dtype),
        **_packed(tokens, positions, suffixes, n_ctx, dtype),
    )
