"""CLIP's vision transformer: FlaxCLIPModel's image features by fewer, larger operations, from the same parameters.

Patches enter by one matrix product, and the last layer is evaluated at the class token alone, which is all that is
pooled. Shapes: N images, L tokens, d width.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from craft_jax.blackbox.towers import blocks, encoder
from craft_jax.blackbox.towers.blocks import Params, layer_norm
from craft_jax.blackbox.towers.encoder import Encoder


class VisionTower(struct.PyTreeNode):
    """Image features of normalised pixels.

    Attributes:
      patch_kernel: from a patch's pixels, row after row, to the width, [patch * patch * 3, d].
      class_token: first of the tokens, [d].
      positions: embeddings of all tokens' positions, [L, d].
      first_norm, last_norm: before the first layer, and of the class token after the last.
      encoder: the layers.
      projection: from the class token to the feature, [d, p].
      patch: side of a patch in pixels.
      dtype: that the layers compute in; sums over a row (norms, softmax) and the feature itself stay float32.
    """

    patch_kernel: Array
    class_token: Array
    positions: Array
    first_norm: Params
    last_norm: Params
    encoder: Encoder
    projection: Array
    patch: int = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)


def features(tower: VisionTower, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N p"]:
    """Features of normalised pixels, not normalised, float32."""
    return encoder.in_parts(functools.partial(_features, tower), pixels, len(tower.positions))


def _features(tower: VisionTower, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N p"]:
    patches = encoder.patches(pixels, tower.patch).astype(tower.dtype) @ tower.patch_kernel
    first = jnp.broadcast_to(tower.class_token, (patches.shape[0], 1, patches.shape[-1]))
    x = jnp.concatenate([first, patches], axis=1) + tower.positions[None]
    pooled = tower.encoder(layer_norm(x, tower.first_norm, tower.encoder.blocks.epsilon), pooled=slice(1))[:, 0]
    return layer_norm(pooled.astype(jnp.float32), tower.last_norm, tower.encoder.blocks.epsilon) @ tower.projection


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
    embeddings = vision["embeddings"]
    cast = functools.partial(blocks.cast, dtype=dtype)
    kernel = embeddings["patch_embedding"]["kernel"]
    return VisionTower(
        patch_kernel=cast(kernel.reshape(-1, kernel.shape[-1])),
        class_token=cast(embeddings["class_embedding"]),
        positions=cast(embeddings["position_embedding"]["embedding"]),
        first_norm=cast(vision["pre_layrnorm"]),
        last_norm=jax.tree.map(jnp.asarray, vision["post_layernorm"]),
        encoder=encoder.build(
            vision["encoder"]["layers"], heads=heads, epsilon=epsilon, activation=activation, dtype=dtype
        ),
        projection=jnp.asarray(params["visual_projection"]["kernel"]),
        patch=patch,
        dtype=jnp.dtype(dtype),
    )
