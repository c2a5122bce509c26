"""Labelled images as a CSV file, and sorted into folders by label: copied or linked, never moved."""

import contextlib
import csv
import filecmp
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from craft_jax.errors import UserError
from craft_jax.files import naming_full_disk, one_line, replacing, shown
from craft_jax.reporting.text import cell, path_cell

_LONGEST = 100  # bytes of a folder's name; file systems take 255


@contextlib.contextmanager
def csv_of_labels(path: Path) -> Iterator[Callable[[Path, str, float, str], None]]:
    """Yields what writes a line: path, label, probability from 0 to 1, and why an image could not be read.

    The file is there once all lines are.

    Raises:
      UserError: where it cannot be written.
    """
    try:
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(("path", "label", "probability", "error"))

            def write(image: Path, label: str, probability: float, error: str) -> None:
                number = "" if error else f"{probability:.6f}"
                lines.writerow((path_cell(shown(image)), cell(label), number, cell(error)))

            yield write
    except OSError as error:
        raise UserError(f"--csv={path}: cannot be written ({error.strerror}); choose another file") from error


def sort_into(folder: Path, image: Path, label: str, *, link: bool) -> Path:
    """Copies an image, or links to it, in the sub-folder of its label; where it is already there, nothing is done.

    Another file of its name is left as it is, and the copy gets a number.

    Raises:
      UserError: where that cannot be done.
    """
    place = folder / folder_name(label)
    try:
        with naming_full_disk(folder):
            place.mkdir(parents=True, exist_ok=True)
            for number in range(1, 1_000_000):
                target = place / (image.name if number == 1 else f"{image.stem}-{number}{image.suffix}")
                if not target.exists() and not target.is_symlink():
                    target.symlink_to(image.absolute()) if link else shutil.copy2(image, target)
                    return target
                if target.exists() and filecmp.cmp(image, target, shallow=False):
                    return target
    except OSError as error:
        raise UserError(f"--sort={folder}: {shown(image)} cannot be put there ({error.strerror})") from error
    raise UserError(f"--sort={folder}: too many images are called {shown(image.name)}")


def folder_name(label: str) -> str:
    """A label as the name of a folder: without what parts paths, not hidden, and not too long for a file system."""
    name = one_line(label).replace("/", "_").replace("\\", "_").strip()
    name = f"_{name.lstrip('.')}" if name.startswith(".") or not name else name
    if len(name.encode()) <= _LONGEST:
        return name
    told = hashlib.sha256(label.encode()).hexdigest()[:8]
    return f"{name.encode()[:_LONGEST].decode(errors='ignore')}-{told}"
