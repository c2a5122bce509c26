"""Names and sentences that nobody vouches for, as text that shows what it is and does nothing."""

import re

from craft_jax.files import one_line

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what spreadsheets take for the beginning of one
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~!$&])")


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
