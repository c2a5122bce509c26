"""What to look at before the next run: suspicious photographs, and classes that more shots would help most.

From held-out photographs alone, which no test has seen, and what is known of them: nothing is asked again.
"""

import collections
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from craft_jax.data import Labelled, LazyImage
from craft_jax.errors import UserError
from craft_jax.files import one_line
from craft_jax.reporting.answers import Judged
from craft_jax.reporting.text import in_markdown
from craft_jax.reporting.thumbnails import thumbnails

_A_CLASS, _SUSPECTS = 3, 24
_HELPED = 5  # classes
_SIDE = 16  # pixels of the grey squares that are compared
_ALIKE = 0.97  # correlation of two photographs' grey squares
_FLAT = 4.0  # standard deviation of a square's grey levels, of 255, below which nothing is to be compared
_COMPARED, _THREADS = 1000, 4  # training photographs that are opened, and how many at once
_SURE, _RULED_OUT = 0.8, 0.05  # probability of what is said, and of the label, of a probably mislabelled photograph


class Suspect(NamedTuple):
    """A held-out photograph that is taken for another class, and why it is worth a look.

    Attributes:
      place: among the held-out photographs.
      truth, predicted: names of its label and of what it is taken for.
      probability: of the latter, 0 to 1.
      why: in words.
      path: its name.
      picture: a data URI, empty where it cannot be read.
    """

    place: int
    truth: str
    predicted: str
    probability: float
    why: str
    path: str
    picture: str


class Helped(NamedTuple):
    """A class that more shots would help: how many of its held-out photographs are right, and their mean probability.

    Attributes:
      name: of the class.
      shots: photographs that it learnt from.
      right, held_out: photographs to choose by, those that are right and all.
      probability: of its label, the mean over them, 0 to 1.
    """

    name: str
    shots: int
    right: int
    held_out: int
    probability: float


class Suggestions(NamedTuple):
    """Photographs to look at, and classes to collect for; both empty where nothing was held out."""

    suspects: Sequence[Suspect] = ()
    helped: Sequence[Helped] = ()


def suggest(
    judged: Judged, train: Sequence[Labelled], held_out: Sequence[Labelled], class_names: Sequence[str]
) -> Suggestions:
    """What held-out photographs suggest.

    A suspect is taken for another class and either looks like a photograph to learn from, or its label is ruled out (at
    most 5 % where another class has 80 % and more, at the temperature): at most three of a class. The classes that more
    shots would help most are those whose held-out labels have the least mean probability, drawn to that of all as by
    one photograph more; suspects are left out of it.

    Args:
      judged: what the deployed model says.
      train: the photographs that it learnt from.
      held_out: those that `judged.held_out` is about, in its order.
      class_names: C of them.
    """
    answers = judged.held_out
    if not len(held_out) or [item.label for item in held_out] != answers.labels.tolist():
        return Suggestions()
    names = [one_line(name) for name in class_names]
    wrong = np.flatnonzero(~answers.right)
    mistakes = [int(i) for i in wrong[np.argsort(-answers.tempered[wrong], kind="stable")]]
    twins = _twins(held_out, train, mistakes, {int(label) for label in answers.best[wrong, 0]})
    reasons: dict[int, str] = {}
    for i in mistakes:
        if i in twins:
            reasons[i] = _looks_like(twins[i], held_out[i].label, names)
        elif answers.tempered[i] >= _SURE and answers.of_truth[i] <= _RULED_OUT:
            reasons[i] = "its label is all but ruled out; it may be mislabelled"
    places = _few_of_each_class(reasons, held_out)
    pictures = thumbnails([held_out[i].image for i in places])
    suspects = [
        Suspect(
            i,
            names[held_out[i].label],
            names[answers.best[i, 0]],
            float(answers.tempered[i]),
            reasons[i],
            one_line(held_out[i].image.name),
            picture,
        )
        for i, picture in zip(places, pictures, strict=True)
    ]
    return Suggestions(suspects, _helped(judged, train, set(reasons), names))


def markdown(suggestions: Suggestions) -> list[str]:
    """As sections in Markdown; nothing where there is nothing to say."""
    lines = []
    if suggestions.suspects:
        lines += ["", "## Photographs to look at", ""]
        lines += [
            f"- {in_markdown(s.path)}, labelled {in_markdown(s.truth)}, taken for {in_markdown(s.predicted)} "
            f"({100 * s.probability:.0f} %): {in_markdown(s.why)}"
            for s in suggestions.suspects
        ]
    if suggestions.helped:
        lines += ["", "## Classes that more shots would help most", ""]
        lines += [
            f"- {in_markdown(h.name)}: {h.shots} shots, {h.right} of {h.held_out} held-out photographs right, mean "
            f"probability of the label {100 * h.probability:.0f} %"
            for h in suggestions.helped
        ]
    return lines


def _few_of_each_class(places: Iterable[int], held_out: Sequence[Labelled]) -> list[int]:
    taken: collections.Counter[int] = collections.Counter()
    few = []
    for i in places:
        taken[held_out[i].label] += 1
        if taken[held_out[i].label] <= _A_CLASS:
            few.append(i)
    return few[:_SUSPECTS]


def _helped(judged: Judged, train: Sequence[Labelled], suspects: set[int], names: Sequence[str]) -> list[Helped]:
    answers = judged.held_out
    kept = np.array([i not in suspects for i in range(len(answers.labels))])
    if not kept.any():
        return []
    shots = collections.Counter(item.label for item in train)
    overall = float(answers.of_truth[kept].mean())
    found = []
    for label in np.unique(answers.labels[kept]):
        own = kept & (answers.labels == label)
        drawn = (float(answers.of_truth[own].sum()) + overall) / (int(own.sum()) + 1)
        if answers.right[own].all():
            continue
        helped = Helped(
            names[label], shots[int(label)], int(answers.right[own].sum()), int(own.sum()),
            float(answers.of_truth[own].mean()),
        )  # fmt: skip
        found.append((drawn, helped))
    return [helped for _, helped in sorted(found, key=lambda pair: pair[0])[:_HELPED]]


def _looks_like(twin: Labelled, label: int, names: Sequence[str]) -> str:
    whose = "the same class's" if twin.label == label else f"one labelled {names[twin.label]}:"
    return f"nearly the same picture as {whose} {one_line(twin.image.name)}"


def _twins(
    held_out: Sequence[Labelled], train: Sequence[Labelled], wrong: Sequence[int], predicted: set[int]
) -> dict[int, Labelled]:
    """Of each mistake the training photograph that looks the same, among its own class and those that are said."""
    labels = predicted | {held_out[i].label for i in wrong}
    candidates = [item for item in train if item.label in labels][:_COMPARED]
    if not wrong or not candidates:
        return {}
    with ThreadPoolExecutor(_THREADS) as pool:
        ours = np.stack(list(pool.map(_square, [held_out[i].image for i in wrong])))
        theirs = np.stack(list(pool.map(_square, [item.image for item in candidates])))
    alike = ours @ theirs.T
    best = alike.argmax(axis=1)
    return {i: candidates[k] for i, k, row in zip(wrong, best, alike, strict=True) if row[k] >= _ALIKE}


def _square(image: LazyImage) -> Float[Any, " n"]:
    """A photograph's grey levels on a small square, less their mean and of length 1; zeros where they are flat."""
    try:
        small = image.open().convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    except UserError:
        return np.zeros(_SIDE**2)
    levels = np.asarray(small, np.float64).ravel()
    if levels.std() < _FLAT:
        return np.zeros(_SIDE**2)
    centred = levels - levels.mean()
    return centred / np.linalg.norm(centred)
