"""Few-shot sets from NumPy arrays in memory, for use from Python."""

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.checks import told
from craft_jax.data.class_names import distinct_names
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageArray, ImageFile, LazyImage, upright
from craft_jax.errors import UserError


def from_arrays(
    images: Sequence[Any] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    *,
    test_images: Sequence[Any] | np.ndarray | None = None,
    test_labels: Sequence[int] | np.ndarray | None = None,
    split_seed: int = 0,
) -> FewShotSet:
    """A set to draw shots from (`craft_jax.draw_shots`), or to train on as it is.

    Args:
      images: N images, uint8, each [height, width, 3] or [height, width]; sizes may differ. Paths and Pillow's
        images will do too.
      labels: N indices into `class_names`, [N] or [N, 1].
      class_names: C names as they should be read.
      test_images: to test on; without them `images` are split automatically, half of them to train on.
      test_labels: of the test images.
      split_seed: of the automatic split.

    Raises:
      UserError: where images and labels do not match, an image or a label is not of the kind above, or a class
        has no image to train on.
    """
    names = distinct_names(_listed(class_names), "class_names")
    items = _labelled("images", images, labels, len(names))
    missing = set(range(len(names))) - {item.label for item in items}
    if missing:
        raise UserError(f"images: none of class {names[min(missing)]!r}; add some, or take the name out of class_names")
    if (test_images is None) != (test_labels is None):
        raise UserError("test_images and test_labels belong together; give both or neither")
    if test_images is None or test_labels is None:
        return told(automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, "arrays")))
    tested = _labelled("test_images", test_images, test_labels, len(names))
    return told(FewShotSet(names, tuple(items), (), tuple(tested), split="arrays"))


def _listed(names: Any) -> list[Any]:
    """Names in an order that labels can count by: a set has none, and the keys of an object may have another."""
    if isinstance(names, (str, bytes, Mapping, Set)) or not hasattr(names, "__iter__"):
        raise UserError(f"class_names is of type {type(names).__name__}; it must list the names in the labels' order")
    return list(names)


def _labelled(what: str, images: Any, labels: Any, classes: int) -> list[Labelled]:
    if len(images) != len(labels):
        raise UserError(f"{what}: {len(images)} images and {len(labels)} labels; give one label an image")
    if not len(images):
        raise UserError(f"{what}: no image; give at least one a class")
    items = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        items.append(Labelled(as_image(image, f"{what}[{i}]"), _label(label, f"{what}[{i}]", classes)))
    return items


def _label(given: Any, name: str, classes: int) -> int:
    """A label as an index, from a number of any library's, alone or in an array of one."""
    value = np.asarray(given)
    if value.size != 1 or value.dtype.kind not in "iuf" or not float(value.item()).is_integer():
        raise UserError(f"{name} has label {given!r}, and class_names has {classes}; give one whole number an image")
    if not 0 <= value.item() < classes:
        raise UserError(f"{name} has label {value.item()}, and class_names has {classes}; labels count from 0")
    return int(value.item())


def as_image(image: Any, name: str) -> LazyImage:
    """An image as it is given from Python.

    Args:
      image: a path, an image of Pillow's, uint8 [height, width, 3] or [height, width] of any library's, or a
        photograph of a set, alone or labelled.
      name: what messages call it, where it has no name of its own.

    Raises:
      UserError: where it is something else.
    """
    if isinstance(image, Labelled):
        return image.image
    if isinstance(image, (str, os.PathLike)):
        return ImageFile(Path(image).expanduser())
    if isinstance(image, Image.Image):
        return ImageArray(np.asarray(upright(image.copy(), name)), name)
    if hasattr(image, "open") and hasattr(image, "fingerprint"):
        return image
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UserError(
            f"{name} is {pixels.dtype}{list(pixels.shape)}; it must be uint8[height, width, 3], from 0 to 255"
        )
    return ImageArray(pixels, name)


def as_images(images: Any) -> list[LazyImage]:
    """Images as they are given from Python, one or several; see `as_image`. An array of four axes is several."""
    shape: tuple[int, ...] = tuple(getattr(images, "shape", ()))
    one = isinstance(images, (str, os.PathLike, Image.Image, Labelled)) or hasattr(images, "fingerprint")
    if one or len(shape) == 2 or (len(shape) == 3 and shape[2] == 3):
        images = [images]
    return [as_image(image, f"images[{i}]") for i, image in enumerate(images)]
