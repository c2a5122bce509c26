"""From photographs to the uint8 squares that a black box takes: the centre crop, and random training views.

The centre crop is CLIP's own preprocessing, bit for bit, as a model's files ask for it; the views are the published
runs' RandomResizedCrop and flip.
"""

import collections
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from craft_jax.data.images import LazyImage
from craft_jax.randomness import Stream, host_generator

VERSION = 3
"""Of the way from a file to its squares, by which encoded images are kept: to be raised where pixels change."""

Crop = Callable[[Image.Image, int], Image.Image]

_VIEW_SCALE = (0.5, 1.0)
_PIECE_SCALE = (0.15, 0.5)
_VIEW_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_CROP_ATTEMPTS = 10
_BATCHES_AHEAD = 2


class Resizing(NamedTuple):
    """How a photograph is resized before a model's square is cut out of its centre.

    Attributes:
      sides: (short side,) or (height, width) in pixels, () to leave it as it is, None for the square's own side.
      resample: Pillow's number of the filter.
    """

    sides: tuple[int, ...] | None = None
    resample: int = int(Image.Resampling.BICUBIC)


USUAL = Resizing()
"""CLIP's own."""


def centre_crop(image: Image.Image, size: int, resizing: Resizing = USUAL) -> Image.Image:
    """The photograph resized, then its central square of `size` pixels, with black where it has none."""
    sides = (size,) if resizing.sides is None else resizing.sides
    if sides:
        image = image.resize(_resized(image, sides), Image.Resampling(resizing.resample))
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _resized(image: Image.Image, sides: tuple[int, ...]) -> tuple[int, int]:
    """Width and height."""
    if len(sides) == 2:
        return sides[1], sides[0]
    short = min(image.size)
    return int(sides[0] * image.width / short), int(sides[0] * image.height / short)


def mirrored(image: Image.Image, size: int, resizing: Resizing = USUAL) -> Image.Image:
    """The centre crop's mirror image."""
    return centre_crop(image, size, resizing).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def random_view(
    rng: np.random.Generator,
    image: Image.Image,
    size: int,
    resizing: Resizing = USUAL,
    scale: tuple[float, float] = _VIEW_SCALE,
) -> Image.Image:
    """RandomResizedCrop (half to all of the area, ratio 3/4 to 4/3), then a flip every other time.

    Where photographs are tested in their own pixels, it is of the part that a test sees, so as not to show others.
    """
    if resizing.sides == ():
        image = centre_crop(image, size, resizing)
    image = image.crop(_random_box(rng, *image.size, scale)).resize((size, size), Image.Resampling(resizing.resample))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _random_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*_VIEW_LOG_RATIO))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def view_crop(seed: int, view: int, position: int, resizing: Resizing = USUAL) -> Crop:
    """The crop of one view of the training photograph at `position`: the same in every run with this seed."""
    return functools.partial(_view, seed, view, position, resizing)


def _view(seed: int, view: int, position: int, resizing: Resizing, image: Image.Image, size: int) -> Image.Image:
    # The generator is made here, for there are N x V views and most runs find theirs in the cache.
    return random_view(host_generator(seed, Stream.AUGMENTATION, view, position), image, size, resizing)


def piece_crop(seed: int, piece: int, position: int, resizing: Resizing = USUAL) -> Crop:
    """A small part of the training photograph at `position`: an image of something, if not of its class."""
    return functools.partial(_piece, seed, piece, position, resizing)


def _piece(seed: int, piece: int, position: int, resizing: Resizing, image: Image.Image, size: int) -> Image.Image:
    return random_view(host_generator(seed, Stream.PIECES, piece, position), image, size, resizing, _PIECE_SCALE)


def batches(
    images: Sequence[LazyImage],
    crops: Sequence[Sequence[Crop]],
    size: int,
    batch_size: int,
    threads: int | None = None,
) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
    """Decoded images under each of their crops, photograph after photograph, `batch_size` at a time.

    Each photograph is decoded once, in threads (as many as there are cores) that run some two batches ahead of the
    caller, whatever the number of crops; the last batch is padded with its last image.

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """

    def squares(lazy: LazyImage, crops: Sequence[Crop]) -> list[np.ndarray]:
        image = lazy.open()
        return [np.asarray(crop(image, size)) for crop in crops]

    waiting = collections.deque(zip(images, crops, strict=True))
    ready: list[np.ndarray] = []
    threads = threads or os.cpu_count() or 1
    images_ahead = max(threads, _BATCHES_AHEAD * batch_size // max(map(len, crops), default=1))
    with ThreadPoolExecutor(threads) as pool:
        ahead: collections.deque[Future] = collections.deque()
        while waiting or ahead:
            while waiting and len(ahead) < images_ahead:
                ahead.append(pool.submit(squares, *waiting.popleft()))
            ready += ahead.popleft().result()
            while len(ready) >= batch_size:
                yield np.stack(ready[:batch_size])
                del ready[:batch_size]
    if ready:
        yield np.stack(ready + [ready[-1]] * (batch_size - len(ready)))
