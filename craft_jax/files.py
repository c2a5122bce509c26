"""Files and folders that appear whole or not at all, whoever else writes at the same time; locks; names as text."""

import contextlib
import errno
import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from craft_jax.errors import UserError

_DIRECTIONS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f", "\u061c"}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LOCK = ".writing"  # in a workdir, for as long as someone writes there
_POLL, _PATIENCE = 0.05, 0.2  # seconds; one that is just ending is no other run


def shown(path: Path | str) -> str:
    """A path as text that any file or screen takes: bytes of its name that are not UTF-8 are escaped."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as JSON may hold
        return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """As it is, but for characters that break a line, steer a terminal or turn the direction of writing: escaped."""
    return "".join(_escaped(character) if _steers(character) else character for character in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, which knows neither NaN nor infinity; raises ValueError where there is one."""
    return json.dumps(value, indent=indent, allow_nan=False)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path of its own to write to, which then takes the place of `path`; removed on failure.

    A folder may be made there too; it takes the place of none, or of an empty one.
    """
    # A folder, for a temporary file would be readable by its owner alone, and so would what it replaces.
    with naming_full_disk(path.parent), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as holder:
        partial = Path(holder) / path.name
        yield partial
        if partial.is_file():  # a machine that crashes could else leave the new name without the content
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        os.replace(partial, path)


@contextlib.contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """What fails inside for want of space in `folder` becomes a UserError that says so."""
    try:
        yield
    except Exception as error:
        if not _for_want_of_space(error):
            raise
        raise UserError(
            f"{folder}: no space is left on its disk; make room there, and the same command goes on from what is whole"
        ) from error


def _for_want_of_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if any(os.strerror(number) in str(error) for number in _NO_SPACE):  # tensorstore's own kinds of error
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def sole_writer(folder: Path, busy: Callable[[], None] | None = None) -> Iterator[None]:
    """Makes a folder and keeps other runs out of it; where nothing was written into it, it is gone afterwards.

    The system lets go of a killed process's lock. A file system without locks gives everyone theirs.

    Args:
      folder: of a run.
      busy: called once where another run has the folder, before it is waited for; without it nobody waits.

    Raises:
      UserError: where another run has it, and `busy` is not given.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / _LOCK, poll_interval=_POLL)
    try:
        _acquire(lock, folder, busy)
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)  # before it is let go: who waits for it sees that its file is gone
            lock.release()
    finally:
        with contextlib.suppress(OSError):  # something was written into it
            for path in made:
                path.rmdir()


def _acquire(lock: FileLock, folder: Path, busy: Callable[[], None] | None) -> None:
    patience = _PATIENCE
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)  # whoever had it may have taken an empty folder away
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            if busy is None:
                raise UserError(
                    f"another run is writing into {folder}; wait for its end, or choose another --workdir"
                ) from None
            busy()
            patience = -1.0
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
