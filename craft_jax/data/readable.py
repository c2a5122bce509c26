"""Photographs that cannot be read: all of them are found and named before anything is asked about the others.

Each is opened once in a process, which a sweep does for all of its runs at once.
"""

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor

from craft_jax.data.images import ImageArray, ImageFile, ImageMember, LazyImage
from craft_jax.errors import UserError

_NAMED = 10
_opened: dict[Hashable, str] = {}  # what was wrong with those that were opened before, empty where nothing was


def check_readable(images: Iterable[LazyImage], show: Callable[[int], None] = lambda done: None) -> None:
    """Opens every photograph, in as many threads as there are cores.

    Args:
      images: may name one several times.
      show: is told, now and then, how many have been opened.

    Raises:
      UserError: naming those that are missing or unreadable; where they are many, the first of them.
    """
    found = {_mark(image): image for image in images if not isinstance(image, ImageArray)}
    fresh = [mark for mark in found if mark not in _opened]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, (mark, error) in enumerate(
            zip(fresh, pool.map(_trouble, [found[mark] for mark in fresh]), strict=True), start=1
        ):
            _opened[mark] = error
            show(done)
    errors = [(image.name, error) for mark, image in found.items() if (error := _opened[mark])]
    if not errors:
        return
    names = ", ".join(name for name, _ in errors[:_NAMED])
    if len(errors) == 1:
        raise UserError(errors[0][1])
    more = f" and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
    raise UserError(
        f"{len(errors):,} photographs are missing or not readable: {names}{more}; replace them or take them out of the "
        f"set; of the first: {errors[0][1].removeprefix(f'{errors[0][0]}: ').partition('; ')[0]}"
    )


def _mark(image: LazyImage) -> Hashable:
    """Another one where a file was written anew."""
    if not isinstance(image, (ImageFile, ImageMember)):
        return image.name
    try:
        about = (image.path if isinstance(image, ImageFile) else image.archive).stat()
    except OSError:
        return image.name, None
    return image.name, about.st_ino, about.st_size, about.st_mtime_ns


def _trouble(image: LazyImage) -> str:
    try:
        image.check() if isinstance(image, ImageFile) else image.open()
    except UserError as error:
        return str(error)
    return ""
