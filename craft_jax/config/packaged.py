"""The settings files that come with the package, found by name: --config=demo, --config=caltech:paper."""

import difflib
from pathlib import Path

from craft_jax.errors import UserError

FOLDER = Path(__file__).parent.parent / "configs"  # in the repository a link to configs/ at its top


def names() -> list[str]:
    """What there is, such as demo and caltech."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def found(file: str) -> str:
    """The path of a settings file and its variant, as --config takes them.

    Args:
      file: a path or a packaged name, perhaps with a colon and a variant. A path that is there goes before a name.

    Raises:
      UserError: where it is neither a path nor a packaged name, with the names that there are.
    """
    name, colon, variant = file.partition(":")
    if not name or name.endswith(".py") or "/" in name or Path(name).is_file():
        return file
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"no settings are called {name!r}; {meant}there are {', '.join(names())}; a file of your own ends in .py"
        )
    return f"{FOLDER / name}.py{colon}{variant}"


def in_arguments(argv: list[str]) -> list[str]:
    """A command line whose flag --config has a path in the place of a packaged name."""
    with_paths = list(argv)
    for i, argument in enumerate(argv):
        if argument == "--":
            break
        if argument in ("--config", "-config") and i + 1 < len(argv):
            with_paths[i + 1] = found(argv[i + 1])
        elif argument.startswith(("--config=", "-config=")):
            flag, _, file = argument.partition("=")
            with_paths[i] = f"{flag}={found(file)}"
    return with_paths


def parted(files: str) -> list[str]:
    """Settings files that are joined by commas; the commas of a variant, as in caltech:paper,tfds, part none."""
    parts: list[str] = []
    for piece in filter(None, files.split(",")):
        name = piece.partition(":")[0]
        if parts and ":" in parts[-1] and not name.endswith(".py") and name not in names():
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts
