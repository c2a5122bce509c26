"""Labels images with a tuned model, from Python or as `python -m craft_jax.predict --checkpoint=runs/demo photo.jpg`.

Needs nothing but the checkpoint and the black box that it names. The command prints a chunk of images as soon as it is
labelled, and passes over those that cannot be read.
"""

import contextlib
import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from absl import flags
from jaxtyping import Float
from PIL import Image

from craft_jax import folders
from craft_jax.cli import called, elsewhere, parse
from craft_jax.config import ApiConfig
from craft_jax.data import ImageFile, LazyImage, as_images, folder
from craft_jax.errors import UserError, on_command_line
from craft_jax.files import json_text, one_line, shown
from craft_jax.precision import in_32_bits

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.tuned_model import TunedModel

_USAGE = "usage: {} --checkpoint=WORKDIR IMAGE|FOLDER|- ..."
_UNSURE = "unsure"
_WIDEST = 50, 30  # columns of the table that are kept in line: image and label
_CHUNK = 256  # images labelled between two prints; each chunk asks for every class's text once


def predict(tuned: "TunedModel", black_box: "BlackBox", images: Any) -> Float[np.ndarray, "N C"]:
    """Class probabilities of images, by the tuned prompt and the refinement head.

    Args:
      tuned: what `train` or `load_run` returned.
      black_box: the one that it was tuned for.
      images: one image or N of them: paths, images of Pillow's, arrays uint8 [height, width, 3] or [height, width] (or
        [N, height, width, 3] in all), or photographs of a set, with or without their labels.

    Raises:
      UserError: naming an image that cannot be read, or where the model was tuned for another black box.
    """
    return _probabilities(tuned, black_box, as_images(images))


@in_32_bits
def _probabilities(tuned: "TunedModel", black_box: "BlackBox", images: Sequence[LazyImage]) -> Float[np.ndarray, "N C"]:
    # Imported here, so that --help and a wrong command line answer at once.
    import jax

    from craft_jax import encoding, evaluation, tuned_model
    from craft_jax.blackbox import Metered

    tuned_model.check_fit(tuned, black_box)
    metered = Metered(black_box, budget=None)
    handle = encoding.Encoder(metered).centre_crops(images)
    _, refined = evaluation.logits(metered, tuned, handle, len(images))
    return np.asarray(jax.nn.softmax(refined))


class _Answer(NamedTuple):
    """What is said of an image: its best classes with their probabilities, or why it could not be read."""

    path: Path
    best: list[tuple[str, float]]
    error: str


class _Attempt:
    """An image file that opens as a blank where it cannot be read, so that the rest of its chunk goes on."""

    def __init__(self, path: Path) -> None:
        self._file = ImageFile(path)
        self.name = self._file.name
        self.error = ""

    def open(self) -> Image.Image:
        """The image in RGB, or a blank."""
        try:
            return self._file.open()
        except UserError as error:
            self.error = str(error)
            return Image.new("RGB", (1, 1))

    def fingerprint(self) -> str:
        """Of the file."""
        return self._file.fingerprint()


def _answers(tuned: "TunedModel", black_box: "BlackBox", paths: Sequence[Path], top: int) -> Iterator[_Answer]:
    """The answer to each image, a chunk at a time."""
    for first in range(0, len(paths), _CHUNK):
        chunk = paths[first : first + _CHUNK]
        attempts = [_Attempt(path) for path in chunk]
        probabilities = _probabilities(tuned, black_box, attempts)
        for path, attempt, row in zip(chunk, attempts, probabilities, strict=True):
            yield _Answer(path, [] if attempt.error else _best(row, tuned.class_names, top), attempt.error)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "checkpoint", None, "Workdir of a run, such as runs/demo, or its folder checkpoints.", flag_values=values
    )
    flags.DEFINE_string(
        "model", None, "Where the black box is now, if not where the checkpoint says.", flag_values=values
    )
    flags.DEFINE_integer("top", 1, "How many classes to print for each image.", flag_values=values)
    flags.DEFINE_string("csv", None, "Writes this file instead of printing a table.", flag_values=values)
    flags.DEFINE_string("sort", None, "Copies the images into sub-folders of this one by label.", flag_values=values)
    flags.DEFINE_bool("link", False, "With --sort, links to the images instead of copying.", flag_values=values)
    flags.DEFINE_float(
        "threshold", 0.0, "Probability, 0 to 1, below which an image is called unsure.", flag_values=values
    )
    flags.DEFINE_bool("json", False, "Prints JSON lines instead of a table.", flag_values=values)
    return values


@on_command_line()
def main(argv: list[str], stdin: TextIO = sys.stdin) -> None:
    """Runs the prediction that the command line describes.

    Raises:
      UserError: for a mistake on the command line, or at the end, where images could not be read.
    """
    usage = _USAGE.format(called(argv, "craft_jax.predict"))
    given, images = parse(_flags(), argv, usage=usage)
    if not given.checkpoint or not images:
        raise UserError(f"a checkpoint and at least one image are needed; {usage}")
    checkpoint = folders.named(given.checkpoint, "--checkpoint")
    if given.top < 1:
        raise UserError(f"--top={given.top} must be at least 1")
    if not 0 <= given.threshold <= 1:
        raise UserError(f"--threshold={given.threshold} must be a probability from 0 to 1")
    if given.link and not given.sort:
        raise UserError("--link says how --sort puts images into folders; give --sort=FOLDER with it")
    if given.csv and (given.json or given.top > 1):
        other = "--json" if given.json else f"--top={given.top}"
        raise UserError(f"--csv has each image's best class in a file, {other} prints; give one of them")
    paths = list(_expand(images, stdin))
    if not paths:
        raise UserError("the list on standard input is empty; give one image a line")
    if given.sort:
        _check_apart(given.sort, [name for name in images if name != "-"], paths)

    from craft_jax import blackbox
    from craft_jax.distributed import devices
    from craft_jax.reporting import csv_of_labels
    from craft_jax.training import checkpoints

    devices.check_found()
    restored = checkpoints.open_for_prediction(checkpoint)
    tuned, asking = restored.tuned, ApiConfig(**restored.about.get("settings", {}).get("api", {}))
    with elsewhere(given.model):
        black_box = blackbox.from_identity(tuned.black_box, tuned.class_names, given.model or "", asking)
    with contextlib.ExitStack() as files:
        show: Callable[[_Answer], None]
        show = _show_json if given.json else functools.partial(_show_row, *_widths(paths, tuned.class_names))
        if given.csv:
            show = _to_csv(files.enter_context(csv_of_labels(folders.expanded(given.csv, "--csv"))), len(paths), files)
        answers = _answers(tuned, black_box, paths, given.top)
        if given.threshold:
            answers = (_or_unsure(answer, given.threshold) for answer in answers)
        if given.sort:
            answers = _sorted(answers, folders.expanded(given.sort, "--sort"), given.link)
        unread, unsure, total = _show_all(answers, show, given.threshold)
    if given.csv:
        told = f", {unsure:,} of them {_UNSURE}" if given.threshold else ""
        print(f"{total - unread:,} images labelled{told}: {one_line(given.csv)}", flush=True)
    if unread:
        raise UserError(f"{unread} of {total} images could not be read")


def _or_unsure(answer: _Answer, threshold: float) -> _Answer:
    """The answer with `unsure` in the place of a label whose probability is below the threshold."""
    if answer.error or answer.best[0][1] >= threshold:
        return answer
    return answer._replace(best=[(_UNSURE, answer.best[0][1]), *answer.best[1:]])


def _sorted(answers: Iterator[_Answer], folder: Path, link: bool) -> Iterator[_Answer]:
    """The answers, each after its image was put into the folder of its label."""
    from craft_jax.reporting import sort_into

    for answer in answers:
        if not answer.error:
            sort_into(folder, answer.path, answer.best[0][0], link=link)
        yield answer


def _to_csv(
    write: Callable[[Path, str, float, str], None], images: int, files: contextlib.ExitStack
) -> Callable[[_Answer], None]:
    """What writes an answer as a line, and shows on standard error how many there are."""
    from craft_jax.progress import EncodingProgress

    progress = files.enter_context(EncodingProgress(images, sys.stderr, verb="labell"))
    done = itertools.count(1)

    def show(answer: _Answer) -> None:
        if answer.error:
            progress.say(one_line(answer.error))
        label, probability = ("", 0.0) if answer.error else answer.best[0]
        write(answer.path, label, probability, answer.error)
        count = next(done)
        if count % _CHUNK == 0 or count == images:  # a chunk is labelled at once
            progress.show(count)

    return show


def _show_all(answers: Iterator[_Answer], show: Callable[[_Answer], None], threshold: float) -> tuple[int, int, int]:
    """Returns how many images could not be read, how many are unsure, and how many there are."""
    unread = unsure = total = 0
    for answer in answers:
        show(answer)
        unread, total = unread + bool(answer.error), total + 1
        unsure += not answer.error and answer.best[0][1] < threshold
    return unread, unsure, total


def _check_apart(sort: str, named: Sequence[str], paths: Sequence[Path]) -> None:
    """Raises UserError where sorted copies would lie among the images to be labelled, or these among the copies."""
    target = Path(os.path.realpath(folders.expanded(sort, "--sort")))
    for name in named:
        if target.is_relative_to(os.path.realpath(_path(name))):
            raise UserError(f"--sort={sort} lies in {shown(name)}, whose images are labelled; choose a folder outside")
    for place in {path.parent for path in paths}:
        if Path(os.path.realpath(place)).is_relative_to(target):
            raise UserError(f"--sort={sort} holds {shown(place)}, whose images are labelled; choose a folder outside")


def _expand(images: list[str], stdin: TextIO) -> Iterator[Path]:
    """Files as they are, the images of a folder in order of name, and for `-` the list on standard input."""
    for name in images:
        path = _path(name)
        if name == "-":
            yield from (_path(line) for line in _listed(stdin))
        elif path.is_dir():
            yield from (image.path for image in folder.images_below(path, unread=True))
        else:
            yield path


def _path(name: str) -> Path:
    return Path(name).expanduser() if name.startswith("~/") else Path(name)


def _listed(stdin: TextIO) -> Iterator[str]:
    """The lines that say something, without a byte-order mark; a name need not be UTF-8."""
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="surrogateescape")
    lines = (line.removeprefix("\ufeff").strip() for line in stdin)
    return (line for line in lines if line)


def _best(row: np.ndarray, class_names: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    return [(class_names[label], float(row[label])) for label in np.argsort(-row, kind="stable")[:top]]


def _show_json(answer: _Answer) -> None:
    best = [{"label": label, "probability": p} for label, p in answer.best]
    about = {"error": answer.error} if answer.error else {**best[0], **({"top": best} if len(best) > 1 else {})}
    print(json_text({"image": shown(answer.path), **about}), flush=True)


def _widths(paths: Sequence[Path], class_names: Sequence[str]) -> tuple[int, int]:
    """Of the table's columns: image and label; what is wider stands out, and does not move the others."""
    names, labels = max(len(shown(path)) for path in paths), max(len(name) for name in class_names)
    return min(names, _WIDEST[0]), min(labels, _WIDEST[1])


def _show_row(width: int, label_width: int, answer: _Answer) -> None:
    if answer.error:
        print(one_line(answer.error), file=sys.stderr, flush=True)
        return
    cells = (f"{one_line(label):{label_width}} {100 * p:5.1f} %" for label, p in answer.best)
    print(f"{one_line(shown(answer.path)):{width}}  " + "   ".join(cells), flush=True)
