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

from craft_jax import folders, labelling
from craft_jax.cli import called, elsewhere, engine_options, parse
from craft_jax.config import BUNDLED, ApiConfig
from craft_jax.data import ImageFile, as_images, folder
from craft_jax.errors import UserError, on_command_line
from craft_jax.files import json_text, one_line, shown

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.tuned_model import TunedModel

_USAGE = """usage: {0} --checkpoint=WORKDIR IMAGE|FOLDER|- ...
       {0} --checkpoint=WORKDIR --engine=ray --output=FOLDER FOLDER|FILE.parquet|FILE.tar|URL ..."""
_WIDEST = 50, 30  # columns of the table that are kept in line: image and label


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
    return labelling.probabilities(tuned, black_box, as_images(images))


class _Answer(NamedTuple):
    """An image file and what is said of it: its best classes with their probabilities, or why it could not be read."""

    path: Path
    best: list[tuple[str, float]]
    error: str


def _answers(
    tuned: "TunedModel", black_box: "BlackBox", paths: Sequence[Path], top: int, threshold: float
) -> Iterator[_Answer]:
    """The answer to each image, a chunk at a time."""
    for first in range(0, len(paths), labelling.CHUNK):
        chunk = paths[first : first + labelling.CHUNK]
        images = [ImageFile(path) for path in chunk]
        found = labelling.answers(tuned, black_box, images, top=top, threshold=threshold)
        yield from (_Answer(path, *answer) for path, answer in zip(chunk, found, strict=True))


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
    flags.DEFINE_enum(
        "engine", "local", ["local", "ray"], "Where images are labelled: here, or on a Ray cluster.", flag_values=values
    )
    flags.DEFINE_string("output", None, "With --engine=ray, the folder that the labels go to.", flag_values=values)
    flags.DEFINE_multi_string(
        "engine_option", [], "With --engine=ray, NAME=VALUE for its actors, such as num_gpus=1.", flag_values=values
    )
    flags.DEFINE_string("image_column", "image", "With --engine=ray, Parquet's column of images.", flag_values=values)
    flags.DEFINE_string("key_column", "", "With --engine=ray, Parquet's column of names.", flag_values=values)
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
        raise UserError(f"a checkpoint and at least one image are needed; {usage.splitlines()[0]}")
    checkpoint = folders.named(given.checkpoint, "--checkpoint")
    if given.top < 1:
        raise UserError(f"--top={given.top} must be at least 1")
    if not 0 <= given.threshold <= 1:
        raise UserError(f"--threshold={given.threshold} must be a probability from 0 to 1")
    _check_engine(given)
    if given.engine == "ray":
        _label_on_ray(given, checkpoint, images)
        return
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
        answers = _answers(tuned, black_box, paths, given.top, given.threshold)
        if given.sort:
            answers = _sorted(answers, folders.expanded(given.sort, "--sort"), given.link)
        unread, unsure, total = _show_all(answers, show, given.threshold)
    if given.csv:
        told = f", {unsure:,} of them {labelling.UNSURE}" if given.threshold else ""
        print(f"{total - unread:,} images labelled{told}: {one_line(given.csv)}", flush=True)
    if unread:
        raise UserError(f"{unread} of {total} images could not be read")


_OF_RAY = ("output", "engine_option", "image_column", "key_column")
_OF_ONE_PROCESS = ("csv", "json", "sort", "link")


def _check_engine(given: flags.FlagValues) -> None:
    """Raises UserError for a flag of the other engine."""
    others, why = _OF_ONE_PROCESS, "does not go with --engine=ray, which writes Parquet to --output"
    if given.engine == "local":
        others, why = _OF_RAY, "needs --engine=ray"
    for name in others:
        if given[name].value != given[name].default:
            raise UserError(f"--{name} {why}")
    if given.engine == "ray" and not given.output:
        raise UserError("--engine=ray needs --output=FOLDER, where labels and what is needed to resume are kept")


def _label_on_ray(given: flags.FlagValues, checkpoint: Path, sources: Sequence[str]) -> None:
    """Labels collections; says what became of them."""
    output = folders.named(given.output, "--output").absolute()
    options = engine_options(given.engine_option)

    from craft_jax import tuned_model
    from craft_jax.labelling import on_ray
    from craft_jax.training import checkpoints

    tuned = checkpoints.open_for_prediction(checkpoint).tuned
    counts = on_ray.label(
        sources,
        output,
        tuned,
        model=_in_full(given.model or ""),
        digest=checkpoints.checksum(tuned_model.arrays(tuned)),
        how=on_ray.Labels(given.top, given.threshold, given.image_column, given.key_column),
        options=options,
        stream=sys.stderr,
    )
    unsure = f", {counts.unsure:,} of them {labelling.UNSURE}" if given.threshold else ""
    print(f"{counts.images - counts.unread:,} images labelled{unsure}: {one_line(str(output / 'labels'))}", flush=True)
    if counts.unread:
        raise UserError(f"{counts.unread} of {counts.images} images could not be read; the column error says why")


def _in_full(model: str) -> str:
    """A model that lies here by its whole path, since actors work in other folders; another as it is called."""
    return str(_path(model).absolute()) if model not in ("", BUNDLED) and _path(model).exists() else model


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
        if count % labelling.CHUNK == 0 or count == images:  # a chunk is labelled at once
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
