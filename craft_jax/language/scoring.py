"""How well wordings do on the shots: cross-entropy, cross-validated where there are shots enough.

Accuracy ties between most wordings at one shot. What is fitted to the shots is one number, the logits' temperature;
with four shots a class each fold is judged at the one that suits the others. M rows are views of images, C classes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from craft_jax.randomness import Stream, host_generator

ENOUGH = 4  # shots a class to hold out a part of
_FOLDS = 4
_TEMPERATURES = 2.0 ** np.arange(-2, 3.5, 0.5)
_PAIRS = 6  # of confused classes


class Shots(NamedTuple):
    """What wordings are scored on.

    Attributes:
      labels: of the rows.
      folds: number of the fold that a row's image is in; all 0 where shots are too few to hold out any.
    """

    labels: Int[np.ndarray, " M"]
    folds: Int[np.ndarray, " M"]


def shots_of(labels: Int[np.ndarray, " M"], images: Int[np.ndarray, " M"], seed: int) -> Shots:
    """Rows with a fold each, the images of a class spread evenly over the folds.

    Args:
      labels: of the rows.
      images: number of the image that a row shows.
      seed: of the draw.
    """
    numbers, first = np.unique(images, return_index=True)
    of_images = labels[first]
    folds = np.zeros(numbers.size, int)
    if np.bincount(of_images).min() >= ENOUGH:
        rng = host_generator(seed, Stream.LANGUAGE, 0, 1)
        for label in np.unique(of_images):
            members = rng.permutation(np.flatnonzero(of_images == label))
            folds[members] = (np.arange(members.size) + rng.integers(_FOLDS)) % _FOLDS
    return Shots(labels, folds[np.searchsorted(numbers, images)])


def cross_entropies(logits: Float[np.ndarray, "*K M C"], labels: Int[np.ndarray, " M"]) -> Float[np.ndarray, "*K M"]:
    """-log softmax(logits)[label] of each row."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1)) - shifted[..., np.arange(labels.size), labels]


def temperature(logits: Float[np.ndarray, "M C"], labels: Int[np.ndarray, " M"]) -> float:
    """What logits are best multiplied with, of a few steps."""
    losses = [cross_entropies(t * logits, labels).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def loss(logits: Float[np.ndarray, "M C"], shots: Shots, usual: float) -> float:
    """Cross-entropy, each fold's at the temperature that suits the others; at the `usual` one where there are none."""
    numbers = np.unique(shots.folds)
    if numbers.size == 1:
        return float(cross_entropies(usual * logits, shots.labels).mean())
    losses = np.stack([cross_entropies(t * logits, shots.labels) for t in _TEMPERATURES])
    total = 0.0
    for fold in numbers:
        inside = shots.folds == fold
        total += losses[int(np.argmin(losses[:, ~inside].mean(axis=1)))][inside].sum()
    return float(total / shots.labels.size)


def by_class(
    logits: Float[np.ndarray, "M C"], others: Float[np.ndarray, "K M C"], labels: Int[np.ndarray, " M"], scale: float
) -> Float[np.ndarray, "C K"]:
    """The loss of one wording with a class's column taken from another, for every class and other."""
    own, theirs = scale * logits.astype(np.float64), scale * others
    top = np.maximum(own.max(axis=1), theirs.max(axis=(0, 2)))
    weights = np.exp(own - top[:, None])
    rest = weights.sum(axis=1)[:, None] - weights  # without the class
    truth = own[np.arange(labels.size), labels]
    found = np.empty((own.shape[1], len(others)))
    for label in range(own.shape[1]):
        column = theirs[:, :, label]
        correct = np.where(labels == label, column, truth)
        found[label] = (np.log(rest[:, label] + np.exp(column - top)) + top - correct).mean(axis=1)
    return found


def confused(
    logits: Float[np.ndarray, "M C"], labels: Int[np.ndarray, " M"], class_names: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Pairs of classes, an image's own and the one that it is taken for, the most frequent first."""
    taken = logits.argmax(axis=1)
    wrong = taken != labels
    pairs, counts = np.unique(np.stack([labels[wrong], taken[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_PAIRS]
    return [(class_names[pairs[0, i]], class_names[pairs[1, i]]) for i in order]
