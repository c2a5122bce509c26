"""Any folder of images with a sub-folder for each class, whose name is the class's; split automatically by a seed.

Sub-folders called train and test (and perhaps val, valid or validation), with the classes' folders in them, are a split
of their own.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.fewshot import FewShotSet, Labelled, distinct_names
from craft_jax.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, PhotographFile
from craft_jax.errors import UserError

_VALIDATION = ("val", "valid", "validation")
_PARTS = ("train", "test", *_VALIDATION)


def load(images: Path, split_seed: int) -> FewShotSet:
    """Finds the images of each class, at any depth below its folder, without opening any.

    What is no image by its suffix is passed over, as are hidden files and folders; images in formats that are not read
    here are too, with a note.

    Raises:
      UserError: where there are fewer than two classes, a class has no image, or a split lacks a part.
    """
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; check data.root and data.images")
    folders = class_folders(images)
    parts = [name for name in folders if name in _PARTS]
    # Among vehicles, train is a class.
    if parts and (parts != ["train"] or class_folders(images / "train")):
        _check_parts(images, folders)
        return _with_notes(_load_parts(images), images)
    if len(folders) < 2:
        found = "one sub-folder only" if folders else "no sub-folder"
        raise UserError(f"{images}: {found}; put the images of each class into a sub-folder with the class's name")
    names = distinct_names(folders, images)
    items = [Labelled(file, label) for label, name in enumerate(folders) for file in images_below(images / name)]
    whole = automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, images.name))
    return _with_notes(whole, images)


def _with_notes(whole: FewShotSet, images: Path) -> FewShotSet:
    notes = list(whole.notes)
    if not whole.val:
        notes.append(
            f"{images} has no validation photographs, so held_out=validation has nothing to choose by and deploys the "
            "tuned prompt with the head; add some, or set held_out=shots"
        )
    unread = [path.suffix.lower() for path in _shown_below(images) if path.suffix.lower() in UNREAD_SUFFIXES]
    if unread:
        notes.append(
            f"passed over in {images}, for these formats are not read: {len(unread)} files in "
            f"{', '.join(sorted(set(unread)))}; convert them to .jpg or .png"
        )
    return dataclasses.replace(whole, notes=tuple(notes))


def _check_parts(images: Path, folders: list[str]) -> None:
    validation = [name for name in folders if name in _VALIDATION]
    if set(folders) - set(validation) != {"train", "test"} or len(validation) > 1:
        raise UserError(
            f"{images}: sub-folders {', '.join(folders)}; a split has train and test, perhaps one of "
            f"{', '.join(_VALIDATION)}, and no other; complete it, or give each class a sub-folder of another name"
        )


def _load_parts(images: Path) -> FewShotSet:
    folders = class_folders(images / "train")
    names = distinct_names(folders, images / "train")
    labels = {name: label for label, name in enumerate(folders)}
    parts: dict[str, tuple[Labelled, ...]] = {}
    for part in class_folders(images):
        for name in class_folders(images / part):
            if name not in labels:
                raise UserError(f"{images / part / name}: class {name!r} is not in train; add its images there")
        parts["val" if part in _VALIDATION else part] = tuple(
            Labelled(file, labels[name])
            for name in class_folders(images / part)
            for file in images_below(images / part / name)
        )
    if not parts["train"] or not parts["test"]:
        raise UserError(f"{images}: train and test must each hold a sub-folder for each class")
    return FewShotSet(
        names, parts["train"], parts.get("val", ()), parts["test"], split=f"train and test of {images.name}"
    )


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders that are not hidden, in order."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def images_below(folder: Path) -> list[PhotographFile]:
    """The images of one class, in order of their paths.

    Raises:
      UserError: where there is none.
    """
    found = [path for path in _shown_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise UserError(
            f"{folder}: no image in this folder; add some ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove it"
        )
    return [PhotographFile(path) for path in sorted(found)]


def _shown_below(folder: Path) -> Iterator[Path]:
    """The files at any depth below a folder that are not hidden, nor in a hidden folder."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]  # os.walk goes down into what is left
        yield from (Path(where) / name for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's own, such as .thumbnails."""
    return name.startswith(".") or name == "__MACOSX"
