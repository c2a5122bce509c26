"""SigLIP's text encoder for many soft prompts at once.

Every token attends to all, those that fill a caption up to the model's length too, and the last of these is pooled. So
nothing but the last layer is less work for knowing that: it is evaluated at the last token alone. Captions have no
start token; a soft prompt is their first tokens. Shapes: K candidates, C classes, L tokens, d width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from craft_jax.blackbox.towers import encoder
from craft_jax.blackbox.towers.blocks import Params, dense, layer_norm
from craft_jax.blackbox.towers.encoder import Encoder


class SiglipTextTower(struct.PyTreeNode):
    """Text features of C captions "<soft prompt> <class suffix> <padding>" under any soft prompt.

    Attributes:
      encoder: the layers.
      suffix: embedded tokens after the soft prompt with their positions, [C, L - n_ctx, d].
      prompt_positions: position embeddings of the soft prompt, [n_ctx, d].
      final_norm, projection: from the last token's state to the feature.
      dtype: that the layers compute in; sums over a row (norms, softmax) and the feature itself stay float32.
    """

    encoder: Encoder
    suffix: Array
    prompt_positions: Array
    final_norm: Params
    projection: Params
    dtype: Any = struct.field(pytree_node=False)

    def features(self, prompts: Float[Array, "K n_ctx d"]) -> Float[Array, "K C p"]:
        """Normalised text features of every class under every prompt, float32."""
        return self._encode(prompts[:, None])

    def class_features(self, prompts: Float[Array, "K C n_ctx d"]) -> Float[Array, "K C p"]:
        """The same where every class has a soft prompt of its own."""
        return self._encode(prompts)

    def _encode(self, prompts: Float[Array, "K classes n_ctx d"]) -> Float[Array, "K C p"]:
        """One candidate after another: whole captions fill a device, and those of all candidates would its memory."""
        contexts = (prompts + self.prompt_positions[None, None]).astype(self.dtype)
        encoded: Array = jax.lax.map(self._encode_candidate, contexts)
        return encoded

    def _encode_candidate(self, contexts: Float[Array, "classes n_ctx d"]) -> Float[Array, "C p"]:
        own = jnp.broadcast_to(contexts, (self.suffix.shape[0], *contexts.shape[1:]))
        pooled = self.encoder(jnp.concatenate([own, self.suffix], axis=1), pooled=slice(-1, None))[:, 0]
        normed = layer_norm(pooled.astype(jnp.float32), self.final_norm, self.encoder.blocks.epsilon)
        features = dense(normed, self.projection)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    def arranged(
        self,
        tokens: Float[Array | np.ndarray, "V d"],
        positions: Float[Array | np.ndarray, "L d"],
        captions: Sequence[Sequence[int]],
        n_ctx: int,
    ) -> "SiglipTextTower":
        """The tower for other captions.

        Args:
          tokens: the embedding of every token.
          positions: of every position.
          captions: token ids of each class, L of them.
          n_ctx: how many of the first a soft prompt takes the place of.
        """
        tokens, positions = np.asarray(tokens), np.asarray(positions)
        suffixes = np.array([caption[n_ctx:] for caption in captions])
        return self.replace(
            suffix=jnp.asarray(tokens[suffixes] + positions[None, n_ctx:]).astype(self.dtype),
            prompt_positions=jnp.asarray(positions[:n_ctx]),
        )


def build(
    params: Params, *, heads: int, epsilon: float, activation: Callable[[Array], Array], dtype: Any = jnp.float32
) -> SiglipTextTower:
    """Arranges SiglipModel's parameters, for no captions yet; `arranged` gives it some.

    Args:
      params: its `text_model`, float32, named as `loaders.parameters` names them.
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      dtype: that the layers compute in.
    """
    text = params["text_model"]
    length, width = text["embeddings"]["position_embedding"]["embedding"].shape
    return SiglipTextTower(
        encoder=encoder.build(
            text["encoder"]["layers"], heads=heads, epsilon=epsilon, activation=activation, dtype=dtype
        ),
        suffix=jnp.zeros((0, length, width), dtype),
        prompt_positions=jnp.zeros((0, width)),
        final_norm=text["final_layer_norm"],
        projection=text["head"],
        dtype=jnp.dtype(dtype),
    )
