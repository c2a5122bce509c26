"""predictions.csv: what the deployed model says of every test photograph, and how it is read again."""

import csv
from collections.abc import Sequence
from pathlib import Path

from craft_jax.data import Labelled
from craft_jax.files import replacing
from craft_jax.reporting.answers import Answers
from craft_jax.reporting.text import cell, path_cell

PREDICTIONS = "predictions.csv"
_HEAD = ("path", "truth", "prediction", "probability", "calibrated_probability", "probability_of_truth")


def write_predictions(path: Path, items: Sequence[Labelled], class_names: Sequence[str], answers: Answers) -> None:
    """Writes a line a test photograph, in the set's order; probabilities from 0 to 1."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_HEAD)
        for i, item in enumerate(items):
            numbers = answers.probability[i, 0], answers.tempered[i], answers.of_truth[i]
            lines.writerow(
                (
                    path_cell(item.image.name),
                    cell(class_names[item.label]),
                    cell(class_names[answers.best[i, 0]]),
                    *(f"{number:.6f}" for number in numbers),
                )
            )
