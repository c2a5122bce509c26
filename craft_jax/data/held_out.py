"""Photographs to choose by, apart from those to train on and never the test's."""

import dataclasses
from collections.abc import Sequence

from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.errors import UserError
from craft_jax.randomness import Stream, host_generator


def hold_out(dataset: FewShotSet, held_out: str, seed: int) -> tuple[FewShotSet, tuple[Labelled, ...]]:
    """The set to train on, and the photographs to choose by: its validation part, or a quarter of each class's shots.

    Args:
      dataset: with the shots drawn.
      held_out: `validation`, `shots` or `none`.
      seed: of the run.

    Raises:
      UserError: where shots are to be held out of a class that has one photograph alone.
    """
    if held_out == "none":
        return dataset, ()
    if held_out == "validation":
        return dataset, dataset.val
    if held_out != "shots":
        raise ValueError(f"held_out={held_out} is unknown here")
    held = _quarter_of_each_class(dataset, seed)
    kept = tuple(item for i, item in enumerate(dataset.train) if i not in held)
    return dataclasses.replace(dataset, train=kept), tuple(dataset.train[i] for i in sorted(held))


def notes_of(dataset: FewShotSet, held_out: str) -> tuple[str, ...]:
    """The set's notes, and that nothing is there to choose by where `held_out` asks for what the set lacks."""
    if held_out != "validation" or dataset.val:
        return dataset.notes
    lacking = (
        "there are no validation photographs, so nothing is chosen by held_out=validation: a fixed order says what is "
        "deployed; add some, or set held_out=shots"
    )
    return (*dataset.notes, lacking)


def _quarter_of_each_class(dataset: FewShotSet, seed: int) -> set[int]:
    rng = host_generator(seed, Stream.HELD_OUT)
    held: set[int] = set()
    for label, name in enumerate(dataset.class_names):
        distinct = _rows_by_image(dataset.train, label)
        if len(distinct) < 2:
            raise UserError(
                f"held_out=shots leaves class {name!r} without a training photograph; raise data.shots to 2 or more, "
                "or use held_out=validation or none"
            )
        for i in rng.permutation(len(distinct))[: max(1, len(distinct) // 4)]:
            held.update(distinct[i])
    return held


def _rows_by_image(items: Sequence[Labelled], label: int) -> list[list[int]]:
    """The rows of each distinct photograph of a class: a draw with replacement has some of them twice."""
    rows: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item.label == label:
            rows.setdefault(item.image.fingerprint(), []).append(i)
    return list(rows.values())
