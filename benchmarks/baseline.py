"""The published way to answer a query: every class padded to 77 tokens, one prompt at a time.

In PyTorch where it is installed and runs on the kind of device that JAX uses, else in JAX; PyTorch with as many threads
as the process has cores, in inference mode.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sizes import EOS, TEXT, VISION, image_params
from craft_jax.blackbox.loaders import flax_clip

try:
    import torch
except ImportError:
    torch = None

_KIND = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend(), "none")
_IN_TORCH = bool(torch) and (_KIND == "cpu" or (_KIND == "cuda" and torch.cuda.is_available()))
NAME = f"PyTorch {torch.__version__}" if _IN_TORCH else f"JAX {jax.__version__}"


def text_query(params: Any, captions: list[list[int]]) -> Callable[[], np.ndarray]:
    """A function that encodes all captions once, [C, p]."""
    ids = np.full((len(captions), TEXT.max_position_embeddings), EOS)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    if _IN_TORCH:
        return _torch_text(params, ids)
    from transformers import FlaxCLIPTextModelWithProjection  # transformers 5 has none

    reference = FlaxCLIPTextModelWithProjection(TEXT, _do_init=False)
    encode = jax.jit(lambda params: reference(ids, params=params).text_embeds)
    own = {name: params[name] for name in ("text_model", "text_projection")}

    def query() -> np.ndarray:
        with jax.default_matmul_precision("float32"):
            return np.asarray(encode(own))

    return query


def image_batch(clip: Any, patch: int, images: int) -> Callable[[], Any]:
    """A function that encodes a batch of images with ViT-B/`patch`."""
    if not _IN_TORCH:
        encode = jax.jit(functools.partial(flax_clip.image_features, clip.module))
        params, blank = image_params(clip), jnp.zeros((images, 224, 224, 3))
        return lambda: encode(params, blank)
    from transformers import CLIPVisionModelWithProjection

    reference = CLIPVisionModelWithProjection(VISION[patch]).eval().to(_KIND)
    pixels = torch.zeros(images, 3, 224, 224, device=_KIND)
    return torch.inference_mode()(lambda: reference(pixels).image_embeds.cpu().numpy())


def _torch_text(params: Any, ids: np.ndarray) -> Callable[[], np.ndarray]:
    from transformers import CLIPTextModelWithProjection

    reference = CLIPTextModelWithProjection(TEXT).eval()
    reference.load_state_dict(_torch_names(params))
    reference = reference.to(_KIND)
    tokens = torch.from_numpy(ids).to(_KIND)
    return torch.inference_mode()(lambda: reference(tokens).text_embeds.cpu().numpy())


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
    return features / np.linalg.norm(features, axis=-1, keepdims=True)
