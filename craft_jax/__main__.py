"""The command `craft-jax`, also `python -m craft_jax`: hands its arguments to the command that they name.

Each is a module of its own too, as in `python -m craft_jax.main`.
"""

import difflib
import importlib
import importlib.metadata
import sys
from typing import NamedTuple

from craft_jax.cli import RESUMES, exit_on_user_error
from craft_jax.errors import UserError


class _Command(NamedTuple):
    """Where a command is, what it does, and what Ctrl-C is answered with."""

    module: str
    about: str
    interrupted: str = "interrupted"


_COMMANDS = {
    "tune": _Command("craft_jax.main", "tunes a model on images, or resumes: tune --config=demo", RESUMES),
    "predict": _Command("craft_jax.prediction", "labels images: predict --checkpoint=runs/demo photo.jpg"),
    "compare": _Command("craft_jax.reporting.compare", "two runs, and whether they differ: compare runs/a runs/b"),
    "export": _Command("craft_jax.export.command", "without craft_jax: export --checkpoint=runs/demo model.npz"),
    "sweep": _Command("craft_jax.sweep.command", "many runs, one table: sweep --config=demo --shots=1,4,16", RESUMES),
    "clients": _Command("craft_jax.clients.command", "owners who share no image: clients --config=demo", RESUMES),
    "serve": _Command("craft_jax.serve.command", "a local model over HTTP: serve --model=bundled"),
}  # fmt: skip


def _usage() -> str:
    lines = (f"  {name:{max(map(len, _COMMANDS))}}  {command.about}" for name, command in _COMMANDS.items())
    return "\n".join(["usage: craft-jax COMMAND [--help] ...", "       craft-jax --version", "", *lines])


def _command(name: str) -> _Command:
    if name in _COMMANDS:
        return _COMMANDS[name]
    near = difflib.get_close_matches(name, _COMMANDS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"craft-jax has no command {name!r}; {meant}there are {', '.join(_COMMANDS)}")


def _run(argv: list[str]) -> None:
    if not argv:
        raise UserError(f"a command is missing; there are {', '.join(_COMMANDS)}, and craft-jax --help")
    name, *arguments = argv
    if name in ("--help", "-h", "help"):
        print(_usage())
    elif name == "--version":
        print(f"craft_jax {importlib.metadata.version('craft_jax')}")
    else:
        importlib.import_module(_command(name).module).main([f"craft-jax {name}", *arguments])


def main() -> None:
    """What the script `craft-jax` calls."""
    argv = sys.argv[1:]
    chosen = _COMMANDS.get(argv[0]) if argv else None
    exit_on_user_error(_run, argv, interrupted=chosen.interrupted if chosen else "interrupted")


if __name__ == "__main__":
    main()
