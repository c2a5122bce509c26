"""What the deployed model says of labelled photographs, kept beside the checkpoints, so that nothing is asked twice."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from craft_jax.files import naming_full_disk, replacing
from craft_jax.reporting import measures

FILE = "answers.npz"
_BEST = 5


class Answers(NamedTuple):
    """Of N photographs.

    Attributes:
      labels: their classes.
      best: the K likeliest classes, at most five, the likeliest first.
      probability: of these.
      of_truth: probability of the label.
      tempered: probability of the likeliest class at the temperature.
    """

    labels: Int[np.ndarray, " N"]
    best: Int[np.ndarray, "N K"]
    probability: Float[np.ndarray, "N K"]
    of_truth: Float[np.ndarray, " N"]
    tempered: Float[np.ndarray, " N"]

    @property
    def right(self) -> np.ndarray:
        """Which of them are classified rightly, bool [N]."""
        return self.best[:, 0] == self.labels


class Judged(NamedTuple):
    """Answers about the test's photographs and the held-out ones.

    Attributes:
      model: name of the deployed one.
      temperature: fitted on the held-out photographs; 1 where there are none.
      test: whose order is that of the set.
      held_out: the same.
    """

    model: str
    temperature: float
    test: Answers
    held_out: Answers

    def save(self, folder: Path) -> None:
        """Writes them to a file in a run's folder."""
        parts = {f"{part}_{name}": array for part in _PARTS for name, array in getattr(self, part)._asdict().items()}
        with naming_full_disk(folder), replacing(folder / FILE) as partial:
            np.savez(partial, model=np.asarray(self.model), temperature=np.asarray(self.temperature), **parts)


_PARTS = ("test", "held_out")


def judge(
    model: str,
    test: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    held_out: Float[np.ndarray, "H C"],
    held_out_labels: Int[np.ndarray, " H"],
) -> Judged:
    """Answers from logits, with the temperature fitted on the held-out photographs' alone."""
    held_out = held_out.reshape(len(held_out_labels), test.shape[1])
    at = measures.temperature(held_out, held_out_labels) if len(held_out_labels) else 1.0
    return Judged(model, at, _answers(test, labels, at), _answers(held_out, held_out_labels, at))


def read(folder: Path, model: str, tested: int, held_out: int) -> Judged | None:
    """What a run's folder holds of a model's answers; None where there is nothing whole, or of other photographs."""
    try:
        with (folder / FILE).open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            parts = [Answers(*(file[f"{part}_{name}"] for name in Answers._fields)) for part in _PARTS]
            found = Judged(str(file["model"]), float(file["temperature"]), *parts)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    same = (found.model, len(found.test.labels), len(found.held_out.labels)) == (model, tested, held_out)
    return found if same else None


def _answers(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], temperature: float) -> Answers:
    probability = special.softmax(logits, axis=1)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :_BEST]
    return Answers(
        labels=np.asarray(labels, np.int32),
        best=best.astype(np.int32),
        probability=np.take_along_axis(probability, best, axis=1).astype(np.float32),
        of_truth=np.take_along_axis(probability, labels[:, None], axis=1)[:, 0].astype(np.float32),
        tempered=special.softmax(logits / temperature, axis=1).max(axis=1, initial=0).astype(np.float32),
    )
