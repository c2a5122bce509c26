"""Files and folders that appear whole or not at all, whoever else writes them at the same time; and locks."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from craft_jax.errors import UserError


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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as holder:
        partial = Path(holder) / path.name
        yield partial
        if partial.is_file():  # a machine that crashes could else leave the new name without the content
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        os.replace(partial, path)


def lock(file: TextIO) -> bool:
    """Takes an open file's lock until it is closed; False where another process has it, or this one elsewhere.

    The system lets go of a killed process's. A file system without locks gives everyone theirs.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Makes a folder and keeps other runs out of it; where nothing was written into it, it is gone afterwards.

    Raises:
      UserError: where another run has it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    claim = folder / ".writing"
    with claim.open("w") as file:
        if not lock(file):
            raise UserError(f"another run is writing into {folder}; wait for its end, or choose another --workdir")
        try:
            yield
        finally:
            if list(folder.iterdir()) == [claim]:
                claim.unlink()
                with contextlib.suppress(OSError):  # something else came to be there
                    for path in made:
                        path.rmdir()
