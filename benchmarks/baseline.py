"""The published way to answer a query: every class padded to 77 tokens, one prompt at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from transformers import FlaxCLIPTextModelWithProjection

from benchmarks.sizes import EOS, TEXT, VISION

try:
    import torch
except ImportError:
    torch = None

NAME = "PyTorch" if torch else "JAX"


def text_query(params: Any, captions: list[list[int]]) -> Callable[[], np.ndarray]:
    """A function that encodes all captions once, [C, p]: in PyTorch where it is installed, else in JAX."""
    ids = np.full((len(captions), TEXT.max_position_embeddings), EOS)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    if torch:
        return _torch_text(params, ids)
    reference = FlaxCLIPTextModelWithProjection(TEXT, _do_init=False)
    encode = jax.jit(lambda params: reference(ids, params=params).text_embeds)
    own = {name: params[name] for name in ("text_model", "text_projection")}
    return lambda: np.asarray(encode(own))


def image_batch(patch: int, images: int) -> Callable[[], Any] | None:
    """A function that encodes a batch of images with ViT-B/`patch` in PyTorch; None where it is not installed."""
    if not torch:
        return None
    from transformers import CLIPVisionModelWithProjection

    reference = CLIPVisionModelWithProjection(VISION[patch]).eval()
    pixels = torch.zeros(images, 3, 224, 224)

    def encode() -> Any:
        with torch.no_grad():
            return reference(pixels).image_embeds

    return encode


def _torch_text(params: Any, ids: np.ndarray) -> Callable[[], np.ndarray]:
    from transformers import CLIPTextModelWithProjection

    reference = CLIPTextModelWithProjection(TEXT).eval()
    reference.load_state_dict(_torch_names(params))
    tokens = torch.from_numpy(ids)

    def encode() -> np.ndarray:
        with torch.no_grad():
            return reference(tokens).text_embeds.numpy()

    return encode


def _torch_names(params: Any) -> dict[str, Any]:
    names = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path({k: params[k] for k in ("text_model", "text_projection")}):
        *modules, kind = (key.key for key in path)
        array = np.array(leaf.T if kind == "kernel" else leaf)
        state[".".join([*modules, names[kind]])] = torch.from_numpy(array)
    return state


def normalised(features: np.ndarray) -> np.ndarray:
    """Unit-length rows."""
    return np.asarray(features / jnp.linalg.norm(features, axis=-1, keepdims=True))
