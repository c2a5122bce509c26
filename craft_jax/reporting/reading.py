"""What was read, before anything is asked: classes with their photographs counted, and a contact sheet of some of them.

A wrong folder, a class that is none, or labels that slipped by one show at a glance.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from craft_jax.data import FewShotSet, Labelled
from craft_jax.files import one_line
from craft_jax.reporting.page import template
from craft_jax.reporting.thumbnails import thumbnails

PARTS = ("train", "val", "test")
_LINES = 30
_NAME = 40  # columns
_PHOTOGRAPHS, _A_CLASS = 1200, 6  # on the sheet, which stays under 5 MB


class ReadClass(NamedTuple):
    """A class on the contact sheet: its name, photographs in each part, and pictures as (data URI, path, part)."""

    name: str
    counts: tuple[int, ...]
    pictures: list[tuple[str, str, str]]


def class_lines(dataset: FewShotSet, held_out: Sequence[Labelled]) -> list[str]:
    """Each class with its photographs in train, val and test, a line each; of many classes the last are summed up.

    Args:
      dataset: with the shots drawn, and without those that are held out of them.
      held_out: photographs to choose by.
    """
    counts = _counts(dataset, held_out)
    names = [_short(one_line(name)) for name in dataset.class_names]
    shown = len(names) if len(names) <= _LINES else _LINES - 1
    rows = list(zip(names[:shown], counts[:shown].tolist(), strict=True))
    if shown < len(names):
        rows.append((f"and {len(names) - shown:,} more classes", counts[shown:].sum(axis=0).tolist()))
    width = max(len("class"), *(len(name) for name, _ in rows))
    lines = [f"{'class':{width}}  " + "  ".join(f"{part:>6}" for part in PARTS)]
    return lines + [f"{name:{width}}  " + "  ".join(f"{count:>6,}" for count in of) for name, of in rows]


def contact_sheet(dataset: FewShotSet, held_out: Sequence[Labelled], notes: Sequence[str]) -> str:
    """A page of HTML with a row a class: its name, its counts, and a few of its photographs from every part."""
    counts = _counts(dataset, held_out)
    a_class = max(1, min(_A_CLASS, _PHOTOGRAPHS // len(dataset.class_names)))
    chosen = _chosen(dataset, held_out, a_class)
    drawn = thumbnails([item.image for items in chosen for item, _ in items])
    pictures = iter(drawn)
    rows = [
        ReadClass(
            one_line(name),
            tuple(counts[label].tolist()),
            [(next(pictures), one_line(item.image.name), part) for item, part in chosen[label]],
        )
        for label, name in enumerate(dataset.class_names)
    ]
    page: str = template("photographs.html.jinja").render(
        rows=rows, parts=PARTS, totals=counts.sum(axis=0).tolist(), split=dataset.split, notes=notes
    )
    return page


def _parts(dataset: FewShotSet, held_out: Sequence[Labelled]) -> dict[str, Sequence[Labelled]]:
    return dict(zip(PARTS, (dataset.train, held_out, dataset.test), strict=True))


def _counts(dataset: FewShotSet, held_out: Sequence[Labelled]) -> np.ndarray:
    """Photographs of each class in each part, [C, 3]."""
    classes = len(dataset.class_names)
    labels = [[item.label for item in items] for items in _parts(dataset, held_out).values()]
    return np.stack([np.bincount(np.array(of, int), minlength=classes) for of in labels], axis=1)


def _chosen(dataset: FewShotSet, held_out: Sequence[Labelled], most: int) -> list[list[tuple[Labelled, str]]]:
    """Of each class a few photographs, half of them to train on, with the part that each is of."""
    by_class: list[list[tuple[Labelled, str]]] = [[] for _ in dataset.class_names]
    for part, of_part in zip(PARTS, (-(-most // 2), most - most // 3, most), strict=True):
        for item in _parts(dataset, held_out)[part]:
            if len(by_class[item.label]) < of_part:
                by_class[item.label].append((item, part))
    return by_class


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."
