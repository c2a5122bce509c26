"""How well each client is served: on its own mix of classes, on all alike, and on classes that it has never seen."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.clients.client import Personal
from craft_jax.clients.splits import Holding
from craft_jax.method import StackedHead, stacked


class Measured(NamedTuple):
    """Accuracies in percent, a number a client.

    Attributes:
      own_mix: over classes as its training photographs have them, with that mix as prior.
      uniform: over all classes alike.
      unseen: over classes that it has no photograph of; None for a client that has all.
    """

    own_mix: list[float]
    uniform: list[float]
    unseen: list[float | None]


def measure(
    personal: Sequence[Personal],
    holdings: Sequence[Holding],
    tests: Mapping[int, Float[np.ndarray, "N T"]],
    labels: Sequence[int],
) -> Measured:
    """Accuracies of M clients' heads.

    Args:
      personal: what each client has.
      holdings: its photographs, labels and domain.
      tests: answers about the test photographs, by domain.
      labels: of the test photographs, before a client's own meaning.
    """
    rows = []
    for ends, holding in zip(personal, holdings, strict=True):
        own = np.array(holding.meaning)[list(labels)]
        classes = len(holding.meaning)
        mix = np.bincount([item.label for item in holding.train], minlength=classes)
        general = by_class(ends.head, tests[holding.domain], own)
        adjusted = by_class(ends.own_mix, tests[holding.domain], own)
        tested = np.isfinite(general)
        unseen = general[tested & (mix == 0)]
        weights = mix * tested
        rows.append(
            (
                float(np.average(adjusted[tested], weights=weights[tested])) if weights.any() else 0.0,
                float(general[tested].mean()),
                float(unseen.mean()) if unseen.size else None,
            )
        )
    return Measured(*(list(column) for column in zip(*rows, strict=True)))


def by_class(head: StackedHead, answers: Float[np.ndarray, "N T"], labels: np.ndarray) -> Float[np.ndarray, " C"]:
    """Accuracy in percent on each class; NaN for one that is not tested."""
    right = np.argmax(stacked.apply(head, answers), axis=1) == labels
    classes = head.bias.size
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    return np.where(counts > 0, 100 * hits / np.maximum(counts, 1), np.nan)
