"""FGVC-Aircraft by its own lists, which CoOp uses as they are.

`variants.txt` names a class a line; `images_variant_{train,val,test}.txt` hold `<image> <variant>` a line. Source: Maji
et al., 2013 (arXiv 1306.5151).
"""

import os
from pathlib import Path

from craft_jax.data.class_names import distinct_names, readable
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageFile
from craft_jax.data.readers import text_file
from craft_jax.errors import UserError


def load(images: Path, lists: Path) -> FewShotSet:
    """Reads the lists and checks them, without opening any image.

    Args:
      images: folder of `<image>.jpg`.
      lists: folder of variants.txt and the three lists.

    Raises:
      UserError: where a list is missing or not in UTF-8, or names a missing image or an unknown variant.
    """
    variants = _lines(lists / "variants.txt")
    names = distinct_names(variants, lists / "variants.txt")
    labels = {name: label for label, name in enumerate(names)}
    train, val, test = (
        tuple(_read(images, lists / f"images_variant_{part}.txt", labels)) for part in ("train", "val", "test")
    )
    return FewShotSet(
        class_names=names,
        train=train,
        val=val,
        test=test,
        split="FGVC-Aircraft's own lists",
    )


def _lines(path: Path) -> list[str]:
    text = text_file.read(path, missing="no such list; check data.root and data.split")
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise UserError(f"{path}: the list is empty; take it from the archive again")
    return [line for line in lines if line]


def _read(images: Path, path: Path, labels: dict[str, int]) -> list[Labelled]:
    items = []
    for line in _lines(path):
        image, variant = (*line.split(maxsplit=1), "")[:2]
        if readable(variant) not in labels:
            raise UserError(
                f"{path}: {image} is of variant {variant!r}, which variants.txt does not list; add it there"
            )
        file = images / f"{image}.jpg"
        if not os.path.isfile(file):
            raise UserError(f"{path} names {file}, which does not exist; check data.images")
        items.append(Labelled(ImageFile(file), labels[readable(variant)]))
    return items
