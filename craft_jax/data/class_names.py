"""Class names as words, told apart as a tokenizer tells them: CLIP's sees neither case nor how blanks are written."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft_jax.errors import UserError
from craft_jax.files import shown

# A WordNet id or a number with a dot may be followed by words, as in n02085620-Chihuahua and 001.Albatross.
_CODE = re.compile(r"[nN]\d{8}(\W.*)?|\d+\.\D.*")
_TOKENS = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|[^\s\w]+")
"""What CLIP's tokenizer takes apart before all else: blanks between these do not count."""


def readable(class_name: str) -> str:
    """A class name as words: underscores are spaces, accents are written as one character (NFC)."""
    return " ".join(unicodedata.normalize("NFC", class_name).replace("_", " ").split())


def distinct_names(names: Sequence[Any], where: Path | str) -> tuple[str, ...]:
    """Class names as words, by label.

    Args:
      names: text, or bytes in UTF-8.
      where: they stand, for messages.

    Raises:
      UserError: where one is empty, no text, or reads as another does.
    """
    read = [readable(_text(name, label, where)) for label, name in enumerate(names)]
    first: dict[str, int] = {}
    for label, name in enumerate(read):
        key = _as_tokenized(name)
        if not key:
            raise UserError(f"{where}: the class name of label {label} is empty; give it a name")
        other = first.setdefault(key, label)
        if other == label:
            continue
        if read[other] == name:
            raise UserError(f"{where}: labels {other} and {label} are both called {name!r}; rename one of them")
        raise UserError(
            f"{where}: labels {other} and {label} are called {read[other]!r} and {name!r}, which a prompt cannot tell "
            "apart; give both one name, or rename one of them"
        )
    return tuple(read)


def name_notes(names: Sequence[str]) -> tuple[str, ...]:
    """What to say of names that are no words."""
    codes = [name for name in names if _CODE.fullmatch(name) or _is_number(name)]
    if not codes:
        return ()
    return (
        f"{len(codes)} of {len(names)} class names are bare numbers or WordNet ids, or begin with one, such as "
        f"{codes[0]!r}, which say nothing to the black box; name the classes in words",
    )


def _text(name: Any, label: int, where: Path | str) -> str:
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    if not isinstance(name, str):
        raise UserError(f"{where}: the class name of label {label} is {name!r}; it must be text")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UserError(f"{where}: the class name {shown(name)} is not UTF-8 text; rename it")
    return name


def _is_number(name: str) -> bool:
    try:
        float(name.replace(",", "."))
    except ValueError:
        return False
    return True


def _as_tokenized(name: str) -> str:
    """In lower case, without characters that are not seen, such as a zero-width space, parted as CLIP's tokenizer does.

    So t-shirt and t - shirt are one, and so are boeing747 and Boeing 747.
    """
    seen = readable("".join(c for c in name.lower() if unicodedata.category(c) not in ("Cf", "Cc")))
    return " ".join(_TOKENS.findall(seen))
