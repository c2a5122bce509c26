"""SigLIP's vision transformer, which pools by attention: every patch is looked at by one learnt probe.

The probe is the same for every image, so its query is computed once. Shapes: N images, L patches, d width, H heads.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from craft_jax.blackbox.towers import blocks, encoder
from craft_jax.blackbox.towers.blocks import Params, dense, layer_norm, of_rank
from craft_jax.blackbox.towers.encoder import Encoder


class Pooling(struct.PyTreeNode):
    """From patches to the feature.

    Attributes:
      query: of the probe, [H, d / H].
      key_value_kernel, key_value_bias: key and value side by side, [d, 2 d] and [2 d].
      out, norm, fc1, fc2: what attention gives is projected, and an MLP's output is added to it.
    """

    query: Array
    key_value_kernel: Array
    key_value_bias: Array
    out: Params
    norm: Params
    fc1: Params
    fc2: Params


class SiglipVisionTower(struct.PyTreeNode):
    """Image features of normalised pixels.

    Attributes:
      patch_kernel, patch_bias: from a patch's pixels, row after row, to the width, [patch * patch * 3, d] and [d].
      positions: embeddings of the patches' positions, [L, d].
      encoder: the layers.
      last_norm: of all patches after the last layer.
      pooling: from there to the feature.
      patch: side of a patch in pixels.
      dtype: that the layers compute in; sums over a row (norms, softmax) and what is pooled stay float32.
    """

    patch_kernel: Array
    patch_bias: Array
    positions: Array
    encoder: Encoder
    last_norm: Params
    pooling: Pooling
    patch: int = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)


def features(tower: SiglipVisionTower, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N d"]:
    """Features of normalised pixels, not normalised, float32."""
    return encoder.in_parts(functools.partial(_features, tower), pixels, len(tower.positions))


def _features(tower: SiglipVisionTower, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N d"]:
    embedded = encoder.patches(pixels, tower.patch).astype(tower.dtype) @ tower.patch_kernel
    x = tower.encoder(embedded + of_rank(tower.patch_bias, 3) + tower.positions[None])
    return _pool(tower, layer_norm(x, tower.last_norm, tower.encoder.blocks.epsilon))


def _pool(tower: SiglipVisionTower, x: Float[Array, "N L d"]) -> Float[Array, "N d"]:
    pooling, layers = tower.pooling, tower.encoder.blocks
    projected = x @ pooling.key_value_kernel + of_rank(pooling.key_value_bias, 3)
    key, value = jnp.split(projected.reshape(*x.shape[:-1], 2 * layers.heads, -1), 2, axis=-2)
    query = jnp.broadcast_to(pooling.query, (x.shape[0], 1, *pooling.query.shape))
    attended = encoder.attend(query, key, value).reshape(x.shape[0], -1).astype(jnp.float32)
    pooled = dense(attended, pooling.out)
    hidden = layers.activation(dense(layer_norm(pooled, pooling.norm, layers.epsilon), pooling.fc1))
    return pooled + dense(hidden, pooling.fc2)


def build(
    params: Params,
    *,
    patch: int,
    heads: int,
    epsilon: float,
    activation: Callable[[Array], Array],
    dtype: Any = jnp.float32,
) -> SiglipVisionTower:
    """Arranges SiglipModel's parameters for `features`.

    Args:
      params: its `vision_model`, float32, named as `loaders.parameters` names them.
      patch: side of a patch in pixels.
      heads: attention heads, of the layers and of the pooling.
      epsilon: of the layer norms.
      activation: of the MLPs.
      dtype: that the layers compute in.
    """
    vision = params["vision_model"]
    embeddings = vision["embeddings"]
    cast = functools.partial(blocks.cast, dtype=dtype)
    kernel = embeddings["patch_embedding"]["kernel"]
    return SiglipVisionTower(
        patch_kernel=cast(kernel.reshape(-1, kernel.shape[-1])),
        patch_bias=cast(embeddings["patch_embedding"]["bias"]),
        positions=cast(embeddings["position_embedding"]["embedding"]),
        encoder=encoder.build(
            vision["encoder"]["layers"], heads=heads, epsilon=epsilon, activation=activation, dtype=dtype
        ),
        last_norm=cast(vision["post_layernorm"]),
        pooling=_arrange_pooling(vision["head"], heads, cast),
        patch=patch,
        dtype=jnp.dtype(dtype),
    )


def _arrange_pooling(head: Params, heads: int, cast: Callable[[Any], Any]) -> Pooling:
    attention = head["attention"]
    kernel, bias = jnp.asarray(attention["in_proj_weight"]).T, jnp.asarray(attention["in_proj_bias"])
    width = kernel.shape[0]
    with jax.default_matmul_precision("float32"):
        query = jnp.asarray(head["probe"])[0, 0] @ kernel[:, :width] + bias[:width]
    return Pooling(
        query=cast(query.reshape(heads, -1)),
        key_value_kernel=cast(kernel[:, width:]),
        key_value_bias=cast(bias[width:]),
        out=attention["out_proj"],
        norm=head["layernorm"],
        fc1=head["mlp"]["fc1"],
        fc2=head["mlp"]["fc2"],
    )
