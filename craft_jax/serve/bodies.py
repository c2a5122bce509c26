"""What requests bring: JSON, named arrays and images, each taken only as what it should be; and what goes back."""

import asyncio
import base64
import binascii
import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from craft_jax.data import ImageBytes, pixels
from craft_jax.files import json_text
from craft_jax.serve.limits import Limits, Refused
from craft_jax.serve.model import Served, Square, square

_SMALL = 2**18  # bytes of JSON that are read within a millisecond or two
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


async def read(request: Request, limits: Limits) -> bytes:
    """A request's body; raises Refused where it is too large or too slow."""
    too_large = Refused(f"the body is larger than the {limits.body} bytes that this server takes; send less", 413)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError as error:
        raise Refused(f"the body did not arrive within {limits.seconds:g} s", 408) from error
    return bytes(body)


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """A body that is a JSON object."""
    body = await read(request, limits)
    try:
        value = json.loads(body) if len(body) < _SMALL else await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Refused("the body is not a JSON object; see docs/serve.md for its form")
    return value


def texts(value: Any, name: str, limits: Limits) -> list[str]:
    """A list of texts out of a body; `name` is where it stood."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refused(f"{name} must be a list of texts")
    limits.check("texts", len(value))
    for text in value:
        if not _is_unicode(text):
            raise Refused(f"{name} holds half a character (a lone surrogate); send whole ones")
        if len(text) > limits.characters:
            raise Refused(f"{name} holds a text of {len(text)} characters; this server takes {limits.characters}")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def names(value: Any, name: str, limits: Limits) -> list[str]:
    """A list of images' names out of a body."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refused(f"{name} must be a list of what POST /v1/images answered")
    limits.check("images", len(value))
    return value


async def squares(encoded: Sequence[Any], name: str, served: Served) -> list[Square]:
    """Images that are base64 or data URIs, as the model takes them: resized, and their centre."""
    served.limits.check("images", len(encoded))
    async with served.opening:
        return await run_in_threadpool(lambda: [crop(unpacked(image, name), name, served) for image in encoded])


def unpacked(encoded: Any, name: str) -> bytes:
    """The file behind base64, or behind a data URI that has it; nothing is fetched from elsewhere."""
    if not isinstance(encoded, str):
        raise Refused(f"{name} must be an image in base64, or a data URI")
    if encoded[:5].lower() == "data:":
        about, _, encoded = encoded.partition(",")
        if not about.endswith(";base64"):
            raise Refused(f"{name} is a data URI without ;base64")
    elif encoded[:7].lower() in ("http://", "https:/"):
        raise Refused(f"{name} is an address, and this server fetches nothing; send the image itself in base64")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"{name} is not base64 ({error})") from error


def crop(content: bytes, name: str, served: Served) -> Square:
    """An image file as the model takes it; raises Refused where it is none, or has too many pixels to be opened."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            count = math.prod(image.size)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(f"{name} is not an image in {', '.join(_FORMATS)}") from error
    if count > served.limits.pixels:
        raise Refused(f"{name} has {count} pixels; this server takes {served.limits.pixels}", 413)
    opened = ImageBytes(content, name).open()
    return square(np.asarray(pixels.centre_crop(opened, served.image_size, served.resizing)))


def arrays(body: bytes, wanted: Sequence[str], limits: Limits) -> dict[str, np.ndarray]:
    """The arrays of an npz that has exactly these, none of Python objects; raises Refused where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            found = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if set(found) != set(wanted):
                raise Refused(f"the body holds {sorted(found)}, and {sorted(wanted)} are wanted")
            if sum(entry.file_size for entry in found.values()) > limits.body:
                raise Refused(f"the arrays are larger than the {limits.body} bytes that this server takes", 413)
            return {name: _array(archive.read(found[name])) for name in wanted}
    except Refused:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise Refused(f"the body is not an npz of arrays ({error}); write it with numpy.savez") from error


def _array(content: bytes) -> np.ndarray:
    """The array of an npy, whose header is believed only as far as there is content."""
    source = io.BytesIO(content)
    version = np.lib.format.read_magic(source)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(source)
    rest = content[source.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"an array of shape {shape} and type {dtype} in {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")


class Json(JSONResponse):
    """An answer in JSON, in ASCII: what a request has brought may be half a character."""

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json_text(content).encode()


def array(value: np.ndarray) -> Response:
    """An answer of a float32 array, as npy."""
    content = io.BytesIO()
    np.save(content, np.asarray(value, np.float32), allow_pickle=False)
    return Response(content.getvalue(), media_type="application/x-npy")
