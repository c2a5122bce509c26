"""What the commands share: reading flags, and turning a user's mistake into one line and a non-zero exit."""

import ast
import contextlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from absl import flags

from craft_jax import folders
from craft_jax.errors import RESUMABLE, Interrupted, UserError, first_line
from craft_jax.files import one_line

RESUMES = "interrupted; the same command goes on from what was saved"
_SETTINGS_MODULE = "config_config"  # what ml_collections calls the file of the flag --config


def called(argv: list[str], module: str) -> str:
    """How a command was called: `craft-jax tune`, or `python -m` and its module."""
    return argv[0] if argv[0].startswith("craft-jax ") else f"python -m {module}"


def parse(
    values: flags.FlagValues, argv: list[str], usage: str, settings: Sequence[str] = ()
) -> tuple[flags.FlagValues, list[str]]:
    """The parsed flags and the positional arguments; `--help` prints `usage` and the flags, and exits.

    Args:
      values: the command's flags.
      argv: its command line.
      usage: what `--help` begins with.
      settings: full names that may be given as --config.NAME, for whoever forgets `config.`.

    Raises:
      UserError: for an unknown flag or setting, a value of the wrong type, or a settings file that cannot be loaded.
    """
    flags.DEFINE_bool("help", False, "Shows this help.", flag_values=values, short_name="h")
    sys.modules.pop(_SETTINGS_MODULE, None)  # a file without get_config would else have that of the one before
    try:
        rest = values(argv)
    except Exception as error:  # a settings file can raise anything
        mistake = inside_settings_file(error) or _without_config(error, settings) or _on_command_line(error)
        if mistake is None:
            raise
        raise mistake from error
    if values["help"].value:
        print(f"{usage}\n{values.get_help(include_special_flags=False)}")
        sys.exit(0)
    return values, rest[1:]


def exit_on_user_error(main: Callable[[list[str]], None], argv: list[str], *, interrupted: str = "interrupted") -> None:
    """Runs a command; a mistake or an early stop becomes one line on standard error and an exit status.

    Status 2 for a UserError, `RESUMABLE` (75) for a run that the same command resumes, 130 for Ctrl-C.

    Args:
      main: the command.
      argv: its command line.
      interrupted: what Ctrl-C is answered with; `RESUMES` for commands that keep checkpoints.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own start-up chatter
    os.environ["JAX_ENABLE_X64"] = "0"  # `precision` says why
    pay_compilation_once()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a name is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(argv)
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(f"{stop}; the same command resumes the run", file=sys.stderr)
        sys.exit(RESUMABLE)
    except BrokenPipeError:  # whoever read our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def engine_options(options: Sequence[str]) -> dict[str, Any]:
    """What --engine_option has, NAME=VALUE each, the values as Python's literals or else as text; raises UserError."""
    return dict(map(_engine_option, options))


def _engine_option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--engine_option={option} must be NAME=VALUE, such as timeout_min=120")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


@contextlib.contextmanager
def elsewhere(model: str | None) -> Iterator[None]:
    """A UserError inside, over the model that a checkpoint names, ends with the flag that names another place."""
    try:
        yield
    except UserError as error:
        if model:
            raise
        raise UserError(f"{error}; the checkpoint was made with it: if it is elsewhere now, give --model") from error


def pay_compilation_once() -> None:
    """Keeps compiled programs between runs, wherever JAX's own setting does not say otherwise; safe to delete.

    To be called before JAX is imported, which is when it reads these settings.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folders.cache() / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # JAX writes no entry in one piece: what another process is writing, or was killed at, is compiled anew.
    for done in ("reading", "writing"):
        warnings.filterwarnings("ignore", f"Error {done} persistent compilation cache entry")


def inside_settings_file(error: BaseException) -> UserError | None:
    """What a settings file's own lines raised, with file and line; a UserError of theirs as it is.

    ml_collections wraps it in others of its kind. None where it was something else.
    """
    found: BaseException | None = error
    while found is not None:
        frames = traceback.walk_tb(found.__traceback__)
        own = [(frame, line) for frame, line in frames if frame.f_globals.get("__name__") == _SETTINGS_MODULE]
        if own and isinstance(found, UserError):
            return found
        if own:
            frame, line = own[-1]
            message = " ".join("".join(traceback.format_exception_only(found)).split())
            return UserError(f"{frame.f_code.co_filename}:{line}: {message}")
        found = found.__cause__ or found.__context__
    return None


def _without_config(error: Exception, settings: Sequence[str]) -> UserError | None:
    """An unknown flag that is the name, or the last part of the name, of a setting."""
    if not isinstance(error, flags.UnrecognizedFlagError):
        return None
    meant = [name for name in settings if error.flagname in (name, name.rpartition(".")[2])]
    if not meant:
        return None
    return UserError(f"unknown flag --{error.flagname}; settings are given as --config.{' or --config.'.join(meant)}")


def _in_our_words(message: str) -> str:
    """What Python says of a text that is no number."""
    message = re.sub(r":? ?invalid literal for int\(\) with base \d+: .*", " must be a whole number", message)
    message = re.sub(r": \('Non-boolean argument to boolean flag', .*", " must be true or false", message)
    return re.sub(r":? ?could not convert string to float: .*", " must be a number", message)


def _on_command_line(error: Exception) -> UserError | None:
    """What is wrong with the flags, or with a settings file before its first line; None where it is neither."""
    if isinstance(error, SyntaxError):
        return UserError(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}")
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return UserError(f"{error.obj.__file__} has no function get_config; see configs/folder.py for one")
    if isinstance(error, flags.Error):
        lines = str(error).strip().splitlines()
        return UserError(_in_our_words(f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") else lines[0]))
    if isinstance(error, (AttributeError, KeyError)):  # ml_collections: a setting that the file does not have
        return UserError(f"unknown setting on the command line: {_message(error)}")
    if isinstance(error, (TypeError, ValueError)):
        return UserError(f"a setting has a value of the wrong type: {_in_our_words(first_line(error))}")
    if isinstance(error, OSError):
        return UserError(f"--config could not be loaded: {last_line(error)}")
    return None


def last_line(error: Exception) -> str:
    """The last line of an error's message, where ml_collections and the like say what really happened."""
    return str(error).strip().splitlines()[-1].strip()


def _message(error: Exception) -> str:
    # A KeyError's own text is the repr of its message, line breaks and all.
    message = error.args[0] if error.args else ""
    while isinstance(message, Exception):
        message = message.args[0]
    lines = str(message).replace("\\n", "\n").replace("\\'", "'").strip("'").splitlines()
    return "; ".join(line.strip().strip("'").replace("Did you", "did you") for line in lines)
