"""A tuned model's labels over HTTP: an image in, classes and their probabilities out, as `craft_jax.predict` gives."""

import json
from email.message import Message
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from craft_jax import evaluation, tuned_model
from craft_jax.blackbox import Metered, Owned
from craft_jax.serve import bodies
from craft_jax.serve.limits import Refused
from craft_jax.serve.model import Served
from craft_jax.tuned_model import TunedModel

_TOP = 5  # classes in an answer, where a request names no number


class Labeller:
    """Labels images with a tuned model, those of requests that wait at the same time together.

    Raises:
      UserError: where the model was tuned for another black box than the one that is served.
    """

    def __init__(self, served: Served, owned: Owned, tuned: TunedModel) -> None:
        black_box = owned.for_classes(tuned.class_names, tuned.black_box["template"])
        tuned_model.check_fit(tuned, black_box)

        def probabilities(features: Float[np.ndarray, "N p"]) -> Float[np.ndarray, "N C"]:
            handle = jnp.asarray(owned.padded(features))
            _, refined = evaluation.logits(Metered(black_box, budget=None), tuned, handle, len(features))
            return np.asarray(jax.nn.softmax(refined))[: len(features)]

        self.served, self.class_names = served, tuned.class_names
        self.probabilities = served.answering(probabilities)


async def label(request: Request, labeller: Labeller) -> Response:
    """An image, as it is, as a file of a form, or as {"image": base64}; its classes, likeliest first."""
    served = labeller.served
    top = request.query_params.get("top", str(_TOP))
    if not (top.isascii() and top.isdecimal() and int(top[:9])):
        raise Refused(f"top={top!r} must be a number of classes, 1 or more")
    body = await bodies.read(request, served.limits)
    content = _image(body, request.headers.get("content-type", ""))
    async with served.opening:
        square = await run_in_threadpool(bodies.crop, content, "the image", served)
    (row,) = await labeller.probabilities([square])
    served.counts.images += 1
    best = [
        {"label": labeller.class_names[i], "probability": float(row[i])}
        for i in np.argsort(-row, kind="stable")[: int(top[:9])]
    ]
    return bodies.Json({**best[0], "top": best})


def _image(body: bytes, content_type: str) -> bytes:
    """The image file in a body."""
    header = Message()
    header["content-type"] = content_type or "application/octet-stream"
    if header.get_content_type() == "multipart/form-data":
        return _file_of_form(body, header.get_boundary() or "")
    if header.get_content_type() != "application/json":
        return body
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON ({error})") from error
    if not isinstance(given, dict) or "image" not in given:
        raise Refused('the body must be an image, or JSON {"image": base64}')
    return bodies.unpacked(given["image"], "image")


def _file_of_form(body: bytes, boundary: str) -> bytes:
    """The one file of a form (RFC 7578): what stands between two boundaries, after an empty line."""
    files = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        head, found, content = part.partition(b"\r\n\r\n")
        if found and b"filename=" in head.lower():
            files.append(content)
    if len(files) != 1:
        raise Refused(f"the form holds {len(files)} files; send one image")
    return files[0]
