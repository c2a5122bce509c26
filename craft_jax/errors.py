"""The exceptions that entry points turn into a single line and an exit status, and quiet from who would say more.

From Python they are a plain `ValueError` and a plain `Exception`.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Iterator

_ARGUMENTS = re.compile(r"--(?=(?:workdir)\b)")
_commands = 0  # under way in this process
_silencing = threading.Lock()
_silenced: dict[str, tuple[int, int]] = {}  # by logger: how many blocks keep it quiet, and its level before

RESUMABLE = 75
"""Exit status of a run that stopped early and that the same command resumes: EX_TEMPFAIL of sysexits.h."""


class UserError(ValueError):
    """Bad input. The message names the setting or file, what was found, and the remedy.

    It is written with flags, such as `--workdir`; where no command is under way, it speaks of the argument, `workdir`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(worded(message))


class NotInstalled(UserError):
    """Something that was asked for needs a package that is not there."""


class Interrupted(Exception):
    """A run stopped early because it was asked to. The message says where it stands; the same command resumes it."""


@contextlib.contextmanager
def needed(package: str, purpose: str) -> Iterator[None]:
    """For an import that only some runs need: where it fails inside, says so in one line.

    Args:
      package: as pip calls it.
      purpose: what needs it, such as a setting with its value.

    Raises:
      NotInstalled: where the import fails.
    """
    try:
        yield
    except (ImportError, ValueError) as error:  # the latter of a variable that a package reads, such as MPLBACKEND
        reason = str(error).partition("\n")[0]
        remedy = f"; pip install {package}" if isinstance(error, ImportError) else ""
        raise NotInstalled(f"{purpose} needs {package}, which cannot be imported here ({reason}){remedy}") from error


def first_line(error: BaseException) -> str:
    """Of an error's message, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def on_command_line() -> Iterator[None]:
    """Inside, or in a function that it decorates, messages speak of flags."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def worded(message: str) -> str:
    """A message that names flags, for whoever called: from Python these are arguments."""
    return message if _commands else _ARGUMENTS.sub("", message)


@contextlib.contextmanager
def silenced(name: str, level: int = logging.CRITICAL) -> Iterator[None]:
    """Keeps another library's logger below `level` off the screen, within the block; the last of several undoes it."""
    logger = logging.getLogger(name)
    with _silencing:
        blocks, before = _silenced.get(name, (0, logger.level))
        _silenced[name] = blocks + 1, before
        logger.setLevel(level)
    try:
        yield
    finally:
        with _silencing:
            blocks, before = _silenced.pop(name)
            if blocks > 1:
                _silenced[name] = blocks - 1, before
            else:
                logger.setLevel(before)
