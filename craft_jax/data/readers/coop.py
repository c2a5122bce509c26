"""Sets in CoOp's layout: a folder of images, or a zip archive of it, and a `split_zhou_<Set>.json`.

The split file is an object whose lists train, val and test hold `[image path, label, class name]`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft_jax.data.class_names import distinct_names
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageFile, ImageMember, LazyImage, archive_of
from craft_jax.errors import UserError
from craft_jax.files import shown

Parts = dict[str, list[tuple[str, int, str]]]
"""Rows [image path, label, class name] of train, val and test."""


def load(images: Path, split_file: Path) -> FewShotSet:
    """Reads a split and checks it, without opening any image.

    Args:
      images: folder that the split's paths are relative to, or a zip archive, which is read in place.
      split_file: the JSON file.

    Raises:
      UserError: where the file is missing or malformed, names a missing image, gives a label two names, gives two
        classes one name, or lists an image in two parts.
    """
    parts, names = read_split(split_file)
    found = _in_archive if images.suffix.lower() == ".zip" else _in_folder
    opens = found(images, [path for rows in parts.values() for path, _, _ in rows], split_file)
    train, val, test = (
        tuple(Labelled(opens(path), label) for path, label, _ in parts[part]) for part in ("train", "val", "test")
    )
    return FewShotSet(class_names=names, train=train, val=val, test=test, split=shown(split_file.stem))


def _in_folder(images: Path, paths: list[str], split_file: Path) -> Callable[[str], LazyImage]:
    for path in paths:
        if not os.path.isfile(images / path):
            raise UserError(f"{split_file} names {images / path}, which does not exist; check data.images")
    return lambda path: ImageFile(images / path)


def _in_archive(images: Path, paths: list[str], split_file: Path) -> Callable[[str], LazyImage]:
    there = set(archive_of(images).namelist())
    for path in paths:
        if os.path.normpath(path) not in there:
            raise UserError(f"{split_file} names {path}, which is not in {images}; check data.images")
    return lambda path: ImageMember(images, os.path.normpath(path))


def read_split(split_file: Path) -> tuple[Parts, tuple[str, ...]]:
    """The rows of train, val and test, and the class names by label, checked but for the images themselves.

    Raises:
      UserError: as `load` does.
    """
    parts = _read(split_file)
    names = _class_names(parts, split_file)
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        for path, _, _ in rows:
            file = os.path.normpath(path)
            if seen.setdefault(file, part) != part:
                raise UserError(f"{split_file}: {path} stands in {seen[file]} and again in {part}; keep it in one")
    return parts, names


def _read(split_file: Path) -> Parts:
    try:
        content: Any = json.loads(split_file.read_text(encoding="utf-8-sig"), object_pairs_hook=_once_each)
    except FileNotFoundError as error:
        raise UserError(f"{split_file}: no such split file; check data.root and data.split") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{split_file}: not a readable split file ({error})") from error
    try:
        parts = {part: [_row(*row) for row in content[part]] for part in ("train", "val", "test")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{split_file}: not in CoOp's form{_told_by(error)}; train, val and test must list [image path, "
            "label, class name]"
        ) from error
    if not parts["train"] or not parts["test"]:
        raise UserError(f"{split_file}: train and test must each list at least one image")
    return parts


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


class _BadRow(ValueError):
    """Says what is wrong with a row."""


def _row(path: Any, label: Any, name: Any) -> tuple[str, int, str]:
    if not isinstance(path, str) or not path:
        raise _BadRow(f"image path {path!r} is no text")
    if type(label) is not int:
        raise _BadRow(f"label {label!r} of {path} is no whole number")
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise _BadRow(f"class name {name!r} of {path} is no text")
    return path, label, str(name)


def _told_by(error: Exception) -> str:
    return f": {error}" if isinstance(error, _BadRow) else ""


def _class_names(parts: Parts, split_file: Path) -> tuple[str, ...]:
    by_label: dict[int, str] = {}
    for _, label, name in (row for rows in parts.values() for row in rows):
        if by_label.setdefault(label, name) != name:
            raise UserError(f"{split_file}: label {label} is called {by_label[label]!r} and {name!r}; give it one name")
    if sorted(by_label) != list(range(len(by_label))):
        raise UserError(f"{split_file}: labels must run from 0 to {len(by_label) - 1} without gaps")
    return distinct_names([by_label[label] for label in range(len(by_label))], split_file)
