"""The text of a list that comes with photographs."""

from pathlib import Path

from craft_jax.errors import UserError


def read(path: Path, *, missing: str) -> str:
    """The whole text, without a byte-order mark.

    Args:
      path: a text file.
      missing: what to say after its name where there is none.

    Raises:
      UserError: where it cannot be read or is not in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: {missing}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the list must be UTF-8 text; save it as such ({error})") from error
