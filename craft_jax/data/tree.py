"""Files below a folder: which are photographs, and which are an operating system's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from PIL import Image

from craft_jax.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from craft_jax.errors import UserError
from craft_jax.files import shown

_HIDDEN = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@tmp", "$recycle.bin", "recycler",
    "lost+found", "system volume information", "@__thumb", "found.000", "~snapshot", "network trash folder",
    "temporary items",
}  # fmt: skip
_SNIFFED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # those that have a signature


def is_hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's or a NAS's own, such as .thumbnails or @eaDir."""
    return name.startswith(".") or name.casefold() in _HIDDEN


def shown_below(folder: Path) -> Iterator[Path]:
    """The files at any depth below a folder that are not hidden, nor in a hidden folder.

    Linked folders are followed, each once and after all that are none; one that leads back to where it is, is not.

    Raises:
      UserError: where a folder cannot be listed.
    """
    yield from (path for path in _files(folder) if not is_hidden(path.name))


def hidden_folders(folder: Path) -> dict[str, int]:
    """How many images lie in hidden folders below, by those folders' names."""
    counts: dict[str, int] = {}
    for where, folders, _ in os.walk(folder):
        for name in filter(is_hidden, folders):
            inside = (n for _, _, names in os.walk(Path(where) / name) for n in names)
            images = sum(Path(n).suffix.lower() in IMAGE_SUFFIXES for n in inside)
            if images:
                counts[name] = counts.get(name, 0) + images
        folders[:] = [name for name in folders if not is_hidden(name)]
    return counts


def is_image(path: Path) -> bool:
    """By its suffix; by its content where it has none."""
    return path.suffix.lower() in IMAGE_SUFFIXES if path.suffix else _opens(path)


def is_unread(path: Path) -> bool:
    """Whether it is an image that `is_image` does not take: of another format, or under a strange suffix."""
    suffix = path.suffix.lower()
    return suffix in UNREAD_SUFFIXES or bool(suffix and suffix not in IMAGE_SUFFIXES and _opens(path))


def is_named_image(name: str) -> bool:
    """Whether a file that is not on this machine is an image, of a format that is read or not, by its suffix alone."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES


def _opens(path: Path) -> bool:
    if not path.is_file():  # to open a named pipe is to wait for who writes to it
        return False
    try:
        with Image.open(path, formats=_SNIFFED):
            return True
    except Exception:  # whatever a file of another kind makes a decoder say
        return False


def _files(folder: Path) -> Iterator[Path]:
    top = os.path.realpath(folder)
    seen: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        start = waiting.pop(0)
        if os.path.realpath(start) in seen or (start != str(folder) and _is_above(os.path.realpath(start), top)):
            continue
        for where, folders, names in os.walk(start, onerror=refuse):
            if os.path.realpath(where) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(where))
            shown = sorted(name for name in folders if not is_hidden(name))
            waiting += [os.path.join(where, name) for name in shown if os.path.islink(os.path.join(where, name))]
            folders[:] = shown  # os.walk goes down into what is left, but into no link
            yield from (Path(where) / name for name in names)


def refuse(error: OSError) -> NoReturn:
    """Raises UserError, naming the folder that the system does not list."""
    where = shown(error.filename or "")
    raise UserError(f"{where}: cannot be listed ({error.strerror}); make it readable, or take it out") from error


def _is_above(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder
