"""metrics.jsonl: one line of JSON a step, which a resumed run continues where its checkpoint stands."""

import json
from pathlib import Path
from typing import Any

from craft_jax.atomic import write_atomically

Row = dict[str, Any]


class MetricsLog:
    """The logged steps of a run, on disk and in memory.

    Args:
      path: the file.
      resume_step: rows after this step are dropped; their steps will be made again.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        self.rows = [row for row in _read(path) if row["step"] <= resume_step]
        write_atomically(path, "".join(_line(row) for row in self.rows))

    def append(self, rows: list[Row]) -> None:
        """Adds rows to the file."""
        self.rows += rows
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(_line(row) for row in rows))


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _read(path: Path) -> list[Row]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that a kill cut short
            break
    return rows
