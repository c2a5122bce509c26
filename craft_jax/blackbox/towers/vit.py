"""CLIP's vision transformer: FlaxCLIPModel's image features by fewer, larger operations, from the same parameters.

Patches enter by one matrix product, query, key and value are one more, layers run under one `lax.scan`, and the last is
evaluated at the class token alone, which is all that is pooled. Shapes: N images, L tokens, d width, H heads.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from craft_jax.blackbox.towers.blocks import Params, dense, layer_norm, of_rank


class Layer(struct.PyTreeNode):
    """Parameters of a layer, or of several with a first axis for them; query, key and value side by side."""

    qkv_kernel: Array
    qkv_bias: Array
    out: Params
    norm1: Params
    norm2: Params
    fc1: Params
    fc2: Params


class VisionTower(struct.PyTreeNode):
    """Image features of normalised pixels.

    Attributes:
      patch_kernel: from a patch's pixels, row after row, to the width, [patch * patch * 3, d].
      class_token: first of the tokens, [d].
      positions: embeddings of all tokens' positions, [L, d].
      first_norm, last_norm: before the first layer, and of the class token after the last.
      layers: all but the last, stacked; [layers - 1, ...].
      last_layer: the last.
      projection: from the class token to the feature, [d, p].
      patch: side of a patch in pixels.
      heads, epsilon, activation: of the encoder.
      dtype: that the layers compute in; sums over a row (norms, softmax) and the feature itself stay float32.
    """

    patch_kernel: Array
    class_token: Array
    positions: Array
    first_norm: Params
    last_norm: Params
    layers: Layer
    last_layer: Layer
    projection: Array
    patch: int = struct.field(pytree_node=False)
    heads: int = struct.field(pytree_node=False)
    epsilon: float = struct.field(pytree_node=False)
    activation: Callable[[Array], Array] = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)


def features(tower: VisionTower, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N p"]:
    """Features of normalised pixels, not normalised, float32."""
    patches = _patches(pixels, tower.patch).astype(tower.dtype) @ tower.patch_kernel
    first = jnp.broadcast_to(tower.class_token, (patches.shape[0], 1, patches.shape[-1]))
    x = layer_norm(jnp.concatenate([first, patches], axis=1) + tower.positions[None], tower.first_norm, tower.epsilon)

    def advance(x: Array, layer: Layer) -> tuple[Array, None]:
        return _advance(tower, layer, x, queries=x.shape[1]), None

    x, _ = jax.lax.scan(advance, x, tower.layers)
    pooled = _advance(tower, tower.last_layer, x, queries=1)[:, 0]
    return layer_norm(pooled.astype(jnp.float32), tower.last_norm, tower.epsilon) @ tower.projection


def build(
    params: Params,
    *,
    patch: int,
    heads: int,
    epsilon: float,
    activation: Callable[[Array], Array],
    dtype: Any = jnp.float32,
) -> VisionTower:
    """Arranges FlaxCLIPModel's parameters for `features`.

    Args:
      params: its `vision_model` and `visual_projection`, float32.
      patch: side of a patch in pixels.
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      dtype: that the layers compute in.
    """
    vision = params["vision_model"]
    embeddings, encoder = vision["embeddings"], vision["encoder"]["layers"]
    layers = [_arrange(encoder[str(i)]) for i in range(len(encoder))]

    def cast(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)

    kernel = embeddings["patch_embedding"]["kernel"]
    return VisionTower(
        patch_kernel=cast(kernel.reshape(-1, kernel.shape[-1])),
        class_token=cast(embeddings["class_embedding"]),
        positions=cast(embeddings["position_embedding"]["embedding"]),
        first_norm=cast(vision["pre_layrnorm"]),
        last_norm=jax.tree.map(jnp.asarray, vision["post_layernorm"]),
        layers=cast(jax.tree.map(lambda *leaves: jnp.stack(leaves)[:-1], *layers)),
        last_layer=cast(layers[-1]),
        projection=jnp.asarray(params["visual_projection"]["kernel"]),
        patch=patch,
        heads=heads,
        epsilon=epsilon,
        activation=activation,
        dtype=jnp.dtype(dtype),
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


def _patches(pixels: Array, patch: int) -> Array:
    """From [N, size, size, 3] to [N, grid * grid, patch * patch * 3]; what is left over at the edges is left out."""
    images, grid = pixels.shape[0], pixels.shape[1] // patch
    whole = pixels[:, : grid * patch, : grid * patch]
    cut = whole.reshape(images, grid, patch, grid, patch * 3)
    return cut.swapaxes(2, 3).reshape(images, grid * grid, -1)


def _advance(tower: VisionTower, layer: Layer, x: Float[Array, "N L d"], queries: int) -> Float[Array, "N queries d"]:
    """The first tokens after a layer, `queries` of them."""
    normed = layer_norm(x, layer.norm1, tower.epsilon)
    width = x.shape[-1]

    def heads(tokens: Array, start: int, stop: int) -> list[Array]:
        projected = tokens @ layer.qkv_kernel[:, start:stop] + of_rank(layer.qkv_bias[start:stop], tokens.ndim)
        split = projected.reshape(*tokens.shape[:-1], -1, width // tower.heads)
        return jnp.split(split, (stop - start) // width, axis=-2)

    if queries == x.shape[1]:
        query, key, value = heads(normed, 0, 3 * width)
    else:
        (query,), (key, value) = heads(normed[:, :queries], 0, width), heads(normed, width, 3 * width)
    attended = _attend(query, key, value).reshape(x.shape[0], queries, width)
    x = x[:, :queries] + dense(attended, layer.out)
    hidden = tower.activation(dense(layer_norm(x, layer.norm2, tower.epsilon), layer.fc1))
    return x + dense(hidden, layer.fc2)


def _attend(query: Float[Array, "N l H e"], key: Float[Array, "N L H e"], value: Float[Array, "N L H e"]) -> Array:
    """Every query attends to all tokens."""
    if jax.default_backend() == "cpu":
        scores = jnp.einsum("nlhe,nmhe->nhlm", query * query.shape[-1] ** -0.5, key)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(scores.dtype)
        return jnp.einsum("nhlm,nmhe->nlhe", weights, value)
    fused = jax.default_backend() == "gpu" and query.dtype != jnp.float32  # cuDNN's takes half precision alone
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn" if fused else "xla")
