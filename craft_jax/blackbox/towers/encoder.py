"""A transformer encoder in which every token attends to all: of CLIP's images, and of SigLIP's images and texts.

Query, key and value are one matrix product, and layers run under one `lax.scan` but for the last, which is evaluated at
the pooled tokens alone. Shapes: N inputs, L tokens, d width, H heads.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import export
from jaxtyping import Array, Float

from craft_jax.blackbox.towers import blocks
from craft_jax.blackbox.towers.blocks import Blocks, Layer, Params, layer_norm, of_rank

_ALL = slice(None)
_TOKENS_AT_ONCE = 1600  # on a CPU: a layer's activations stay in its caches


class Encoder(struct.PyTreeNode):
    """The layers of a tower.

    Attributes:
      layers: all but the last, stacked.
      last_layer: the last.
      blocks: what the layers have alike.
    """

    layers: Layer | tuple[Layer, ...]
    last_layer: Layer
    blocks: Blocks

    def __call__(self, x: Float[Array, "N L d"], pooled: slice = _ALL) -> Float[Array, "N l d"]:
        """The tokens after all layers, those of the slice `pooled`."""
        x = blocks.through(self.layers, functools.partial(self._advance, pooled=_ALL), x)
        return self._advance(self.last_layer, x, pooled)

    def _advance(self, layer: Layer, x: Float[Array, "N L d"], pooled: slice) -> Float[Array, "N l d"]:
        normed = layer_norm(x, layer.norm1, self.blocks.epsilon)
        width = x.shape[-1]

        def heads(tokens: Array, start: int, stop: int) -> list[Array]:
            projected = tokens @ layer.qkv_kernel[:, start:stop] + of_rank(layer.qkv_bias[start:stop], tokens.ndim)
            split = projected.reshape(*tokens.shape[:-1], -1, width // self.blocks.heads)
            return jnp.split(split, (stop - start) // width, axis=-2)

        if pooled == _ALL:
            query, key, value = heads(normed, 0, 3 * width)
        else:
            (query,), (key, value) = heads(normed[:, pooled], 0, width), heads(normed, width, 3 * width)
        return self.blocks.feed_forward(layer, x[:, pooled], attend(query, key, value))


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
    *inner, last = blocks.cast([blocks.arrange(layers[str(i)]) for i in range(len(layers))], dtype)
    return Encoder(layers=blocks.stacked(inner), last_layer=last, blocks=Blocks(heads, epsilon, activation))


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
    """The features of N images of so many tokens each, on a CPU of as many at a time as its caches hold."""
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
