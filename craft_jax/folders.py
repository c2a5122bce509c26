"""The folders that a user names: on this machine's file system, with `~` for the home folder."""

import os
import re
import tempfile
from pathlib import Path

from craft_jax.errors import UserError
from craft_jax.files import shown


def named(folder: str | Path, setting: str) -> Path:
    """A folder that the user named, `~` and `~user` expanded.

    Args:
      folder: as it was given.
      setting: what messages call it, such as `--workdir`.

    Raises:
      UserError: where it is a URL, such as a bucket's, or a home folder that is not there, or where its path is not
        UTF-8, in which checkpoints cannot be written.
    """
    text = os.fspath(folder)
    # A Path of a URL has lost one of its slashes.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/" + ("/" if isinstance(folder, str) else "(?!.*:/)"), text):
        raise UserError(
            f"{setting}={text}: a URL, and runs are written to and read from folders; name one of this machine, such "
            "as where the bucket is mounted (gcsfuse, mountpoint-s3), or copy the run from or to the bucket"
        )
    path = expanded(text, setting)
    try:
        absolute = path.absolute()
    except FileNotFoundError as error:
        raise UserError(f"{setting}={text}: the folder that you are in is gone; change to another") from error
    whole = shown(absolute)
    if whole != str(absolute):
        raise UserError(f"{setting}={shown(text)}: the path {whole} is not UTF-8 text; choose or rename a folder")
    return path


def expanded(path: str | Path, setting: str) -> Path:
    """A path with `~` and `~user` expanded; raises UserError where there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{setting}={path}: no such home folder; write the path in full") from error


def cache() -> Path:
    """Where what is safe to delete is kept between runs: the user's cache folder, or a temporary one without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "craft_jax"
    try:
        return Path.home() / ".cache" / "craft_jax"
    except RuntimeError:  # a user id that the system does not know
        return Path(tempfile.gettempdir()) / f"craft_jax-{os.getuid()}"


def check_writable(workdir: Path) -> None:
    """Raises UserError where a run could not write into `workdir`; leaves nothing behind."""
    existing = workdir.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"--workdir={workdir}: cannot write into {existing} ({error.strerror}); choose another"
        ) from error
