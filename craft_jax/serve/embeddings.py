"""Embeddings of texts and images in OpenAI's form, with images as Infinity and Jina take them."""

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from craft_jax.serve import bodies
from craft_jax.serve.limits import Refused
from craft_jax.serve.model import Served

_IMAGE_TOKENS = 1  # what an image counts as in `usage`, which has no other unit


async def embeddings(request: Request, served: Served) -> Response:
    """{"input", "modality", "encoding_format"} to normalised embeddings in order, and the tokens that they took."""
    body = await bodies.read_json(request, served.limits)
    given, modality, encoding = body.get("input"), body.get("modality"), body.get("encoding_format", "float")
    if modality not in (None, "text", "image"):
        raise Refused(f"modality={modality!r} must be text or image")
    if encoding not in ("float", "base64"):
        raise Refused(f"encoding_format={encoding!r} must be float or base64")
    inputs = [_read(value, modality) for value in (given if isinstance(given, list) else [given])]
    if not inputs:
        raise Refused("input is empty; send one text or image at least")

    places = {kind: [i for i, (found, _) in enumerate(inputs) if found == kind] for kind in ("text", "image")}
    rows: dict[int, np.ndarray] = {}
    tokens = 0
    if places["text"]:
        texts = bodies.texts([inputs[i][1] for i in places["text"]], "input", served.limits)
        encoded = await served.texts(texts)
        rows |= zip(places["text"], (text.feature for text in encoded), strict=True)
        tokens += sum(text.tokens for text in encoded)
        served.counts.texts += len(texts)
    if places["image"]:
        images = [inputs[i][1] for i in places["image"]]
        squares = await bodies.squares(images, "input", served)
        rows |= zip(places["image"], await served.images(squares), strict=True)
        tokens += _IMAGE_TOKENS * len(squares)
        served.counts.images += len(squares)
    _check_width(body.get("dimensions"), rows[0].size)
    data = [{"object": "embedding", "index": i, "embedding": _written(rows[i], encoding)} for i in range(len(inputs))]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return bodies.Json({"object": "list", "data": data, "model": served.name, "usage": usage})


def _read(value: Any, modality: str | None) -> tuple[str, Any]:
    """Whether an input is a text or an image, and it: {"text"}, {"image"}, or a string, a data URI or by `modality`."""
    if isinstance(value, dict) and len(value) == 1 and (kind := next(iter(value))) in ("text", "image"):
        return kind, value[kind]
    if not isinstance(value, str):
        raise Refused('input must be a text or a list of texts, data URIs of images, {"text": ...} or {"image": ...}')
    is_image = modality == "image" or (modality is None and value[:11].lower() == "data:image/")
    return ("image" if is_image else "text"), value


def _check_width(dimensions: Any, width: int) -> None:
    if dimensions not in (None, width):
        raise Refused(f"dimensions={dimensions!r}: this model's embeddings have {width}; leave it out")


def _written(feature: np.ndarray, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(np.asarray(feature, "<f4").tobytes()).decode()
    return feature.tolist()
