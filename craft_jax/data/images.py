"""Where one image's pixels come from: a file, alone or in an archive, a record of a prepared data set, or an array.

Photographs are opened lazily, one by one, so that a set of any size costs nothing until its shots are encoded. Whatever
lists them, files open upright as their EXIF says; records and arrays come without EXIF, and open as they are.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import re
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps, features

from craft_jax.errors import UserError, first_line
from craft_jax.files import shown

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga",
    *((".avif",) if features.check("avif") else ()),
    *((".jp2", ".j2k", ".jpf", ".jpx", ".j2c") if features.check("jpg_2000") else ()),
}  # fmt: skip
UNREAD_SUFFIXES = {
    ".arw", ".avif", ".avifs", ".bpg", ".cr2", ".cr3", ".cur", ".dcm", ".dcx", ".dds", ".dng", ".emf", ".eps", ".exr",
    ".fit", ".fits", ".fts", ".hdr", ".heic", ".heics", ".heif", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jp2",
    ".jpf", ".jpx", ".jxl", ".jxr", ".nef", ".nrw", ".orf", ".pcx", ".pef", ".pfm", ".psd", ".qoi", ".raf", ".raw",
    ".rgb", ".rgba", ".rw2", ".sgi", ".srw", ".svg", ".svgz", ".wdp", ".wmf", ".xbm", ".xcf", ".xpm",
} - IMAGE_SUFFIXES  # fmt: skip
"""Of images too, in formats that folders of photographs are not searched for."""


class LazyImage(Protocol):
    """Something that opens as an RGB image of 8 bits a channel, on white where it is transparent."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def open(self) -> Image.Image:
        """The image in RGB. Raises UserError, naming it, where it is missing or unreadable."""

    def fingerprint(self) -> str:
        """Of its content. Raises UserError, naming it, where it is missing."""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image file in any format that Pillow reads; opens upright, as its EXIF says."""

    path: Path

    @property
    def name(self) -> str:
        """Its path; what is not UTF-8 in it is escaped."""
        return shown(self.path)

    def open(self) -> Image.Image:
        """The image in RGB. Raises UserError where the file is missing, truncated, or no image of 8 or 16 bits."""
        return _read(self.path, self.name)

    def check(self) -> None:
        """Raises UserError where `open` does, in less time: a JPEG is decoded to an eighth of its size."""
        _read(self.path, self.name, smallest=True)

    def fingerprint(self) -> str:
        """Of the file's bytes."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{self.name}: no such image; check the path") from error


@dataclasses.dataclass(frozen=True)
class ImageBytes:
    """An image file's content; opens as the file does."""

    content: bytes
    name: str

    def open(self) -> Image.Image:
        """The image in RGB. Raises UserError where it is truncated, or no image of 8 or 16 bits."""
        return _read(io.BytesIO(self.content), self.name)

    def fingerprint(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclasses.dataclass(frozen=True)
class ImageMember:
    """An image file in a zip archive, read in place; opens as the file does."""

    archive: Path
    member: str

    @property
    def name(self) -> str:
        """The archive's path and the file's in it."""
        return f"{shown(self.archive)}/{self.member}"

    def open(self) -> Image.Image:
        """The image in RGB. Raises UserError where it is missing, damaged, or no image of 8 or 16 bits."""
        return _read(io.BytesIO(self._content()), self.name)

    def fingerprint(self) -> str:
        """Of the file's bytes."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        try:
            return archive_of(self.archive).read(self.member)
        except KeyError as error:
            raise UserError(f"{self.name}: no such image in the archive") from error
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # encrypted: a RuntimeError
            raise UserError(f"{self.name}: not readable ({error}); make the archive anew") from error


def archive_of(path: Path) -> zipfile.ZipFile:
    """A zip archive, its list of files read once in a process; raises UserError where it cannot be read."""
    try:
        about = path.stat()
        return _archive(path, about.st_ino, about.st_size, about.st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{shown(path)}: not a readable zip archive ({error}); check data.images") from error


@functools.lru_cache(maxsize=8)
def _archive(path: Path, *written: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@dataclasses.dataclass(frozen=True)
class ImageRecord:
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
        return _rgb(Image.fromarray(self._pixels().squeeze()), self.name)

    def fingerprint(self) -> str:
        """Of the image's pixels."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return _fingerprint(self._pixels())

    def _pixels(self) -> np.ndarray:
        try:
            return np.asarray(self.source[self.index]["image"])
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise UserError(
                f"{self.name}: not a readable image ({first_line(error)}); prepare the data set again"
            ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class ImageArray:
    """An image in memory, uint8 [height, width, 3] or [height, width]."""

    pixels: np.ndarray
    name: str

    def open(self) -> Image.Image:
        """The image in RGB."""
        return _rgb(Image.fromarray(self.pixels), self.name)

    def fingerprint(self) -> str:
        """Of the pixels."""
        return _fingerprint(self.pixels)


def _read(source: Path | io.BytesIO, name: str, *, smallest: bool = False) -> Image.Image:
    """A file's image, upright and in RGB; `smallest` is the fewest pixels that its decoder can make of the whole."""
    try:
        with Image.open(source) as image:
            if smallest:
                image.draft(image.mode, (1, 1))
            deep = image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile.args) for tile in image.tile)
            image.load()
            if deep:
                image.paste(_from_16_bits(source, np.asarray(image)))
            return upright(_in_16_bits(image) if image.format == "PPM" and image.mode == "I" else image, name)
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such image; check the path") from error
    except Exception as error:  # Pillow's decoders raise kinds of their own, such as AVIF's RuntimeError
        reason = re.sub(r" <_io.BytesIO object at \w+>", "", str(error))
        raise UserError(f"{name}: not a readable image ({reason}); replace it or take it out of the set") from error


def _from_16_bits(source: Path | io.BytesIO, high: np.ndarray) -> Image.Image:
    """An image of several channels, of whose 16 bits Pillow gives the `high` 8 alone: black where 12 are in use."""
    with Image.open(source) as image:
        grey = any(_raw_mode(tile.args) == "LA;16B" for tile in image.tile)
        turn = _four_bytes if grey else _other_byte
        image.tile = [tile._replace(args=turn(tile.args)) for tile in image.tile]
        other = np.asarray(image)
    high, low = (other[..., [0, 0, 0, 2]], other[..., [1, 1, 1, 3]]) if grey else (high, other)
    pixels = high * np.uint16(256) + low
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    bits = _bits_in_use(colours)
    opacity = _in_8_bits(alpha, bits if alpha.max(initial=0) < 2**bits else 16)
    return Image.fromarray(np.concatenate([_in_8_bits(colours, bits), opacity], axis=-1))


def _in_16_bits(image: Image.Image) -> Image.Image:
    """A PGM, whose pixels Pillow gives in 32 bits and which has 16 at most."""
    return Image.fromarray(np.asarray(image).astype(np.uint16))


def upright(image: Image.Image, name: str) -> Image.Image:
    """As its EXIF says, in RGB; changes `image`. Raises UserError, with `name`, where its pixels have no range."""
    with contextlib.suppress(Exception):  # EXIF that cannot be read is as good as none
        ImageOps.exif_transpose(image, in_place=True)
    return _rgb(image, name)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """In 8 bits a channel, on white where it is transparent; raises UserError where nothing says what white is."""
    if image.mode.startswith("I;16"):
        image = _grey_in_8_bits(np.asarray(image), image.info.get("transparency"))
    elif image.mode[0] in "IF":
        raise UserError(f"{name}: pixels of 32 bits (mode {image.mode}); save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_in_8_bits(pixels: np.ndarray, transparent: int | None) -> Image.Image:
    """Grey of 16 bits, of which one value may be transparent."""
    image = Image.fromarray(_in_8_bits(pixels, _bits_in_use(pixels)))
    if transparent is not None:
        image.putalpha(Image.fromarray(np.where(pixels == transparent, 0, 255).astype(np.uint8)))
    return image


def _raw_mode(args: Any) -> str:
    """How a tile's pixels lie in the file, as Pillow's decoders are told."""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _other_byte(args: Any) -> Any:
    """A decoder's arguments with the order of bytes turned round, so that it keeps the low byte of 16 bits."""
    mode = _raw_mode(args)
    big = mode.endswith("B") or (mode.endswith("N") and sys.byteorder == "big")
    turned = mode[:-1] + ("L" if big else "B")
    return (turned, *args[1:]) if isinstance(args, tuple) else turned


def _four_bytes(args: Any) -> Any:
    """A decoder's arguments for grey and opacity of 16 bits, so that it keeps all of their bytes."""
    return ("RGBA", *args[1:]) if isinstance(args, tuple) else "RGBA"


def _bits_in_use(pixels: np.ndarray) -> int:
    """Of 16, of which a camera may use fewer; white is the highest number of those."""
    return next(bits for bits in (8, 10, 12, 14, 16) if pixels.max(initial=0) < 2**bits)


def _in_8_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    return (pixels >> (bits - 8)).astype(np.uint8)


def _fingerprint(pixels: np.ndarray) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
