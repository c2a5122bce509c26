"""From the weights of OpenAI's ResNet CLIPs, by their names in PyTorch, to the parameters of our two towers.

PyTorch's axes turn into Flax's here and nowhere else: kernels [out, in, h, w] -> [h, w, in, out], matrices transposed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from craft_jax.blackbox.towers import resnet_architecture
from craft_jax.blackbox.towers.resnet_architecture import Architecture
from craft_jax.errors import UserError

Weights = Mapping[str, np.ndarray]

ENTRIES = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives keep among the weights."""

_NORM_EPSILON = 1e-5


def is_buffer(name: str) -> bool:
    """Whether a name stands for what no prediction depends on, or what the architecture says already."""
    return name.endswith(".num_batches_tracked") or name == "attn_mask" or name in ENTRIES


def check(weights: Weights, architecture: Architecture) -> dict[str, np.ndarray]:
    """The weights without buffers, if they are those of the architecture.

    Raises:
      UserError: listing those that are missing, left over, or of another shape.
    """
    found = {name: value for name, value in weights.items() if not is_buffer(name)}
    expected = resnet_architecture.layout(architecture)
    complaints = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "of the wrong shape": [
            f"{name} {found[name].shape} instead of {shape}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(complaints.values()):
        listed = "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in complaints.items() if names)
        raise UserError(f"the weights are not those of the architecture: {listed}")
    return found


def image_params(weights: Weights, architecture: Architecture) -> dict[str, Any]:
    """Parameters of `resnet.ModifiedResNet`, float32."""
    params: dict[str, Any] = {f"conv{i}": _folded(weights, f"visual.conv{i}", f"visual.bn{i}") for i in (1, 2, 3)}
    for stage, block, _, _ in resnet_architecture.bottlenecks(architecture):
        at = f"visual.layer{stage}.{block}"
        bottleneck = {f"conv{i}": _folded(weights, f"{at}.conv{i}", f"{at}.bn{i}") for i in (1, 2, 3)}
        if block == 0:
            bottleneck["downsample"] = _folded(weights, f"{at}.downsample.0", f"{at}.downsample.1")
        params[f"layer{stage}_{block}"] = bottleneck
    pool = {name: _dense(weights, f"visual.attnpool.{name}") for name in ("q_proj", "k_proj", "v_proj", "c_proj")}
    position = _float32(weights["visual.attnpool.positional_embedding"])
    return params | {"attnpool": pool | {"positional_embedding": position}}


def text_params(weights: Weights, architecture: Architecture) -> dict[str, Any]:
    """Parameters of the text encoder and the logit scale as FlaxCLIPModel lays them out, float32."""
    layers = range(architecture.text_layers)
    return {
        "text_model": {
            "embeddings": {
                "token_embedding": {"embedding": _float32(weights["token_embedding.weight"])},
                "position_embedding": {"embedding": _float32(weights["positional_embedding"])},
            },
            "encoder": {"layers": {str(i): _text_layer(weights, f"transformer.resblocks.{i}") for i in layers}},
            "final_layer_norm": _norm(weights, "ln_final"),
        },
        "text_projection": {"kernel": _float32(weights["text_projection"])},
        "logit_scale": _float32(weights["logit_scale"]),
    }


def _text_layer(weights: Weights, at: str) -> dict[str, Any]:
    kernels = np.split(_float32(weights[f"{at}.attn.in_proj_weight"]), 3)
    biases = np.split(_float32(weights[f"{at}.attn.in_proj_bias"]), 3)
    attention = {
        f"{name}_proj": {"kernel": kernel.T, "bias": bias}
        for name, kernel, bias in zip("qkv", kernels, biases, strict=True)
    }
    return {
        "self_attn": attention | {"out_proj": _dense(weights, f"{at}.attn.out_proj")},
        "layer_norm1": _norm(weights, f"{at}.ln_1"),
        "layer_norm2": _norm(weights, f"{at}.ln_2"),
        "mlp": {"fc1": _dense(weights, f"{at}.mlp.c_fc"), "fc2": _dense(weights, f"{at}.mlp.c_proj")},
    }


def _folded(weights: Weights, convolution: str, norm: str) -> dict[str, np.ndarray]:
    """A convolution without bias and the batch norm after it, as one convolution; folded in float64."""
    scale, shift, mean, variance = (
        weights[f"{norm}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = scale / np.sqrt(variance + _NORM_EPSILON)
    kernel = weights[f"{convolution}.weight"].transpose(2, 3, 1, 0) * gain
    return {"kernel": _float32(kernel), "bias": _float32(shift - mean * gain)}


def _dense(weights: Weights, name: str) -> dict[str, np.ndarray]:
    return {"kernel": _float32(weights[f"{name}.weight"]).T, "bias": _float32(weights[f"{name}.bias"])}


def _norm(weights: Weights, name: str) -> dict[str, np.ndarray]:
    return {"scale": _float32(weights[f"{name}.weight"]), "bias": _float32(weights[f"{name}.bias"])}


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
