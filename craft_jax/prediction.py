"""Labels images with a tuned model, from Python or as `python -m craft_jax.predict --checkpoint=runs/demo photo.jpg`.

Needs nothing but the checkpoint and the black box that it names.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from absl import flags
from jaxtyping import Float

from craft_jax.data.photographs import IMAGE_SUFFIXES
from craft_jax.entry import parse
from craft_jax.errors import UserError

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.checkpoints import TunedModel

_USAGE = "usage: python -m craft_jax.predict --checkpoint=WORKDIR IMAGE|FOLDER|- ..."


def predict(tuned: "TunedModel", black_box: "BlackBox", images: Sequence[str | Path]) -> Float[np.ndarray, "N C"]:
    """Class probabilities of image files, by the tuned prompt and the refinement head.

    Raises:
      UserError: naming an image that cannot be read, or where the model was tuned for another black box.
    """
    # Imported here, so that --help and a wrong command line answer at once.
    import jax

    from craft_jax import encoding, evaluation
    from craft_jax.blackbox import Meter
    from craft_jax.data import PhotographFile

    evaluation.check_fit(tuned, black_box)
    meter = Meter(budget=None)
    handle = encoding.centre_crops(black_box, [PhotographFile(Path(image)) for image in images], meter)
    _, refined = evaluation.logits(black_box, tuned, handle, len(images), meter)
    return np.asarray(jax.nn.softmax(refined))


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("checkpoint", None, "Workdir of a run, such as runs/demo.", flag_values=values)
    flags.DEFINE_string(
        "model", None, "Where the black box is now, if not where the checkpoint says.", flag_values=values
    )
    flags.DEFINE_integer("top", 1, "How many classes to print for each image.", flag_values=values)
    flags.DEFINE_bool("json", False, "Prints JSON lines instead of a table.", flag_values=values)
    return values


def main(argv: list[str], stdin: TextIO = sys.stdin) -> None:
    """Runs the prediction that the command line describes."""
    given, images = parse(_flags(), argv, usage=_USAGE)
    if not given.checkpoint or not images:
        raise UserError(f"a checkpoint and at least one image are needed; {_USAGE}")
    if given.top < 1:
        raise UserError(f"--top={given.top} must be at least 1")
    paths = list(_expand(images, stdin))
    if not paths:
        raise UserError("the list on standard input is empty; give one image a line")

    from craft_jax import blackbox, checkpoints

    tuned = checkpoints.open_for_prediction(Path(given.checkpoint)).tuned
    owner = tuned.black_box
    black_box = blackbox.load(given.model or owner["model"], tuned.class_names, owner["template"], owner["dtype"])
    probabilities = predict(tuned, black_box, paths)
    show = _json_lines if given.json else _table
    print("\n".join(show(paths, probabilities, tuned.class_names, min(given.top, len(tuned.class_names)))))


def _expand(images: list[str], stdin: TextIO) -> Iterator[Path]:
    """Files as they are, the images of a folder in order of name, and for `-` the list on standard input."""
    for name in images:
        path = Path(name)
        if name == "-":
            yield from (Path(line.strip()) for line in stdin if line.strip())
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UserError(f"{path}: no image in this folder; it should hold {', '.join(sorted(IMAGE_SUFFIXES))}")
            yield from found
        else:
            yield path


def _best(row: np.ndarray, class_names: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    return [(class_names[label], float(row[label])) for label in np.argsort(-row, kind="stable")[:top]]


def _json_lines(paths: list[Path], probabilities: np.ndarray, class_names: tuple[str, ...], top: int) -> Iterator[str]:
    for path, row in zip(paths, probabilities, strict=True):
        best = [{"label": label, "probability": p} for label, p in _best(row, class_names, top)]
        yield json.dumps({"image": str(path), **best[0], **({"top": best} if top > 1 else {})})


def _table(paths: list[Path], probabilities: np.ndarray, class_names: tuple[str, ...], top: int) -> Iterator[str]:
    width = max(len(str(path)) for path in paths)
    label_width = max(len(name) for name in class_names)
    for path, row in zip(paths, probabilities, strict=True):
        cells = (f"{label:{label_width}} {100 * p:5.1f} %" for label, p in _best(row, class_names, top))
        yield f"{str(path):{width}}  " + "   ".join(cells)
