"""What requests carry and what their answers hold: images as files, JSON, and readers that take nothing on trust."""

import base64
import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_QUALITY = 95  # of JPEG, with full colour resolution: what is lost moves no score that could be measured
_MOST_TOKENS = 10**9  # of one answer, beyond which it is not believed
_LARGEST = 1e30  # of a score; beyond it float32 has no room


class Picture(NamedTuple):
    """An image file, its media type, and the digest of pixels and format."""

    content: bytes
    kind: str
    digest: bytes

    @property
    def base64(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.content).decode()

    @property
    def data_uri(self) -> str:
        """The file as a data URI."""
        return f"data:{self.kind};base64,{self.base64}"


def picture(pixels: UInt8[np.ndarray, "size size 3"], image_format: str) -> Picture:
    """An image as a file in `jpeg` or `png`."""
    content = io.BytesIO()
    options = {"quality": _QUALITY, "subsampling": 0} if image_format == "jpeg" else {}
    Image.fromarray(pixels).save(content, image_format, **options)
    digest = hashlib.sha256(f"{image_format} {pixels.shape}".encode() + pixels.tobytes()).digest()
    return Picture(content.getvalue(), f"image/{image_format}", digest)


class Request(NamedTuple):
    """What is sent.

    Attributes:
      address: URL.
      content: the body; None asks by GET.
      kind: the body's media type.
      texts: in it, for the ledger.
      tokens: that it is expected to take, where tokens are billed and answers tell them.
      accept: statuses that are answers.
    """

    address: str
    content: bytes | None
    kind: str = "application/json"
    texts: int = 0
    tokens: int = 0
    accept: tuple[int, ...] = (200,)


class Wrong(Exception):
    """An answer that is not what was asked for; the message says how."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came."""

    status: int
    content: bytes

    @functools.cached_property
    def json(self) -> Any:
        """The content as JSON; raises Wrong where it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise Wrong("it is not JSON") from error

    @property
    def tokens(self) -> int | None:
        """That it says it took; None where it does not say."""
        usage = self.json.get("usage") if isinstance(self.json, dict) else None
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        return total if isinstance(total, int) and 0 <= total < _MOST_TOKENS else None


def number(value: Any) -> float:
    """A finite number out of an answer; raises Wrong where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        raise Wrong(f"it holds {str(value)[:60]!r} in the place of a number")
    return float(value)


def rows(value: Any) -> list[Any]:
    """A list out of an answer; raises Wrong where it is none."""
    if not isinstance(value, list):
        raise Wrong(f"it holds {type(value).__name__} in the place of a list")
    return value


def field(value: Any, name: str) -> Any:
    """A field of an object out of an answer; raises Wrong where there is none."""
    if not isinstance(value, Mapping) or name not in value:
        raise Wrong(f"it has no field {name!r} where one is due")
    return value[name]


def ending(address: str, path: str) -> str:
    """An address with a path at its end, once."""
    address, query, rest = address.partition("?")
    address = address.rstrip("/")
    return (address if address.endswith(f"/{path}") else f"{address}/{path}") + query + rest


def json_request(address: str, body: Mapping[str, Any], texts: int, tokens: int = 0) -> Request:
    """A body in JSON, with its number of texts and the tokens that it is expected to take."""
    return Request(address, json.dumps(body).encode(), texts=texts, tokens=tokens)
