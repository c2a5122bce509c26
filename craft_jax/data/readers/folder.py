"""Any folder of images with a sub-folder for each class, whose name is the class's; split automatically by a seed.

Sub-folders called train and test (and perhaps val), in any case or by another usual name (`data/parts.py`), with the
classes' folders in them, are a split of their own.
"""

import dataclasses
import os
from pathlib import Path

from craft_jax.data import tree
from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.checks import once
from craft_jax.data.class_names import distinct_names, readable
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import IMAGE_SUFFIXES, ImageFile
from craft_jax.data.parts import PARTS, part_of, part_within
from craft_jax.errors import UserError
from craft_jax.files import shown

_ALWAYS_PARTS = ("train", "test", "val", "valid", "validation")


def load(images: Path, split_seed: int) -> FewShotSet:
    """Finds the images of each class, at any depth below its folder, without decoding any.

    What is no image by its suffix (by its content, where it has none) is passed over, as are hidden files and folders;
    images that are passed over are counted in a note.

    Raises:
      UserError: where there are fewer than two classes, a class has no image, two classes read the same, one file is
        there twice by a link, or a split lacks a part.
    """
    if not images.is_dir():
        raise UserError(f"{shown(images)}: no such folder; check data.root and data.images")
    folders = class_folders(images)
    parts = _parts(images, folders)
    if parts:
        return _with_notes(_load_parts(images, _part_folders(images, folders, parts)), images)
    if len(folders) < 2:
        raise UserError(f"{shown(images)}: {_found(images, folders)}")
    names = distinct_names(folders, shown(images))
    items = [Labelled(file, label) for label, name in enumerate(folders) for file in images_below(images / name)]
    once(items, images)
    whole = automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, shown(images.name)))
    return _with_notes(whole, images)


def _found(images: Path, folders: list[str]) -> str:
    """What there is in place of classes, and what to do."""
    inside = class_folders(images / folders[0]) if folders else []
    if inside:
        return (
            f"one sub-folder only, {shown(folders[0])}, with {', '.join(map(shown, inside[:5]))} in it; set data.root "
            f"to {shown(images / folders[0])}"
        )
    found = "one sub-folder only" if folders else "no sub-folder"
    return f"{found}; put the images of each class into a sub-folder with the class's name"


def _parts(images: Path, folders: list[str]) -> dict[str, str]:
    """The part that each folder is, by its name; none where the folders are classes."""
    if _is_split(images, folders):
        return {name: part for name in folders if (part := part_of(name))}
    named = {name: part for name in folders if (part := part_within(name))}
    if not {"train", "test"} <= set(named.values()):
        return {}
    train, test = (
        {inner for name, part in named.items() if part == wanted for inner in class_folders(images / name)}
        for wanted in ("train", "test")
    )
    # A train station and a test tube do not hold folders of the same names; seg_train and seg_test do.
    return named if train & test else {}


def _is_split(images: Path, folders: list[str]) -> bool:
    """Whether the folders are parts, not classes: among vehicles, train is a class."""
    always = [name for name in folders if name in _ALWAYS_PARTS]
    if always and (always != ["train"] or class_folders(images / "train")):
        return True
    named = [name for name in folders if part_of(name)]
    nested = any(class_folders(images / name) for name in named)
    if len(named) == len(folders):
        return nested or len({part_of(name) for name in named}) > 1
    return nested and len({part_of(name) for name in named}) > 1


def _part_folders(images: Path, folders: list[str], named: dict[str, str]) -> dict[str, str]:
    """The folder of each part; raises UserError where they are no whole split."""
    parts = {part: [name for name in folders if named.get(name) == part] for part in PARTS}
    others = [name for name in folders if name not in named]
    if others or len(parts["train"]) != 1 or len(parts["test"]) != 1 or len(parts["val"]) > 1:
        raise UserError(
            f"{shown(images)}: sub-folders {', '.join(map(shown, folders))}; a split has train and test, perhaps one "
            "of val, valid, validation, and no other; complete it, or give each class a sub-folder of another name"
        )
    return {part: names[0] for part, names in parts.items() if names}


def _load_parts(images: Path, part_folders: dict[str, str]) -> FewShotSet:
    train = images / part_folders["train"]
    names = distinct_names(class_folders(train), shown(train))
    labels = {name: label for label, name in enumerate(names)}
    parts: dict[str, tuple[Labelled, ...]] = {"val": ()}
    for part, folder in part_folders.items():
        classes = class_folders(images / folder)
        for name in classes:
            if readable(name) not in labels:
                raise UserError(
                    f"{shown(images / folder / name)}: class {shown(name)!r} is not in {shown(train.name)}; add its "
                    "images there"
                )
        parts[part] = tuple(
            Labelled(file, labels[readable(name)]) for name in classes for file in images_below(images / folder / name)
        )
    if not parts["train"] or not parts["test"]:
        raise UserError(f"{shown(images)}: train and test must each hold a sub-folder for each class")
    return FewShotSet(
        names, parts["train"], parts["val"], parts["test"], split=f"train and test of {shown(images.name)}"
    )


def _with_notes(whole: FewShotSet, images: Path) -> FewShotSet:
    return dataclasses.replace(whole, notes=(*whole.notes, *_passed_over(whole, images)))


def _passed_over(whole: FewShotSet, images: Path) -> list[str]:
    notes, where = _sub_folders(whole, images), f"passed over in {shown(images)}"
    files = list(tree.shown_below(images))
    unread = [path.suffix.lower() for path in files if tree.is_unread(path)]
    if unread:
        notes.append(
            f"{where}, for these formats are not read: {_counted(len(unread), 'file')} in "
            f"{', '.join(map(shown, sorted(set(unread))))}; convert them to .jpg or .png"
        )
    hidden = tree.hidden_folders(images)
    if hidden:
        notes.append(
            f"{where}: {_counted(sum(hidden.values()), 'image')} in hidden folders "
            f"({', '.join(map(shown, sorted(hidden)))})"
        )
    used = {item.image.name for part in (whole.train, whole.val, whole.test) for item in part}
    above = _above_classes(images)
    beside = [path for path in files if path.parent in above and shown(path) not in used and tree.is_image(path)]
    if beside:
        notes.append(f"{where}: {_counted(len(beside), 'image')} beside the classes' folders, in none of them")
    return notes


def _sub_folders(whole: FewShotSet, images: Path) -> list[str]:
    """Says so where all images of a class lie in several folders, which may be the classes that were meant."""
    depth = 2 if _parts(images, class_folders(images)) else 1
    below: dict[str, set[str]] = {}
    for item in (*whole.train, *whole.val, *whole.test):
        *above, _ = Path(os.path.relpath(item.image.name, shown(images))).parts
        below.setdefault("/".join(above[:depth]), set()).add("/".join(above[depth : depth + 1]))
    split = [name for name, inside in below.items() if {"train", "test"} <= set(map(part_of, inside))]
    if split:
        return [
            f"{shown(images)}: folders train and test within a class, as in {split[0]!r}, are not taken as the split; "
            "put the classes into train and test"
        ]
    several = [name for name, inside in below.items() if len(inside) > 1 and "" not in inside]
    return [
        f"{shown(images)}: folders within a class are not taken as classes, as in {name!r} "
        f"({', '.join(sorted(below[name])[:5])}); where they are, move them up"
        for name in several[:1]
    ]


def _above_classes(images: Path) -> set[Path]:
    return {images, *(images / name for name in _parts(images, class_folders(images)))}


def _of_other_formats(suffixes: list[str]) -> str:
    return f" of a format that is read, only {', '.join(map(shown, suffixes))}" if suffixes else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders that are not hidden, in order."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not tree.is_hidden(entry.name))
    except PermissionError as error:
        tree.refuse(error)


def images_below(folder: Path, *, unread: bool = False) -> list[ImageFile]:
    """The images of one class, in order of their paths.

    Args:
      folder: of the class; folders that are linked there are followed.
      unread: lists images of formats that are not read, too.

    Raises:
      UserError: where there is none.
    """
    found = [path for path in tree.shown_below(folder) if tree.is_image(path) or (unread and tree.is_unread(path))]
    if not found:
        others = sorted({path.suffix.lower() for path in tree.shown_below(folder) if tree.is_unread(path)})
        raise UserError(
            f"{shown(folder)}: no image in this folder{_of_other_formats(others)}; add some "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}) or remove it"
        )
    return [ImageFile(path) for path in sorted(found)]
