"""From photographs to the uint8 squares that a black box takes: the centre crop, and random training views.

The centre crop is CLIP's own preprocessing, bit for bit; the views are the published runs' RandomResizedCrop and flip.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from craft_jax.data.photographs import Photograph
from craft_jax.randomness import Stream, host_generator

Crop = Callable[[Image.Image, int], Image.Image]

_VIEW_SCALE = (0.5, 1.0)
_VIEW_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_CROP_ATTEMPTS = 10


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Short side to `size` pixels, bicubic, then the central square."""
    width, height = image.size
    short = min(width, height)
    width, height = int(size * width / short), int(size * height / short)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_view(rng: np.random.Generator) -> Crop:
    """RandomResizedCrop (half to all of the area, ratio 3/4 to 4/3, bicubic), then a flip every other time."""

    def crop(image: Image.Image, size: int) -> Image.Image:
        image = image.crop(_random_box(rng, *image.size)).resize((size, size), Image.Resampling.BICUBIC)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image

    return crop


def _random_box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*_VIEW_SCALE)
        ratio = math.exp(rng.uniform(*_VIEW_LOG_RATIO))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def view_crop(seed: int, view: int, position: int) -> Crop:
    """The crop of one view of the training photograph at `position`: the same in every run with this seed."""
    return random_view(host_generator(seed, Stream.AUGMENTATION, view, position))


def batches(
    photographs: Sequence[Photograph], crops: Sequence[Crop], size: int, batch_size: int
) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
    """Decoded and cropped images in order, `batch_size` at a time, the last batch padded with its last image.

    Decoding runs in threads, one batch ahead of the caller.

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """

    def square(pair: tuple[Photograph, Crop]) -> np.ndarray:
        photograph, crop = pair
        return np.asarray(crop(photograph.open(), size))

    pairs = list(zip(photographs, crops, strict=True))
    with ThreadPoolExecutor() as pool:
        ahead: list[list] = []
        for start in range(0, len(pairs), batch_size):
            ahead.append([pool.submit(square, pair) for pair in pairs[start : start + batch_size]])
            if len(ahead) > 1:
                yield _collect(ahead.pop(0), batch_size)
        for rest in ahead:
            yield _collect(rest, batch_size)


def _collect(futures: list, batch_size: int) -> np.ndarray:
    images = [future.result() for future in futures]
    return np.stack(images + [images[-1]] * (batch_size - len(images)))
