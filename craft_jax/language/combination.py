"""Convex combinations of wordings: for each class, weights of the captions that it has in them, fitted to the shots.

The problem is convex and asks the black box nothing. Exponentiated gradient descent from a start that leans to the
first wording and the better ones; how far it goes is chosen on folds where there are shots enough: many wordings fit
few shots by chance.
"""

import numpy as np
from jaxtyping import Float, Int

from craft_jax.language.scoring import Shots, cross_entropies

STEPS = (0, 8, 16, 32, 64)
_FEW = 8  # steps where no fold can tell
_RATE = 4.0  # over the root of the step, of the largest difference between two coordinates of the gradient
_FIRST, _LIKELY = 0.5, 0.25  # shares of the start; the rest is even
_BELIEF = 0.5  # of the shots, in the likely share
_LEAST = 0.01  # a smaller weight is none: each costs every labelled image a text


def weights(
    answers: Float[np.ndarray, "C K M"], losses: Float[np.ndarray, " K"], shots: Shots, images: int, scale: float
) -> Float[np.ndarray, "C K"]:
    """Those of K wordings for each class, at least 0 and 1 in sum.

    Args:
      answers: to the class's caption in each wording, about M rows.
      losses: of the wordings, the first of which is the black box's own template.
      shots: labels and folds of the rows.
      images: that the rows show.
      scale: temperature that logits are multiplied with.
    """
    start = np.tile(_start(losses, images), (len(answers), 1)).astype(np.float32)
    answers = np.float32(scale) * answers
    steps, numbers = _FEW, np.unique(shots.folds)
    if numbers.size > 1:
        held_out = np.zeros(len(STEPS))
        for fold in numbers:
            inside = shots.folds == fold
            path = _descend(start, answers[:, :, ~inside], shots.labels[~inside], STEPS[-1])
            logits = [_mixed(one, answers[:, :, inside]).T for one in path]
            held_out += [cross_entropies(one, shots.labels[inside]).sum() for one in logits]
        steps = STEPS[int(np.argmin(held_out))]
    found = _descend(start, answers, shots.labels, steps)[-1].astype(np.float64)
    found[found < _LEAST] = 0.0
    return found / found.sum(axis=1, keepdims=True)


def _start(losses: Float[np.ndarray, " K"], images: int) -> Float[np.ndarray, " K"]:
    likely = np.exp(-_BELIEF * images * (losses - losses.min()))
    shares = _LIKELY * likely / likely.sum() + (1 - _FIRST - _LIKELY) / losses.size
    shares[0] += _FIRST
    return shares / shares.sum()


def _descend(
    start: Float[np.ndarray, "C K"], answers: Float[np.ndarray, "C K M"], labels: Int[np.ndarray, " M"], last: int
) -> list[Float[np.ndarray, "C K"]]:
    """The weights after each number of `STEPS`, as far as the last."""
    found, current, own = [start], start, np.eye(len(answers), dtype=np.float32)[:, labels]
    for step in range(1, last + 1):
        residual = _softmax(_mixed(current, answers)) - own
        gradient = (answers @ residual[:, :, None])[:, :, 0] / labels.size
        gradient -= gradient.min(axis=1, keepdims=True)
        current = current * np.exp(-_RATE / step**0.5 * gradient / (gradient.max() or 1.0))
        current /= current.sum(axis=1, keepdims=True)
        if step in STEPS:
            found.append(current)
    return found


def _mixed(current: Float[np.ndarray, "C K"], answers: Float[np.ndarray, "C K M"]) -> Float[np.ndarray, "C M"]:
    return (current[:, None, :] @ answers)[:, 0, :]


def _softmax(logits: Float[np.ndarray, "C M"]) -> Float[np.ndarray, "C M"]:
    shares = np.exp(logits - logits.max(axis=0))
    return shares / shares.sum(axis=0)
