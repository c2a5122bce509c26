"""What a search keeps in its run's folder: each round while it goes, and the result when it is over, each file whole.

NumPy's archives without pickles, under a key of everything that answers depend on; one that is damaged is asked again.
"""

import dataclasses
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import Ledger
from craft_jax.files import naming_full_disk, replacing
from craft_jax.language.ask_tell import Proposal
from craft_jax.language.wordings import Wording

RESULT, ROUNDS = "language.npz", "language"
_DAMAGED = (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error)


class Round(NamedTuple):
    """A proposal, what it took, and the answers about M rows to the texts that had not been asked before."""

    proposal: Proposal
    cost: Ledger
    texts: tuple[str, ...]
    answers: Float[np.ndarray, "M T"]


class Kept:
    """The files of one search.

    Args:
      folder: of the run; None keeps nothing.
      key: of everything that answers depend on; what has another is passed over.
      say: is told of a file that is damaged.
    """

    def __init__(self, folder: Path | None, key: str, say: Callable[[str], None]) -> None:
        self._folder, self._key, self._say = folder, key, say

    def rounds(self) -> list[Round]:
        """Those from the first on, as far as they are whole."""
        found: list[Round] = []
        while self._folder:
            held = self._read(self._round(len(found)))
            if held is None:
                break
            told = json.loads(str(held["told"]))
            wordings = tuple(Wording(template, tuple(details)) for template, details in told["wordings"])
            proposal = Proposal(wordings, told["calls"], tuple(told["notes"]))
            found.append(Round(proposal, Ledger(**told["cost"]), tuple(told["texts"]), held["answers"]))
        return found

    def add(self, number: int, one: Round) -> None:
        """Keeps a round."""
        if not self._folder:
            return
        told = {**one.proposal._asdict(), "cost": dataclasses.asdict(one.cost), "texts": one.texts}
        self._round(number).parent.mkdir(parents=True, exist_ok=True)
        self._write(self._round(number), {"told": json.dumps(told), "answers": one.answers})

    def result(self) -> dict[str, Any] | None:
        """What a search that is over has found; None where there is none."""
        return self._read(self._folder / RESULT) if self._folder else None

    def end(self, result: dict[str, Any]) -> None:
        """Keeps the result, in the place of the rounds."""
        if self._folder:
            self._write(self._folder / RESULT, result)
            shutil.rmtree(self._folder / ROUNDS, ignore_errors=True)

    def _round(self, number: int) -> Path:
        assert self._folder
        return self._folder / ROUNDS / f"round-{number:03}.npz"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
                if str(file["key"]) != self._key:
                    return None
                held = {name: file[name] for name in file.files}
                json.loads(str(held["told"]))
                return held
        except FileNotFoundError:
            return None
        except _DAMAGED:
            self._say(f"{path} is damaged; asking its texts again")
            return None

    def _write(self, path: Path, held: dict[str, Any]) -> None:
        with naming_full_disk(path.parent), replacing(path) as partial:
            np.savez(partial, key=np.asarray(self._key), **held)
