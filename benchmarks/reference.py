"""CLIP's two encoders in float64 NumPy, every caption whole and nothing left out: what the fast towers must equal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Params = Mapping[str, Any]
Activation = Callable[[np.ndarray], np.ndarray]


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """OpenAI's activation."""
    return x / (1 + np.exp(-1.702 * x))


def text_features(
    params: Params,
    captions: Sequence[Float[np.ndarray, "L d"]],
    *,
    heads: int,
    epsilon: float = 1e-5,
    activation: Activation = quick_gelu,
) -> Float[np.ndarray, "C p"]:
    """Normalised features of captions, each a row of embedded tokens without positions, pooled at the last.

    Args:
      params: FlaxCLIPModel's `text_model` and `text_projection`.
      captions: from SOS to the token that is pooled.
      heads: of the attention.
      epsilon: of the layer norms.
      activation: of the MLPs.
    """
    text = params["text_model"]
    positions = _wide(text["embeddings"]["position_embedding"]["embedding"])
    features = np.empty((len(captions), np.shape(params["text_projection"]["kernel"])[1]))
    for length in sorted({len(caption) for caption in captions}):
        rows = [row for row, caption in enumerate(captions) if len(caption) == length]
        x = np.stack([_wide(captions[row]) for row in rows]) + positions[:length]
        hidden = np.triu(np.full((length, length), -np.inf), k=1)
        x = _encode(text["encoder"]["layers"], x, heads, epsilon, activation, hidden)[:, -1]
        x = _norm(x, text["final_layer_norm"], epsilon)
        features[rows] = x @ _wide(params["text_projection"]["kernel"])
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def image_features(
    params: Params,
    pixels: Float[np.ndarray, "N size size 3"],
    *,
    heads: int,
    epsilon: float = 1e-5,
    activation: Activation = quick_gelu,
) -> Float[np.ndarray, "N p"]:
    """Normalised features of images.

    Args:
      params: FlaxCLIPModel's `vision_model` and `visual_projection`.
      pixels: normalised as the model wants them.
      heads: of the attention.
      epsilon: of the layer norms.
      activation: of the MLPs.
    """
    vision = params["vision_model"]
    embeddings = vision["embeddings"]
    kernel = _wide(embeddings["patch_embedding"]["kernel"])
    patch, images = kernel.shape[0], len(pixels)
    side = pixels.shape[1] // patch
    cut = _wide(pixels)[:, : side * patch, : side * patch].reshape(images, side, patch, side, patch, 3)
    patches = cut.transpose(0, 1, 3, 2, 4, 5).reshape(images, side * side, -1) @ kernel.reshape(-1, kernel.shape[-1])
    first = np.broadcast_to(_wide(embeddings["class_embedding"]), (images, 1, kernel.shape[-1]))
    x = np.concatenate([first, patches], axis=1) + _wide(embeddings["position_embedding"]["embedding"])
    x = _norm(x, vision["pre_layrnorm"], epsilon)
    x = _encode(vision["encoder"]["layers"], x, heads, epsilon, activation, 0.0)[:, 0]
    features = _norm(x, vision["post_layernorm"], epsilon) @ _wide(params["visual_projection"]["kernel"])
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def _encode(layers: Params, x: np.ndarray, heads: int, epsilon: float, activation: Activation, hidden: Any) -> Any:
    for i in range(len(layers)):
        layer = layers[str(i)]
        x = x + _attention(layer["self_attn"], _norm(x, layer["layer_norm1"], epsilon), heads, hidden)
        inner = activation(_dense(_norm(x, layer["layer_norm2"], epsilon), layer["mlp"]["fc1"]))
        x = x + _dense(inner, layer["mlp"]["fc2"])
    return x


def _attention(layer: Params, x: np.ndarray, heads: int, hidden: Any) -> np.ndarray:
    def parts(name: str) -> np.ndarray:
        return _dense(x, layer[name]).reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    query, key, value = (parts(name) for name in ("q_proj", "k_proj", "v_proj"))
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(key.shape[-1]) + hidden
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attended = (weights / weights.sum(axis=-1, keepdims=True)) @ value
    return _dense(attended.swapaxes(1, 2).reshape(x.shape), layer["out_proj"])


def _norm(x: np.ndarray, params: Params, epsilon: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    return scaled * _wide(params["scale"]) + _wide(params["bias"])


def _dense(x: np.ndarray, params: Params) -> np.ndarray:
    return x @ _wide(params["kernel"]) + _wide(params["bias"])


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
