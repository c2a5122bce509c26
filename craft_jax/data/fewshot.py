"""Few-shot sets: labelled photographs in train, validation and test, and how shots are drawn from them.

The draw is CoOp's (Zhou et al., IJCV 2022), which the field follows: the same seed picks the same photographs.
"""

import collections
import dataclasses
import hashlib
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from craft_jax.config import DataConfig
from craft_jax.data.images import ImageArray, LazyImage
from craft_jax.errors import UserError


class Labelled(NamedTuple):
    """A photograph and its class, an index into the set's class names."""

    image: LazyImage
    label: int


@dataclasses.dataclass(frozen=True)
class FewShotSet:
    """Photographs of C classes.

    Attributes:
      class_names: C names as they should be read, by label.
      train: the shots, or the pool to draw them from.
      val: held-out photographs, for choices; may be empty.
      test: for measuring only.
      split: which split this is, for the label of every result.
      notes: what a reader of the results should know about the draw.
      settings: that it was read and drawn by; None for one that was put together in Python.
    """

    class_names: tuple[str, ...]
    train: tuple[Labelled, ...]
    val: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    split: str
    notes: tuple[str, ...] = ()
    settings: DataConfig | None = dataclasses.field(default=None, compare=False)

    @property
    def shots(self) -> int | str:
        """Training photographs a class, as they are: 16, or `3 to 16` where classes have more and less."""
        counts = collections.Counter(item.label for item in self.train)
        of_classes = [counts[label] for label in range(len(self.class_names))]
        fewest, most = min(of_classes), max(of_classes)
        return most if fewest == most else f"{fewest} to {most}"

    def digest(self) -> str:
        """Of names and labels: another where a photograph was added, removed, renamed or labelled anew.

        Arrays have no names, so that of theirs the content counts; that of files does not.
        """
        shown = [[(_told_by(item), item.label) for item in part] for part in (self.train, self.val, self.test)]
        return hashlib.sha256(str(shown).encode()).hexdigest()[:32]

    def content(self) -> str:
        """Of every photograph's content and label, in order: the same wherever they lie and whatever they are called.

        Raises:
          UserError: naming a photograph that is missing.
        """
        shown = [
            [(item.image.fingerprint(), item.label) for item in part] for part in (self.train, self.val, self.test)
        ]
        return hashlib.sha256(str(shown).encode()).hexdigest()[:32]


def _told_by(item: Labelled) -> str:
    image = item.image
    return image.fingerprint() if isinstance(image, ImageArray) else image.name


def draw_shots(pool: FewShotSet, shots: int, seed: int, *, with_replacement: bool = False) -> FewShotSet:
    """Draws `shots` training photographs a class, and at most four validation ones, as CoOp does.

    Args:
      pool: the whole set.
      shots: photographs a class, at least 1.
      seed: of Python's random.Random, whose stream CoOp's draw uses.
      with_replacement: draw with replacement from a class with fewer training photographs than shots.

    Raises:
      UserError: where a class has none, or has too few and `with_replacement` is off.
    """
    if shots < 1:
        raise UserError(f"data.shots={shots} must be at least 1")
    rng = random.Random(seed)
    train = group(pool.train)
    missing = set(range(len(pool.class_names))) - set(train)
    if missing:
        raise UserError(f"class {pool.class_names[min(missing)]!r} has no training photograph; add some or drop it")
    few = {label: len(items) for label, items in train.items() if len(items) < shots}
    notes = pool.notes
    if few:
        label, found = next(iter(few.items()))
        noun = "photograph" if found == 1 else "photographs"
        found_text = f"class {pool.class_names[label]!r} has {found} training {noun}, fewer than data.shots={shots}"
        if not with_replacement:
            raise UserError(
                f"{found_text}; lower data.shots, or set data.with_replacement=True to draw such classes with "
                "replacement, as CoOp does"
            )
        notes += (f"drawn with replacement, as CoOp does, in {len(few)} of {len(train)} classes: {found_text}",)
    drawn = [item for items in train.values() for item in _draw(rng, items, shots)]
    kept = [
        item
        for items in group(pool.val).values()
        for item in (rng.sample(items, min(shots, 4)) if len(items) >= min(shots, 4) else items)
    ]
    return dataclasses.replace(pool, train=tuple(drawn), val=tuple(kept), notes=notes)


def half(whole: FewShotSet, which: str) -> FewShotSet:
    """The first half of the classes by label (`base`; the larger where they are odd), or the second (`new`).

    Raises:
      UserError: where there are fewer than two classes.
    """
    middle = math.ceil(len(whole.class_names) / 2)
    labels = range(middle) if which == "base" else range(middle, len(whole.class_names))
    if not labels:
        raise UserError(f"data.classes={which}: {len(whole.class_names)} class cannot be halved; use data.classes=all")
    train, val, test = (
        tuple(Labelled(item.image, item.label - labels[0]) for item in part if item.label in labels)
        for part in (whole.train, whole.val, whole.test)
    )
    names = whole.class_names[labels[0] : labels[-1] + 1]
    return dataclasses.replace(
        whole, class_names=names, train=train, val=val, test=test, split=f"{whole.split}, {which} classes"
    )


def _draw(rng: random.Random, items: list[Labelled], shots: int) -> list[Labelled]:
    return rng.sample(items, shots) if len(items) >= shots else rng.choices(items, k=shots)


def group(items: Sequence[Labelled]) -> dict[int, list[Labelled]]:
    """The items of each class, classes in order of first appearance."""
    groups: dict[int, list[Labelled]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups
