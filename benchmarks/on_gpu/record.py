"""What the sections find: a line on the screen and in a file as soon as it is there, and a page of all of it."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Skip(Exception):
    """A section, or a part of one, that cannot run here; its text says why."""


class Record:
    """Collects results under headings, until a deadline.

    Args:
      folder: where gpu.jsonl and gpu.md go.
      seconds: that all sections may take together.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._page = folder / "gpu.jsonl", folder / "gpu.md"
        self._lines.write_text("", encoding="utf-8")
        self._began, self._seconds = time.monotonic(), seconds
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._section = ""

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._seconds - (time.monotonic() - self._began)

    def need(self, seconds: float, what: str) -> None:
        """Raises Skip where less time is left."""
        if self.left < seconds:
            raise Skip(f"{what}: {self.left:.0f} s left, {seconds:.0f} needed")

    def add(self, **values: Any) -> None:
        """A row of the present section."""
        row = {name: _short(value) for name, value in values.items()}
        self._rows.setdefault(self._section, []).append(row)
        line = {"at": round(self._seconds - self.left, 1), "section": self._section, **row}
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"[{line['at']:6.1f}] {self._section}: " + ", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        self._page.write_text(self.page(), encoding="utf-8")

    def run(self, name: str, section: Callable[["Record"], None]) -> None:
        """Runs a section; what it raises is shown, and the next one goes on."""
        self._section = name
        print(f"--- {name} ({self.left:.0f} s left)", flush=True)
        try:
            section(self)
        except Skip as skip:
            self.add(skipped=str(skip))
        except Exception as error:  # whatever it is, the other sections are wanted
            traceback.print_exc(file=sys.stdout)
            self.add(failed=f"{type(error).__name__}: {str(error).strip()[:300]}")

    def each(self, what: str, seconds: float, part: Callable[[], None]) -> None:
        """Runs a part of a section likewise, if there is time for it."""
        try:
            self.need(seconds, what)
            part()
        except Skip as skip:
            self.add(skipped=str(skip))
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            self.add(failed=f"{what}: {type(error).__name__}: {str(error).strip()[:300]}")

    def page(self) -> str:
        """All rows as Markdown tables, one for each run of rows with the same columns."""
        parts = ["# On a GPU: `make bench-gpu`\n"]
        for section, rows in self._rows.items():
            parts.append(f"## {section}\n")
            columns: list[str] = []
            for row in rows:
                if list(row) != columns:
                    columns = list(row)
                    parts.append(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
                parts.append(f"| {' | '.join(str(value) for value in row.values())} |")
            parts.append("")
        return "\n".join(parts).replace("\n\n\n", "\n\n")


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
