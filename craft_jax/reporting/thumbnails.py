"""Photographs as small JPEGs inside a page."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from craft_jax.data import LazyImage
from craft_jax.errors import UserError

SIDE = 112  # pixels
_QUALITY = 72


def thumbnails(images: Sequence[LazyImage]) -> list[str]:
    """Each image as a data URI; empty for one that cannot be read any more."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_thumbnail, images))


def _thumbnail(image: LazyImage) -> str:
    try:
        small = image.open()
    except UserError:
        return ""
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
