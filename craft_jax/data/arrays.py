"""Few-shot sets from NumPy arrays in memory, for use from Python."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.fewshot import FewShotSet, Labelled, distinct_names
from craft_jax.data.images import PhotographArray
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
      images: N images, uint8, each [height, width, 3] or [height, width]; sizes may differ.
      labels: N indices into `class_names`.
      class_names: C names as they should be read.
      test_images: to test on; without them `images` are split automatically, half of them to train on.
      test_labels: of the test images.
      split_seed: of the automatic split.

    Raises:
      UserError: where images and labels do not match, an image or a label is not of the kind above, or a class
        has no image to train on.
    """
    names = distinct_names(class_names, "class_names")
    items = _labelled("images", images, labels, len(names))
    missing = set(range(len(names))) - {item.label for item in items}
    if missing:
        raise UserError(f"images: none of class {names[min(missing)]!r}; add some, or take the name out of class_names")
    if (test_images is None) != (test_labels is None):
        raise UserError("test_images and test_labels belong together; give both or neither")
    if test_images is None or test_labels is None:
        return automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, "arrays"))
    tested = _labelled("test_images", test_images, test_labels, len(names))
    return FewShotSet(names, tuple(items), (), tuple(tested), split="arrays")


def _labelled(what: str, images: Any, labels: Any, classes: int) -> list[Labelled]:
    if len(images) != len(labels):
        raise UserError(f"{what}: {len(images)} images and {len(labels)} labels; give one label an image")
    if not len(images):
        raise UserError(f"{what}: no image; give at least one a class")
    items = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
            raise UserError(
                f"{what}[{i}] is {pixels.dtype}{list(pixels.shape)}; it must be uint8[height, width, 3], from 0 to 255"
            )
        if not isinstance(label, (int, np.integer)) or not 0 <= label < classes:
            raise UserError(f"{what}[{i}] has label {label!r}, and class_names has {classes}; labels count from 0")
        items.append(Labelled(PhotographArray(pixels, f"{what}[{i}]"), int(label)))
    return items
