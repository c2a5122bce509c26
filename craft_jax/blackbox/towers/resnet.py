"""The image tower of OpenAI's ResNet CLIPs (Radford et al. 2021, arXiv 2103.00020, section 2.4) in flax.linen.

Three changes to ResNet: a stem of three convolutions, average pooling before every strided convolution (so that strides
do not alias), and attention pooling in place of the global average. Axes: N images, H x W positions, D channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EXPANSION = 4


class ModifiedResNet(nn.Module):
    """From normalised pixels to image features.

    Batch norms stand in their inference form: they are folded into the convolution before them, as its bias and scale.

    Attributes:
      layers: bottlenecks in each of the four stages.
      width: channels that the stem puts out.
      heads: of the attention pooling.
      features: length of the image feature, p.
      dtype: that it computes in; the softmax stays float32.
    """

    layers: Sequence[int]
    width: int
    heads: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "N size size 3"]) -> Float[Array, "N p"]:
        """The features, not normalised."""
        x = nn.relu(_conv3x3(self.width // 2, "conv1", self.dtype, stride=2)(pixels))
        x = nn.relu(_conv3x3(self.width // 2, "conv2", self.dtype)(x))
        x = nn.relu(_conv3x3(self.width, "conv3", self.dtype)(x))
        x = _average(x, 2)
        for stage, blocks in enumerate(self.layers):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Bottleneck(self.width * 2**stage, stride, self.dtype, name=f"layer{stage + 1}_{block}")(x)
        return AttentionPool(self.heads, self.features, self.dtype, name="attnpool")(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; a stride is an average pooling on both ways."""

    width: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W D"]) -> Float[Array, "N h w D_out"]:
        """The block's output, h = H / stride and D_out = 4 * width."""
        channels = EXPANSION * self.width
        y = nn.relu(_conv1x1(self.width, "conv1", self.dtype)(x))
        y = nn.relu(_conv3x3(self.width, "conv2", self.dtype)(y))
        y = _conv1x1(channels, "conv3", self.dtype)(_average(y, self.stride))
        if self.stride > 1 or x.shape[-1] != channels:
            x = _conv1x1(channels, "downsample", self.dtype)(_average(x, self.stride))
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """Multi-head attention of the positions' mean to that mean and all positions, each with a learnt position."""

    heads: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W D"]) -> Float[Array, "N p"]:
        """The attended mean, projected."""
        width = x.shape[-1]
        x = x.reshape(x.shape[0], -1, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        positions = self.param("positional_embedding", nn.initializers.normal(width**-0.5), x.shape[1:])
        x = x + positions[None].astype(self.dtype)

        def heads(name: str, tokens: Array) -> Array:
            projected = nn.Dense(width, dtype=self.dtype, name=name)(tokens)
            return projected.reshape(*tokens.shape[:-1], self.heads, -1)

        query, key, value = heads("q_proj", x[:, 0]), heads("k_proj", x), heads("v_proj", x)
        scores = jnp.einsum("nhe,nmhe->nhm", query, key) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
        attended = jnp.einsum("nhm,nmhe->nhe", weights, value)
        return nn.Dense(self.features, dtype=self.dtype, name="c_proj")(attended.reshape(-1, width))


def _conv1x1(channels: int, name: str, dtype: Any) -> nn.Conv:
    return nn.Conv(channels, (1, 1), dtype=dtype, name=name)


def _conv3x3(channels: int, name: str, dtype: Any, stride: int = 1) -> nn.Conv:
    # Padding is spelt out: "SAME" would pad a strided convolution on one side alone.
    return nn.Conv(channels, (3, 3), strides=stride, padding=1, dtype=dtype, name=name)


def _average(x: Array, stride: int) -> Array:
    return x if stride == 1 else nn.avg_pool(x, (stride, stride), (stride, stride))
