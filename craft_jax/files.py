"""Files and folders that appear whole or not at all, whoever else writes them at the same time; and locks."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from craft_jax.errors import UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def shown(path: Path | str) -> str:
    """A path as text that any file or screen takes: bytes of its name that are not UTF-8 are escaped."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as JSON may hold
        return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


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
def held(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Holds a lock by the file `path`, which is there for as long; waits where another has it.

    The system lets go of a killed process's. A file system without locks gives everyone theirs.

    Args:
      path: the file.
      busy: called once where another process has the lock, or this one elsewhere; may raise not to wait for it.
    """
    file = _locked(path, busy)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is let go: who waits for it sees that its file is gone
        file.close()


def _locked(path: Path, busy: Callable[[], None]) -> TextIO:
    told = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # whoever had it may have taken an empty folder away
        file = path.open("w")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    busy()
                told = True
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return file
        except BaseException:
            file.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Makes a folder and keeps other runs out of it; where nothing was written into it, it is gone afterwards.

    Raises:
      UserError: where another run has it.
    """

    def refuse() -> None:
        raise UserError(f"another run is writing into {folder}; wait for its end, or choose another --workdir")

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder / ".writing", busy=refuse):
            yield
    finally:
        with contextlib.suppress(OSError):  # something was written into it
            for path in made:
                path.rmdir()
