"""metrics.jsonl: one line of JSON a step, which a resumed run continues where its checkpoint stands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft_jax.files import json_text, naming_full_disk, write_atomically

Row = dict[str, Any]


class MetricsLog:
    """The logged steps of a run, on disk and in memory.

    Args:
      path: the file.
      resume_step: rows after this step are dropped; their steps will be made again.
      kept: the rows until then, as the checkpoint has them; None where it is of a version that kept none.
      say: is told of rows that the file lacks.
    """

    def __init__(
        self, path: Path, resume_step: int, kept: list[Row] | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.path = path
        found = [row for row in read_log(path) if row["step"] <= resume_step]
        self.rows = found if kept is None else kept
        made = {row["step"] for row in self.rows} | set(range(1, resume_step + 1))
        lacking = sorted(made - _steps_alike(found, self.rows))
        if lacking:
            remedy = (
                "; they are lost to its history and curve" if kept is None else "; written anew from the checkpoint"
            )
            say(f"{path}: of {resume_step} steps {len(lacking)} are missing or damaged, the first {lacking[0]}{remedy}")
        write_atomically(path, "".join(_line(row) for row in self.rows))

    def append(self, rows: list[Row]) -> None:
        """Adds rows to the file."""
        self.rows += rows
        with naming_full_disk(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(_line(row) for row in rows))


def _line(row: Row) -> str:
    # In one order, whether a row was made here, came from another host or from a checkpoint.
    return json_text({"step": row["step"], **dict(sorted(row.items()))}) + "\n"


def _steps_alike(found: list[Row], rows: list[Row]) -> set[int]:
    lines = {_line(row) for row in found}
    return {row["step"] for row in rows if _line(row) in lines}


def read_log(path: Path) -> list[Row]:
    """The lines that are rows; a kill cuts one short, and a disk or a copy spoils others."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
