"""Miniatures of every layout that the settings files expect: three classes, photographs from the bundled set.

The names have two, two and three tokens, so that the tests compile a program once and not for each set.

    python -m tests.miniatures FOLDER

makes all of them below FOLDER, to try a command on before the real data are there.
"""

import atexit
import csv
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from craft_jax.data import sources

ASSETS = Path(sources.__file__).parent.parent / "assets"


def _unpacked() -> Path:
    """The bundled set with its images in a folder, there for as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="caltech24_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(ASSETS / "caltech24" / "images.zip") as archive:
        archive.extractall(folder / "images")
    shutil.copy(ASSETS / "caltech24" / "split_caltech24_64px.json", folder)
    return folder


BUNDLED = _unpacked()
SHOWN = ("pizza", "sunflower", "grand_piano")  # the bundled classes whose photographs are shown
COUNTS = {"train": 6, "val": 2, "test": 4}


class Layout(NamedTuple):
    """One of CoOp's: its folder of images, its split file, class names, and where the i-th image of a class lies."""

    images: str
    split: str
    names: tuple[str, str, str]
    path: Callable[[str, str, int], str]


COOP = {
    "caltech": Layout(
        "caltech-101/101_ObjectCategories",
        "caltech-101/split_zhou_Caltech101.json",
        ("pizza", "sunflower", "grand_piano"),
        lambda name, part, i: f"{name}/image_{i:04d}.jpg",
    ),
    "pets": Layout(
        "oxford_pets/images",
        "oxford_pets/split_zhou_OxfordPets.json",
        ("birman", "boxer", "bengal"),
        lambda name, part, i: f"{name.capitalize()}_{i}.jpg",
    ),
    "cars": Layout(
        "stanford_cars",
        "stanford_cars/split_zhou_StanfordCars.json",
        ("Audi", "Jeep", "BMW"),
        lambda name, part, i: f"cars_{'test' if part == 'test' else 'train'}/{name}{i:05d}.jpg",
    ),
    "flowers": Layout(
        "oxford_flowers/jpg",
        "oxford_flowers/split_zhou_OxfordFlowers.json",
        ("sunflower", "iris", "lotus"),
        lambda name, part, i: f"image_{len(name)}{i:03d}.jpg",
    ),
    "food": Layout(
        "food-101/images",
        "food-101/split_zhou_Food101.json",
        ("pizza", "sushi", "nachos"),
        lambda name, part, i: f"{name}/{1005649 + i}.jpg",
    ),
    "sun": Layout(
        "sun397/SUN397",
        "sun397/split_zhou_SUN397.json",
        ("alley", "bakery", "canyon"),
        lambda name, part, i: f"{name[0]}/{name}/sun_{i:04d}.jpg",
    ),
    "dtd": Layout(
        "dtd/images",
        "dtd/split_zhou_DescribableTextures.json",
        ("grid", "striped", "knitted"),
        lambda name, part, i: f"{name}/{name}_{i:04d}.jpg",
    ),
    "eurosat": Layout(
        "eurosat/2750",
        "eurosat/split_zhou_EuroSAT.json",
        ("Forest", "Highway", "Pasture"),
        lambda name, part, i: f"{name}/{name}_{i}.jpg",
    ),
    "ucf": Layout(
        "ucf101/UCF-101-midframes",
        "ucf101/split_zhou_UCF101.json",
        ("Archery", "Biking", "Drumming"),
        lambda name, part, i: f"{name}/v_{name.replace('_', '')}_g01_c{i:02d}.jpg",
    ),
}

VARIANTS = ("ATR", "CRJ", "DC-6")
WORDNET = {"n01440764": "tench", "n01514668": "hen", "n03773504": "missile"}


def images(which: int) -> Iterator[tuple[str, int, Path]]:
    """(part, number, file) of a bundled class's train, val and test photographs, as many as a miniature holds."""
    split = json.loads((BUNDLED / "split_caltech24_64px.json").read_text())
    number = 0
    for part, count in COUNTS.items():
        for path, _, _ in [row for row in split[part] if row[2] == SHOWN[which]][:count]:
            number += 1
            yield part, number, BUNDLED / "images" / path


def make(root: Path, name: str) -> Path:
    """Makes the miniature for configs/<name>.py below `root`, and returns `root`."""
    if name in COOP:
        _make_coop(root, COOP[name])
    else:
        _OTHERS[name](root)
    return root


def _put(file: Path, at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, at)


def _make_coop(root: Path, layout: Layout) -> None:
    rows: dict[str, list] = {part: [] for part in COUNTS}
    for label, name in enumerate(layout.names):
        for part, i, file in images(label):
            path = layout.path(name, part, i)
            _put(file, root / layout.images / path)
            rows[part].append([path, label, name])
    (root / layout.split).write_text(json.dumps(rows))


def _make_fgvc(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    lines: dict[str, list[str]] = {part: [] for part in COUNTS}
    for label, variant in enumerate(VARIANTS):
        for part, i, file in images(label):
            image = f"{label + 1}{i:06d}"
            _put(file, folder / "images" / f"{image}.jpg")
            lines[part].append(f"{image} {variant}\n")
    for part in COUNTS:
        (folder / f"images_variant_{part}.txt").write_text("".join(lines[part]))
    (folder / "variants.txt").write_text("".join(f"{variant}\n" for variant in VARIANTS))


def _make_imagenet(root: Path) -> None:
    for label, folder in enumerate(WORDNET):
        for part, i, file in images(label):
            at = {"train": "train", "test": "val"}.get(part)
            if at:
                _put(file, root / "imagenet" / "images" / at / folder / f"{folder}_{i}.JPEG")
    names = "".join(f"{folder} {name}\n" for folder, name in WORDNET.items())
    (root / "imagenet" / "classnames.txt").write_text(names)


def make_shifts(root: Path) -> None:
    """ImageNet's four variants: V2's folders are places, Sketch has every class, A and R have two of the three."""
    for label, folder in enumerate(WORDNET):
        for part, i, file in images(label):
            if part != "val":
                continue
            _put(file, root / f"imagenetv2/imagenetv2-matched-frequency-format-val/{label}/{i}.jpeg")
            _put(file, root / f"imagenet-sketch/images/{folder}/sketch_{i}.JPEG")
            if label > 0:
                _put(file, root / f"imagenet-adversarial/imagenet-a/{folder}/{i}.jpg")
                _put(file, root / f"imagenet-rendition/imagenet-r/{folder}/art_{i}.jpg")
    (root / "imagenet-adversarial" / "imagenet-a" / "README.txt").write_text("no folder of a class\n")


def _make_folder(root: Path) -> None:
    """Nested folders, suffixes in capitals, and files that are no photographs."""
    for label, name in enumerate(("lion", "panda", "sea_horse")):
        for part, i, file in images(label):
            inner = "more/inside" if part == "val" else ""
            _put(file, root / name / inner / f"photo_{i}{'.JPG' if i % 2 else '.jpeg'}")
        (root / name / "notes.txt").write_text("no photograph\n")
        (root / name / "._photo_1.JPG").write_bytes(b"a resource fork")
    (root / ".cache").mkdir()


def make_listing(root: Path, *, with_split: bool = False) -> None:
    """The folder's photographs as list.csv."""
    _make_folder(root)
    with (root / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *(["split"] if with_split else [])])
        for label, name in enumerate(("lion", "panda", "sea_horse")):
            for part, i, _ in images(label):
                inner = "more/inside/" if part == "val" else ""
                path = f"{name}/{inner}photo_{i}{'.JPG' if i % 2 else '.jpeg'}"
                writer.writerow([path, name, *([part] if with_split else [])])


_OTHERS = {"aircraft": _make_fgvc, "imagenet": _make_imagenet, "folder": _make_folder}
NAMES = (*COOP, *_OTHERS)

if __name__ == "__main__":
    for name in NAMES:
        make(Path(sys.argv[1]) / ("photos" if name == "folder" else ""), name)
    make_shifts(Path(sys.argv[1]))
