"""Names and sentences that nobody vouches for, as text that shows what it is and does nothing."""

import re
import unicodedata

_DIRECTIONS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f", "\u061c"}
_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what spreadsheets take for the beginning of one
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~!$&])")


def one_line(text: str) -> str:
    """As it is, but for characters that break a line, steer a terminal or turn the direction of writing: escaped."""
    return "".join(_escaped(character) if _steers(character) else character for character in text)


def cell(text: str) -> str:
    """For a cell of a CSV file: on one line; a quotation mark keeps a spreadsheet from taking it for a formula."""
    line = one_line(text)
    return f"'{line}" if line.lstrip(" ").startswith(_FORMULA) else line


def path_cell(path: str) -> str:
    """A path for a cell of a CSV file: what looks like a formula begins with `./`, which leads to the same file."""
    line = one_line(path)
    return f"./{line}" if line.startswith((*_FORMULA, " ")) else line


def in_markdown(text: str) -> str:
    """As plain text in Markdown: no tag, link, emphasis or column."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def code_in_markdown(text: str) -> str:
    """Between backticks in Markdown, of which it has more than the text does."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    blank = " " if "`" in line else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
