"""Where one image's pixels come from: a file, a record of a prepared data set, or an array.

Photographs are opened lazily, one by one, so that a set of any size costs nothing until its shots are encoded.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from craft_jax.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


class Photograph(Protocol):
    """Something that opens as an RGB image."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def open(self) -> Image.Image:
        """The image in RGB. Raises UserError, naming it, where it is missing or unreadable."""

    def fingerprint(self) -> str:
        """Of its content. Raises UserError, naming it, where it is missing."""


@dataclasses.dataclass(frozen=True)
class PhotographFile:
    """An image file in any format that Pillow reads."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def open(self) -> Image.Image:
        """The decoded image in RGB. Raises UserError where the file is missing, truncated or no image."""
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: no such image; check the path") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{self.path}: not a readable image ({error}); replace it or take it out of the set"
            ) from error

    def fingerprint(self) -> str:
        """Of the file's bytes."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{self.path}: no such image; check the path") from error


@dataclasses.dataclass(frozen=True)
class PhotographRecord:
    """An image in a random-access data source, such as a prepared TFDS split."""

    source: Any
    index: int
    origin: str

    @property
    def name(self) -> str:
        """Data set, split and position."""
        return f"{self.origin}[{self.index}]"

    def open(self) -> Image.Image:
        """The record's image in RGB. Raises UserError where it cannot be read."""
        return Image.fromarray(self._pixels().squeeze()).convert("RGB")

    def fingerprint(self) -> str:
        """Of the image's pixels."""
        return _fingerprint(self._pixels())

    def _pixels(self) -> np.ndarray:
        try:
            return np.asarray(self.source[self.index]["image"])
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{self.name}: not a readable image ({reason}); prepare the data set again") from error


@dataclasses.dataclass(frozen=True, eq=False)
class PhotographArray:
    """An image in memory, uint8 [height, width, 3] or [height, width]."""

    pixels: np.ndarray
    name: str

    def open(self) -> Image.Image:
        """The image in RGB."""
        return Image.fromarray(self.pixels).convert("RGB")

    def fingerprint(self) -> str:
        """Of the pixels."""
        return _fingerprint(self.pixels)


def _fingerprint(pixels: np.ndarray) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
