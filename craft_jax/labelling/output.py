"""The output: a folder of Parquet files, one of each unit, with the plan and what the labels were made with.

    OUTPUT/labelling.json   what made the labels; another model or threshold is refused
    OUTPUT/plan/            which image files make which unit
    OUTPUT/labels/          the labels, to be read as one table
    OUTPUT/tries/           while it goes: how often each unit was begun

A part is there whole or not at all.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import compute, dataset, parquet

from craft_jax.errors import UserError, first_line
from craft_jax.files import json_text, replacing, write_atomically
from craft_jax.labelling.answers import UNSURE, Answer
from craft_jax.labelling.reading import Item

ABOUT, PLAN, LABELS, _TRIES = "labelling.json", "plan", "labels", "tries"
FORMAT = 1
_BEST = pa.struct([("label", pa.string()), ("probability", pa.float32())])
_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("top", pa.list_(_BEST)),
        ("error", pa.string()),
    ]
)


class Counts(NamedTuple):
    """Rows of an output: all, those of images that could not be read, those that are unsure."""

    images: int
    unread: int
    unsure: int


def begin(folder: Path, about: dict[str, Any]) -> None:
    """Makes an output, or finds one that was made alike.

    Args:
      folder: the output.
      about: what its labels are made with, as JSON values, by the flags' names.

    Raises:
      UserError: where the folder holds something else, or labels that were made otherwise.
    """
    file = folder / ABOUT
    if not file.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"--output={folder}: holds other files, and no {ABOUT}; name a new folder")
    if file.exists() and parts(folder):
        _check_alike(file, about)
        return
    write_atomically(file, json_text({"format": FORMAT, **about}, indent=2) + "\n")
    (folder / PLAN).mkdir(exist_ok=True)
    (folder / LABELS).mkdir(exist_ok=True)


def _check_alike(file: Path, about: dict[str, Any]) -> None:
    """Raises UserError where labels were made otherwise."""
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
        if made.pop("format") != FORMAT:
            raise UserError(f"{file}: made by another version of craft_jax; name a new --output")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: damaged; name a new --output") from error
    for name, value in about.items():
        if made.get(name) != value:
            raise UserError(
                f"--output={file.parent}: its labels were made with {name}={made.get(name)}, and now it is {value}; "
                "give the same, or name a new folder"
            )


def parts(folder: Path) -> list[str]:
    """The names of the parts that are there."""
    return [path.name for path in (folder / LABELS).glob("*.parquet")]


def is_there(folder: Path, part: str) -> bool:
    """Whether a unit is done."""
    return (folder / LABELS / part).exists()


def tries(folder: Path, part: str) -> int:
    """How often a unit was begun since `forget_tries`, this time included."""
    (folder / _TRIES).mkdir(exist_ok=True)
    with (folder / _TRIES / part).open("ab") as file:
        file.write(b".")
        return file.tell()


def forget_tries(folder: Path) -> None:
    """Lets every unit be begun anew, and takes what killed writers have left."""
    shutil.rmtree(folder / _TRIES, ignore_errors=True)
    for left in (folder / LABELS).glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def write(folder: Path, part: str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the part of a unit: a row an image, in the unit's order."""
    with replacing(folder / LABELS / part) as partial:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=_SCHEMA), partial)


def row(item: Item, answer: Answer) -> dict[str, Any]:
    """An image and what is said of it."""
    about: dict[str, Any] = {"source": item.source, "key": item.key}
    if answer.error:
        return about | {"error": answer.error}
    best = [{"label": label, "probability": probability} for label, probability in answer.best]
    return about | best[0] | {"top": best if len(best) > 1 else None}


def count(folder: Path) -> Counts:
    """The rows of all parts; raises UserError naming one that is damaged."""
    rows = dataset.dataset(folder / LABELS, format="parquet", schema=_SCHEMA)
    unread, unsure = compute.field("error").is_valid(), compute.field("label") == UNSURE
    try:
        return Counts(rows.count_rows(), rows.count_rows(filter=unread), rows.count_rows(filter=unsure))
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{folder / LABELS}: a part is damaged ({first_line(error)}); delete it, and give the same command again"
        ) from error
