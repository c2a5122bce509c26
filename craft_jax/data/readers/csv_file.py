"""A CSV file of path,label: one image a line, labels as the class names should be read.

A third column, `split`, may say train, val or test, or another usual name of theirs; without it the split is automatic,
by a seed. Semicolons or tabs may stand for the commas.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.checks import once
from craft_jax.data.class_names import distinct_names
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageFile
from craft_jax.data.parts import PARTS, part_of
from craft_jax.data.readers import text_file
from craft_jax.errors import UserError
from craft_jax.files import shown

_COLUMNS = ("path", "label", "split")


def load(images: Path, file: Path, split_seed: int) -> FewShotSet:
    """Reads the list and checks it, without opening any image.

    Args:
      images: folder that its paths are relative to.
      file: the CSV file, its first line naming the columns, in any case; those not used are named in a note.
      split_seed: of the automatic split, where the list has no column `split`.

    Raises:
      UserError: where the file or an image is missing, a column is missing, a line has more or fewer cells than
        the first, or is not filled in, or two lines are of one image.
    """
    columns, rows = _rows(file, images)
    labels = sorted({row["label"] for _, row in rows})
    if len(labels) < 2:
        raise UserError(f"{file}: one class only, {labels[0]!r}; at least two are needed")
    names = distinct_names(labels, file)
    seen: dict[str, int] = {}
    for line, row in rows:
        first = seen.setdefault(os.path.normpath(row["path"]), line)
        if first != line:
            raise UserError(f"{file}, line {line}: {row['path']} stands in line {first} already; drop one")
        if not os.path.isfile(images / row["path"]):
            raise UserError(
                f"{file}, line {line}: {images / row['path']} does not exist; check the path or data.images"
            )
    items = [Labelled(ImageFile(images / row["path"]), labels.index(row["label"])) for _, row in rows]
    once(items, file)
    whole = _split(file, items, [row.get("split", "") for _, row in rows], names, split_seed)
    return dataclasses.replace(whole, notes=(*whole.notes, *_unused(file, columns)))


def _split(
    file: Path, items: Sequence[Labelled], named: Sequence[str], names: tuple[str, ...], split_seed: int
) -> FewShotSet:
    if not any(named):
        return automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, shown(file.name)))
    train, val, test = (
        tuple(item for item, part in zip(items, named, strict=True) if part == wanted) for wanted in PARTS
    )
    if not train or not test:
        raise UserError(f"{file}: the column split must name train and test, each at least once")
    return FewShotSet(names, train, val, test, split=f"splits of {shown(file.name)}")


def _unused(file: Path, columns: Sequence[str]) -> tuple[str, ...]:
    unused = [column or "one without a name" for column in columns if column not in _COLUMNS]
    return (f"columns of {shown(file.name)} that are not used: {', '.join(unused)}",) if unused else ()


def _rows(file: Path, images: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns; line numbers and their cells, stripped."""
    text = text_file.read(file, missing="no such list; check data.root and data.split")
    delimiter = _delimiter(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = _columns(file, next((row for row in lines if _says_something(row)), []))
        place = columns.index("path")

        def is_row(line: str) -> bool:
            cells = [*line.split(delimiter), *[""] * place]
            return bool(cells[place].strip()) and os.path.isfile(images / cells[place].strip())

        rows = list(_filled(file, columns, lines, is_row))
    except csv.Error as error:
        raise UserError(
            f"{file}, line {lines.line_num}: not a readable CSV file ({error}); look for a quote that is not closed"
        ) from error
    if not rows:
        raise UserError(f"{file}: the list has no image; write path,label a line")
    return columns, rows


def _delimiter(text: str) -> str:
    """The comma, unless the first line has none but the semicolons or tabs that spreadsheets write."""
    first = text.lstrip("\r\n").partition("\n")[0]
    return next((mark for mark in (",", ";", "\t") if mark in first), ",")


def _says_something(cells: list[str]) -> bool:
    """Whether a row is more than blanks, and not the one by which a spreadsheet names the separator, sep=;"""
    return any(cell.strip() for cell in cells) and cells[0].strip().casefold() != "sep="


def _columns(file: Path, cells: Sequence[str]) -> list[str]:
    columns = [cell.strip().casefold() for cell in cells]
    for column in ("path", "label"):
        if column not in columns:
            found = ",".join(columns) or "nothing"
            raise UserError(f"{file}: no column {column!r}; its first line must name path,label and names {found}")
    for column in _COLUMNS:
        if columns.count(column) > 1:
            raise UserError(f"{file}: {columns.count(column)} columns are called {column!r}; keep one of them")
    return columns


def _filled(
    file: Path, columns: list[str], lines: Iterator[list[str]], is_row: Callable[[str], bool]
) -> Iterator[tuple[int, dict[str, str]]]:
    used = {column: columns.index(column) for column in _COLUMNS if column in columns}
    for line, row in _numbered(lines):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        over_lines = [cell for place, cell in enumerate(row) if place in used.values() and len(cell.splitlines()) > 1]
        if over_lines or any(is_row(below) for cell in row for below in cell.splitlines()[1:]):
            raise UserError(f"{file}, line {line}: a cell goes over several lines; close its quote")
        if any(cells[len(columns) :]) or len(cells) <= max(used.values()):
            raise UserError(
                f"{file}, line {line}: {len(cells)} cell{'s' * (len(cells) > 1)}, and the first line has "
                f"{len(columns)}; quote a cell that holds the separator, or fill in what is missing"
            )
        yield line, _checked(file, line, {column: cells[place] for column, place in used.items()})


def _numbered(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows and the lines that they begin in."""
    start = lines.line_num + 1  # type: ignore[attr-defined]
    for row in lines:
        yield start, row
        start = lines.line_num + 1  # type: ignore[attr-defined]


def _checked(file: Path, line: int, cells: dict[str, str]) -> dict[str, str]:
    for column, cell in cells.items():
        if not cell:
            raise UserError(f"{file}, line {line}: {column} is empty; fill it in")
    if "split" not in cells:
        return cells
    part = part_of(cells["split"])
    if part is None:
        raise UserError(f"{file}, line {line}: split is {cells['split']!r}; it must be train, val or test")
    return {**cells, "split": part}
