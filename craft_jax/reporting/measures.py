"""Statistics of labelled predictions: intervals, confusions, calibration, and whether two models differ."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

_LEVEL = 0.95
_COLDEST, _HOTTEST = 1 / 50, 50.0
BINS = 10


class Interval(NamedTuple):
    """In percent, from `low` to `high`."""

    low: float
    high: float


class Bin(NamedTuple):
    """Predictions of like confidence: their share of all, and their mean confidence and accuracy, in 0 to 1."""

    share: float
    confidence: float
    accuracy: float


def interval(right: int, tested: int) -> Interval:
    """The exact binomial interval of an accuracy at 95 % (Clopper and Pearson, Biometrika 1934)."""
    tail = (1 - _LEVEL) / 2
    low = special.betaincinv(right, tested - right + 1, tail) if right else 0.0
    high = special.betaincinv(right + 1, tested - right, 1 - tail) if right < tested else 1.0
    return Interval(100 * float(low), 100 * float(high))


def mcnemar(first_alone: int, second_alone: int) -> float:
    """Two-sided exact p-value that two models are right equally often (McNemar, Psychometrika 1947).

    Args:
      first_alone: photographs that the first model has right and the second wrong.
      second_alone: the other way round.
    """
    apart = first_alone + second_alone
    return min(1.0, 2 * float(special.bdtr(min(first_alone, second_alone), apart, 0.5))) if apart else 1.0


def confusion(labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int) -> Int[np.ndarray, "C C"]:
    """How many photographs of each class (row) are taken for each (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def reliability(confidence: Float[np.ndarray, " N"], right: np.ndarray) -> list[Bin]:
    """The predictions in ten bins of equal width by confidence, those that are not empty."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    inside = [bins == b for b in range(BINS)]
    return [Bin(float(i.mean()), float(confidence[i].mean()), float(right[i].mean())) for i in inside if i.any()]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error, 0 to 1 (Naeini et al., AAAI 2015): |accuracy - confidence|, weighed by share."""
    return sum(b.share * abs(b.accuracy - b.confidence) for b in bins)


def temperature(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """What logits are to be divided by for the least cross-entropy (Guo et al., ICML 2017), from 1/50 to 50."""

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        of_truth = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
        return float(np.mean(special.logsumexp(scaled, axis=1) - of_truth))

    found = optimize.minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))
