"""A layer of a transformer: its parameters, and what it does to each token by itself.

How tokens attend to each other is `attention`'s in CLIP's text tower, and `encoder`'s elsewhere. Shapes: any leading
axes, d width, H heads, dh = d / H.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

Params = Mapping[str, Any]
State = TypeVar("State")
Tree = TypeVar("Tree")
AnyLayer = TypeVar("AnyLayer", bound="Layer")


class Layer(struct.PyTreeNode):
    """Parameters of a layer, or of several with a first axis for them; query, key and value side by side."""

    qkv_kernel: Array
    qkv_bias: Array
    out: Params
    norm1: Params
    norm2: Params
    fc1: Params
    fc2: Params


class CausalLayer(Layer):
    """The same with what SOS attends with, the first token of every caption."""

    sos_key: Array
    sos_value: Array


class Blocks(struct.PyTreeNode):
    """What all layers have alike.

    Attributes:
      heads: of the attention.
      epsilon: of the layer norms.
      activation: of the MLPs.
    """

    heads: int = struct.field(pytree_node=False)
    epsilon: float = struct.field(pytree_node=False)
    activation: Callable[[Array], Array] = struct.field(pytree_node=False)

    def heads_of(self, layer: Layer, x: Float[Array, "*lead d"]) -> tuple[Array, Array, Array]:
        """Query, scaled, key and value, each [*lead, H, dh]."""
        normed = layer_norm(x, layer.norm1, self.epsilon)
        qkv = normed @ layer.qkv_kernel + of_rank(layer.qkv_bias, x.ndim)
        query, key, value = jnp.split(qkv.reshape(*x.shape[:-1], 3 * self.heads, x.shape[-1] // self.heads), 3, axis=-2)
        return query * key.shape[-1] ** -0.5, key, value

    def feed_forward(self, layer: Layer, x: Float[Array, "*lead d"], attended: Array) -> Float[Array, "*lead d"]:
        """The layer's output from its input and what its tokens have attended to, [*lead, H, dh]."""
        x = x + dense(attended.reshape(x.shape), layer.out)
        hidden = self.activation(dense(layer_norm(x, layer.norm2, self.epsilon), layer.fc1))
        return x + dense(hidden, layer.fc2)


def arrange(layer: Params) -> Layer:
    """A layer of parameters as FlaxCLIPModel names them."""
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


def with_sos_states(blocks: Blocks, layers: list[Layer], sos: Float[Array, " d"]) -> list[CausalLayer]:
    """The layers with the key and value of the token that starts every caption, [1, H, dh].

    It sees only itself, so attention returns its own value and its states depend on no prompt.
    """
    x, complete = sos[None, None], []
    for layer in layers:
        _, key, value = blocks.heads_of(layer, x)
        complete.append(CausalLayer(**vars(layer), sos_key=key[0], sos_value=value[0]))
        x = blocks.feed_forward(layer, x, value)
    return complete


def cast(tree: Tree, dtype: Any) -> Tree:
    """Parameters in the dtype that layers compute in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def stacked(layers: list[AnyLayer]) -> AnyLayer | tuple[AnyLayer, ...]:
    """Layers as `through` scans over them: one, with a leading axis; none stay none."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers) if layers else ()


def through(
    layers: AnyLayer | tuple[AnyLayer, ...], advance: Callable[[AnyLayer, State], State], state: State
) -> State:
    """Layer after layer: stacked ones in a scan, whose body compiles once; else each in turn."""
    if isinstance(layers, Layer):
        return jax.lax.scan(lambda state, layer: (advance(layer, state), None), state, layers)[0]
    for layer in layers:
        state = advance(layer, state)
    return state


def dense(x: Array, params: Params) -> Array:
    """An affine map of the last axis."""
    return x @ params["kernel"] + of_rank(params["bias"], x.ndim)


def layer_norm(x: Array, params: Params, epsilon: float) -> Array:
    """Over the last axis; its sums are float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    scale, bias = (of_rank(params[name], x.ndim) for name in ("scale", "bias"))
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype) * scale + bias


def of_rank(x: Array, rank: int) -> Array:
    """An array with as many leading axes of one more as it lacks, so that no rank is promoted unseen."""
    return jnp.expand_dims(x, tuple(range(rank - x.ndim)))
