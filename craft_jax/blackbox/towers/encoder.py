"""A transformer encoder in which every token attends to all: of CLIP's images, and of SigLIP's images and texts.

Query, key and value are one matrix product, and layers run under one `lax.scan` but for the last, which is evaluated at
the pooled tokens alone. Shapes: N inputs, L tokens, d width, H heads.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import export
from jaxtyping import Array, Float

from craft_jax.blackbox.towers.blocks import Params, dense, layer_norm, of_rank

_ALL = slice(None)
_TOKENS_AT_ONCE = 1600  # on a CPU: a layer's activations stay in its caches


class Layer(struct.PyTreeNode):
    """Parameters of a layer, or of several with a first axis for them; query, key and value side by side."""

    qkv_kernel: Array
    qkv_bias: Array
    out: Params
    norm1: Params
    norm2: Params
    fc1: Params
    fc2: Params


class Encoder(struct.PyTreeNode):
    """The layers of a tower.

    Attributes:
      layers: all but the last, stacked; [layers - 1, ...].
      last_layer: the last.
      heads, epsilon, activation: of every layer.
    """

    layers: Layer
    last_layer: Layer
    heads: int = struct.field(pytree_node=False)
    epsilon: float = struct.field(pytree_node=False)
    activation: Callable[[Array], Array] = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "N L d"], pooled: slice = _ALL) -> Float[Array, "N l d"]:
        """The tokens after all layers, those of the slice `pooled`."""

        def advance(x: Array, layer: Layer) -> tuple[Array, None]:
            return self._advance(layer, x, _ALL), None

        x, _ = jax.lax.scan(advance, x, self.layers)
        return self._advance(self.last_layer, x, pooled)

    def _advance(self, layer: Layer, x: Float[Array, "N L d"], pooled: slice) -> Float[Array, "N l d"]:
        normed = layer_norm(x, layer.norm1, self.epsilon)
        width = x.shape[-1]

        def heads(tokens: Array, start: int, stop: int) -> list[Array]:
            projected = tokens @ layer.qkv_kernel[:, start:stop] + of_rank(layer.qkv_bias[start:stop], tokens.ndim)
            split = projected.reshape(*tokens.shape[:-1], -1, width // self.heads)
            return jnp.split(split, (stop - start) // width, axis=-2)

        if pooled == _ALL:
            query, key, value = heads(normed, 0, 3 * width)
        else:
            (query,), (key, value) = heads(normed[:, pooled], 0, width), heads(normed, width, 3 * width)
        x = x[:, pooled]
        x = x + dense(attend(query, key, value).reshape(x.shape), layer.out)
        hidden = self.activation(dense(layer_norm(x, layer.norm2, self.epsilon), layer.fc1))
        return x + dense(hidden, layer.fc2)


def build(
    layers: Params, *, heads: int, epsilon: float, activation: Callable[[Array], Array], dtype: Any = jnp.float32
) -> Encoder:
    """Arranges the layers of a tower.

    Args:
      layers: parameters of each by its number, as FlaxCLIPModel names them.
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      dtype: that the layers compute in; sums over a row (norms, softmax) stay float32.
    """
    arranged = [_arrange(layers[str(i)]) for i in range(len(layers))]

    def cast(layer: Layer) -> Layer:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), layer)

    return Encoder(
        layers=cast(jax.tree.map(lambda *leaves: jnp.stack(leaves)[:-1], *arranged)),
        last_layer=cast(arranged[-1]),
        heads=heads,
        epsilon=epsilon,
        activation=activation,
    )


def _arrange(layer: Params) -> Layer:
    attention = layer["self_attn"]
    projections = [attention[name] for name in ("q_proj", "k_proj", "v_proj")]
    return Layer(
        qkv_kernel=jnp.concatenate([p["kernel"] for p in projections], axis=1),
        qkv_bias=jnp.concatenate([p["bias"] for p in projections]),
        out=attention["out_proj"],
        norm1=layer["layer_norm1"],
        norm2=layer["layer_norm2"],
        fc1=layer["mlp"]["fc1"],
        fc2=layer["mlp"]["fc2"],
    )


def attend(query: Float[Array, "N l H e"], key: Float[Array, "N L H e"], value: Float[Array, "N L H e"]) -> Array:
    """Every query attends to all tokens."""
    if jax.default_backend() == "cpu":
        scores = jnp.einsum("nlhe,nmhe->nhlm", query * query.shape[-1] ** -0.5, key)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(scores.dtype)
        return jnp.einsum("nhlm,nmhe->nlhe", weights, value)
    fused = jax.default_backend() == "gpu" and query.dtype != jnp.float32  # cuDNN's takes half precision alone
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn" if fused else "xla")


def in_parts(
    features: Callable[[Float[Array, "n size size 3"]], Float[Array, "n p"]],
    pixels: Float[Array, "N size size 3"],
    tokens: int,
) -> Float[Array, "N p"]:
    """The features of N images of so many tokens, on a CPU of few at a time, which is a third faster at 197 tokens."""
    most = max(1, _TOKENS_AT_ONCE // tokens)
    images = pixels.shape[0]
    if jax.default_backend() != "cpu" or export.is_symbolic_dim(images) or images <= most:
        return features(pixels)
    return jax.lax.map(lambda image: features(image[None])[0], pixels, batch_size=most)


def patches(pixels: Float[Array, "N size size 3"], side: int) -> Float[Array, "N L values"]:
    """Square patches, row after row, each of `side * side * 3` values; what is left over at the edges is left out."""
    images, grid = pixels.shape[0], pixels.shape[1] // side
    whole = pixels[:, : grid * side, : grid * side]
    cut = whole.reshape(images, grid, side, grid, side * 3)
    return cut.swapaxes(2, 3).reshape(images, grid * grid, -1)
