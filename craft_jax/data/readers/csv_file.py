"""A CSV file of path,label: one image a line, labels as the class names should be read.

A third column, `split`, may say train, val or test; without it the split is automatic, by a seed.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from craft_jax.data.automatic import AUTOMATIC, automatic_split
from craft_jax.data.fewshot import FewShotSet, Labelled, distinct_names
from craft_jax.data.images import PhotographFile
from craft_jax.data.readers import text_file
from craft_jax.errors import UserError

_PARTS = ("train", "val", "test")


def load(images: Path, file: Path, split_seed: int) -> FewShotSet:
    """Reads the list and checks it, without opening any image.

    Args:
      images: folder that its paths are relative to.
      file: the CSV file, comma-separated, its first line naming the columns.
      split_seed: of the automatic split, where the list has no column `split`.

    Raises:
      UserError: where the file or an image is missing, a column is missing, or a line is not filled in.
    """
    rows = _rows(file)
    labels = sorted({row["label"] for _, row in rows})
    if len(labels) < 2:
        raise UserError(f"{file}: one class only, {labels[0]!r}; at least two are needed")
    names = distinct_names(labels, file)
    seen: dict[str, int] = {}
    for line, row in rows:
        if seen.setdefault(row["path"], line) != line:
            raise UserError(f"{file}, line {line}: {row['path']} stands in line {seen[row['path']]} already; drop one")
        if not (images / row["path"]).is_file():
            raise UserError(
                f"{file}, line {line}: {images / row['path']} does not exist; check the path or data.images"
            )
    items = [Labelled(PhotographFile(images / row["path"]), labels.index(row["label"])) for _, row in rows]
    if "split" not in rows[0][1]:
        return automatic_split(items, names, split_seed, split=AUTOMATIC.format(split_seed, file.name))
    train, val, test = (
        tuple(item for item, (_, row) in zip(items, rows, strict=True) if row["split"] == part) for part in _PARTS
    )
    if not train or not test:
        raise UserError(f"{file}: the column split must name train and test, each at least once")
    return FewShotSet(names, train, val, test, split=f"splits of {file.name}")


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and their cells, stripped."""
    text = text_file.read(file, missing="no such list; check data.root and data.split")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        _check_columns(file, reader.fieldnames or ())
        rows = [(reader.line_num, _cells(file, reader.line_num, row)) for row in reader]
    except csv.Error as error:
        raise UserError(f"{file}: not a readable CSV file ({error})") from error
    if not rows:
        raise UserError(f"{file}: the list has no image; write path,label a line")
    return rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    for column in ("path", "label"):
        if column not in columns:
            found = ",".join(columns) or "nothing"
            raise UserError(f"{file}: no column {column!r}; its first line must name path,label and names {found}")


def _cells(file: Path, line: int, row: dict[str, str | None]) -> dict[str, str]:
    wanted: list[str] = [column for column in ("path", "label", "split") if column in row]
    cells: dict[str, str] = {column: (row[column] or "").strip() for column in wanted}
    for column, cell in cells.items():
        if not cell:
            raise UserError(f"{file}, line {line}: {column} is empty; fill it in")
    if cells.get("split", "train") not in _PARTS:
        raise UserError(f"{file}, line {line}: split is {cells['split']!r}; it must be train, val or test")
    return cells
