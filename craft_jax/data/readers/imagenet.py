"""ImageNet and its shifted variants as CoOp lays them out: folders by WordNet id, class names in `classnames.txt`.

The validation images are the test set, as the field has it. Two pairs of the field's class names are the same words
("missile", "sunglasses"): they stay so.
"""

from collections.abc import Sequence
from pathlib import Path

from craft_jax.data.class_names import readable
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.readers import text_file
from craft_jax.data.readers.folder import class_folders, images_below
from craft_jax.errors import UserError

SHIFTS = {
    "imagenetv2": "imagenetv2/imagenetv2-matched-frequency-format-val",
    "imagenet-sketch": "imagenet-sketch/images",
    "imagenet-a": "imagenet-adversarial/imagenet-a",
    "imagenet-r": "imagenet-rendition/imagenet-r",
}
"""Folders of the variants, below data.root."""


def load(images: Path, names_file: Path) -> FewShotSet:
    """Reads the folders, without opening any image.

    CoOp draws shots from each class in the order in which its file system lists the images, which differs between
    machines; here they are in order of name.

    Args:
      images: folder of `train` and `val`, each with a sub-folder a class.
      names_file: classnames.txt, with `<folder> <class name>` a line.

    Raises:
      UserError: where a folder or the file is missing, a class has no name, or one to test on no training image.
    """
    names = read_class_names(names_file)
    folders = training_folders(images, names_file)
    tested = _folders(images / "val")
    for folder in tested:
        if folder not in folders:
            raise UserError(f"{images / 'val' / folder}: this class is not in {images / 'train'}; add its images there")
    return FewShotSet(
        class_names=tuple(names[folder] for folder in folders),
        train=_items(images / "train", folders, folders),
        val=(),
        test=_items(images / "val", tested, folders),
        split="ImageNet's train and validation images",
    )


def load_shift(folder: Path, images: Path, names_file: Path) -> tuple[Labelled, ...]:
    """The images of a shifted variant, with ImageNet's labels; only the classes that the two share.

    Args:
      folder: holds a sub-folder a class: its WordNet id, or (V2) its place among all of them.
      images: ImageNet's own folder of `train` and `val`.
      names_file: ImageNet's own.

    Raises:
      UserError: where a folder is missing, or one stands for no class of ImageNet.
    """
    known = sorted(read_class_names(names_file))
    ours = training_folders(images, names_file)
    wordnet = {str(place): name for place, name in enumerate(known)} | {name: name for name in known}
    found = _folders(folder)
    for name in found:
        if name not in wordnet:
            raise UserError(f"{folder / name}: {names_file.name} lists no such class; remove the folder")
    shared = [name for name in found if wordnet[name] in ours]
    if not shared:
        raise UserError(f"{folder}: no class of {images / 'train'} is among its folders; check data.root")
    label = {name: i for i, name in enumerate(ours)}
    return tuple(Labelled(file, label[wordnet[name]]) for name in shared for file in images_below(folder / name))


def training_folders(images: Path, names_file: Path) -> list[str]:
    """The folders of the classes, by label. Raises UserError where one has no class name."""
    names, folders = read_class_names(names_file), _folders(images / "train")
    for folder in folders:
        if folder not in names:
            raise UserError(f"{names_file}: no class name for {images / 'train' / folder}; add a line, or remove it")
    return folders


def read_class_names(names_file: Path) -> dict[str, str]:
    """Class names by folder.

    Raises:
      UserError: where the file is missing or not in UTF-8, or a folder has no name in it.
    """
    missing = "no such file of class names; put CoOp's classnames.txt there, or set data.split"
    lines = text_file.read(names_file, missing=missing).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    names: dict[str, str] = {}
    for folder, *name in pairs:
        if not name:
            raise UserError(f"{names_file}: no class name for {folder}; write <folder> <class name> a line")
        if names.setdefault(folder, readable(name[0])) != readable(name[0]):
            raise UserError(
                f"{names_file}: {folder} is called {names[folder]!r} and {readable(name[0])!r}; give it one name"
            )
    return names


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; lay the images out as CoOp does, or set data.root and data.images")
    folders = class_folders(folder)
    if not folders:
        raise UserError(f"{folder}: no sub-folder; it must hold one for each class")
    return folders


def _items(folder: Path, found: Sequence[str], folders: Sequence[str]) -> tuple[Labelled, ...]:
    label = {name: i for i, name in enumerate(folders)}
    return tuple(Labelled(file, label[name]) for name in found for file in images_below(folder / name))
