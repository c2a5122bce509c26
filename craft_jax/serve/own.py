"""Our own form, for soft prompts: images are sent once and named by their content, and then asked about by name."""

from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from craft_jax.serve import bodies
from craft_jax.serve.limits import Limits, Refused
from craft_jax.serve.model import Question, Served, square

_TEMPLATE = "a photo of a {}."


async def about(request: Request, served: Served) -> Response:
    """What the model is, for a template: all that a client needs to start."""
    template = request.query_params.get("template", _TEMPLATE)
    _check_template(template, served.limits)
    prompt = await served.initial_prompt(template)
    return bodies.Json(
        {
            "model": served.name,
            "fingerprint": served.fingerprint,
            "image_size": served.image_size,
            "resizing": served.resizing._asdict(),
            "initial_prompt": prompt.tolist(),
            "takes": ["soft prompts", "texts"],
            "logit_scale": served.logit_scale,
            "limits": {name: getattr(served.limits, name) for name in ("body", "images", "texts", "prompts")},
        }
    )


async def images(request: Request, served: Served) -> Response:
    """Takes npz with `images`, uint8 [N, size, size, 3]; their names, the SHA-256 of their pixels."""
    body = await bodies.read(request, served.limits)
    pixels = (await run_in_threadpool(bodies.arrays, body, ["images"], served.limits))["images"]
    size = served.image_size
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
        raise Refused(f"images is {pixels.dtype} {list(pixels.shape)}, not uint8 [N, {size}, {size}, 3]")
    served.limits.check("images", len(pixels))
    squares = await run_in_threadpool(lambda: [square(image) for image in pixels])
    await served.images(squares)
    served.counts.images += len(squares)
    return bodies.Json({"ids": [image.id for image in squares]})


async def predict(request: Request, served: Served) -> Response:
    """Takes npz with `prompts`, `ids`, `classes` and `template`; npy of logits, float32 [K, N, C]."""
    body = await bodies.read(request, served.limits)
    wanted = ["prompts", "ids", "classes", "template"]
    question = _question(await run_in_threadpool(bodies.arrays, body, wanted, served.limits), served.limits)
    logits = await served.predict(question)
    served.counts.prompts += len(question.prompts)
    served.counts.texts += len(question.classes)
    served.counts.predictions += len(question.prompts) * len(question.ids)
    return bodies.array(logits)


async def texts(request: Request, served: Served) -> Response:
    """Takes JSON with `texts`, whole captions, and `ids`; npy of logits, float32 [N, T]."""
    body = await bodies.read_json(request, served.limits)
    captions = bodies.texts(body.get("texts"), "texts", served.limits)
    ids = bodies.names(body.get("ids"), "ids", served.limits)
    features = await served.known(ids)
    encoded = await served.text_features(captions)
    served.counts.texts += len(captions)
    served.counts.predictions += len(captions) * len(ids)
    logits = np.float32(served.logit_scale) * (features @ encoded.T)
    return bodies.array(logits if served.logit_bias is None else logits + np.float32(served.logit_bias))


def _question(given: dict[str, np.ndarray], limits: Limits) -> Question:
    prompts = given["prompts"]
    if prompts.dtype != np.float32 or prompts.ndim not in (3, 4):
        raise Refused(
            f"prompts is {prompts.dtype} {list(prompts.shape)}, not float32 [K, n_ctx, d] or [K, C, n_ctx, d]"
        )
    if not np.isfinite(prompts).all():
        raise Refused("prompts holds numbers that are not finite")
    limits.check("prompts", len(prompts))
    ids = bodies.names(_texts(given["ids"]), "ids", limits)
    classes = bodies.texts(_texts(given["classes"]), "classes", limits)
    (template,) = bodies.texts(_texts(given["template"][None]), "template", limits)
    _check_template(template, limits)
    size = 4 * len(prompts) * len(ids) * len(classes)
    if size > limits.answer:
        raise Refused(f"the answer would have {size} bytes; this server gives {limits.answer}: ask fewer prompts", 413)
    return Question(prompts, tuple(ids), tuple(classes), template)


def _texts(given: np.ndarray) -> Any:
    """An array's texts as a list; None where it holds no list of them."""
    try:
        return given.tolist() if given.dtype.kind == "U" and given.ndim == 1 else None
    except (ValueError, SystemError):  # numbers that are no characters, of which NumPy tells in both ways
        return None


def _check_template(template: str, limits: Limits) -> None:
    if template.count("{}") != 1 or len(template) > limits.characters:
        raise Refused("template must be a text with one {} where the class name goes")
