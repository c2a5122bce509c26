"""Labels in, scores out, in three forms of hosted models.

Hugging Face's zero-shot image classification, Roboflow's CLIP compare, and clip-as-service's rank.
"""

import asyncio
import time
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special
from starlette.requests import Request
from starlette.responses import Response

from craft_jax.serve import bodies
from craft_jax.serve.limits import Refused
from craft_jax.serve.model import Served

_TEMPLATE = "This is a photo of {}."  # where a request names none, as in Hugging Face's own


def softmax(logits: Float[np.ndarray, "*N T"]) -> Float[np.ndarray, "*N T"]:
    """Probabilities over texts, float64."""
    exponentials = np.exp(np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


async def zero_shot(request: Request, served: Served) -> Response:
    """Hugging Face: {"inputs", "parameters": {"candidate_labels", "hypothesis_template"}} to scores, highest first."""
    body = await bodies.read_json(request, served.limits)
    inputs = body.get("inputs")
    image = inputs.get("image") if isinstance(inputs, dict) else inputs
    if image is None:
        raise Refused("inputs is missing: an image in base64, or an object with one at image")
    parameters = body.get("parameters")
    if not isinstance(parameters, dict):
        raise Refused("parameters is missing: an object with candidate_labels")
    names = bodies.texts(parameters.get("candidate_labels"), "parameters.candidate_labels", served.limits)
    template = parameters.get("hypothesis_template", _TEMPLATE)
    if not isinstance(template, str) or "{}" not in template:
        raise Refused("parameters.hypothesis_template must be a text with {} where the label goes")
    squares = await bodies.squares([image], "inputs", served)
    captions = bodies.texts([template.replace("{}", name) for name in names], "candidate_labels", served.limits)
    cosines = await _cosines(served, squares, captions)
    logits = served.logit_scale * np.asarray(cosines[0], np.float64)
    scores = softmax(logits) if served.logit_bias is None else special.expit(logits + served.logit_bias)
    order = np.argsort(-scores, kind="stable")
    return bodies.Json([{"score": float(scores[i]), "label": names[i]} for i in order])


async def compare(request: Request, served: Served) -> Response:
    """Roboflow: {"subject", "subject_type": "image", "prompt", "prompt_type": "text"} to cosines in order."""
    started = time.perf_counter()
    body = await bodies.read_json(request, served.limits)
    for name, kind in (("subject_type", "image"), ("prompt_type", "text")):
        if body.get(name, kind) != kind:
            raise Refused(f"{name} must be {kind} here")
    subject, prompt = body.get("subject"), body.get("prompt")
    if isinstance(subject, dict):
        if subject.get("type", "base64") != "base64":
            raise Refused("subject.type must be base64; this server fetches nothing")
        subject = subject.get("value")
    prompts = list(prompt.values()) if isinstance(prompt, dict) else [prompt] if isinstance(prompt, str) else prompt
    captions = bodies.texts(prompts, "prompt", served.limits)
    squares = await bodies.squares([subject], "subject", served)
    similarity: Any = (await _cosines(served, squares, captions))[0].tolist()
    if isinstance(prompt, dict):
        similarity = dict(zip(prompt, similarity, strict=True))
    passed = time.perf_counter() - started
    return bodies.Json({"frame_id": None, "time": passed, "similarity": similarity, "parent_id": None})


async def rank(request: Request, served: Served) -> Response:
    """clip-as-service: {"data": [{"uri", "matches": [{"text"}]}], "execEndpoint": "/rank"} to matches, best first."""
    body = await bodies.read_json(request, served.limits)
    if body.get("execEndpoint") != "/rank":
        raise Refused("execEndpoint must be /rank here; POST /v1/embeddings answers embeddings")
    documents = body.get("data")
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise Refused("data must be a list of objects with uri and matches")
    served.limits.check("images", len(documents))
    captions = [_matches(document) for document in documents]
    flat = bodies.texts([text for texts in captions for text in texts], "data.matches", served.limits)
    images = [document.get("uri", document.get("blob")) for document in documents]
    squares = await bodies.squares(images, "data.uri", served)
    cosines = await _cosines(served, squares, flat)
    answers, first = [], 0
    for row, texts in zip(cosines, captions, strict=True):
        answers.append({"matches": _ranked(texts, row[first : first + len(texts)], served.logit_scale)})
        first += len(texts)
    return bodies.Json({"header": {"execEndpoint": "/rank"}, "data": answers})


def _matches(document: dict[str, Any]) -> list[Any]:
    matches = document.get("matches")
    if not isinstance(matches, list) or not matches or not all(isinstance(match, dict) for match in matches):
        raise Refused("data.matches must be a list of objects with text")
    return [match.get("text") for match in matches]


def _ranked(texts: list[str], cosines: np.ndarray, logit_scale: float) -> list[dict[str, Any]]:
    scores = softmax(logit_scale * cosines)
    return [
        {
            "text": texts[i],
            "scores": {
                "clip_score": {"value": float(scores[i])},
                "clip_score_cosine": {"value": float(cosines[i])},
            },
        }
        for i in np.argsort(-scores, kind="stable")
    ]


async def _cosines(served: Served, squares: list[Any], captions: list[str]) -> Float[np.ndarray, "N T"]:
    """Compares what a request has brought, and counts it."""
    images, texts = await asyncio.gather(served.images(squares), served.text_features(captions))
    served.counts.images += len(squares)
    served.counts.texts += len(captions)
    return images @ texts.T
