"""Who trusts whom: whether two clients mean the same by the classes that both have photographs of.

Each of the three ways gives a matrix of resemblances, client i's class against client j's. Where both mean the same,
equal classes resemble one another more than others do; so that the others say what chance brings. Wagner et al. take
softmax of one distance a pair instead, which depends on a temperature and sets label skew beside wrong labels.
Derivation: docs/clients.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_PRIOR = 0.9  # who tunes together mostly means the same
_LEAST_PRIOR = 0.2
_ROUNDS = 50
_VARIES = 1 / 3  # of the mean resemblance, from pair to pair of those that mean the same
_LEAST_LIKE = 0.05


class Match(NamedTuple):
    """How client i's classes resemble client j's.

    Attributes:
      like: mean resemblance of equal classes, less that of others.
      shared: classes that both have.
      spread: sum of squares of the others' resemblances about their mean.
      others: how many these are.
    """

    like: float
    shared: int
    spread: float
    others: int


def match(resemblance: Float[np.ndarray, "C C"], mine: Bool[np.ndarray, " C"], theirs: Bool[np.ndarray, " C"]) -> Match:
    """What a matrix of resemblances, [i's class, j's class], tells of the classes that each holds."""
    both = mine & theirs
    pairs = mine[:, None] & theirs
    np.fill_diagonal(pairs, False)
    others = resemblance[pairs]
    chance = others.mean() if others.size else 0.0
    if not both.any():
        return Match(0.0, 0, float(np.square(others - chance).sum()), others.size)
    like = np.diagonal(resemblance)[both].mean() - chance
    return Match(float(like), int(both.sum()), float(np.square(others - chance).sum()), others.size)


def correlations(one: Float[np.ndarray, "P C"], other: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "C C"]:
    """Of each class's column of the one with each of the other, over rows less their means."""
    return _standard(one).T @ _standard(other)


def cosines(one: Float[np.ndarray, "C d"], other: Float[np.ndarray, "C d"]) -> Float[np.ndarray, "C C"]:
    """Of the clients' changes to what each class's logits are made by."""
    return _unit(one.T).T @ _unit(other.T)


def by_images(
    change: Float[np.ndarray, "N C"], labels: np.ndarray, mine: Bool[np.ndarray, " C"]
) -> Float[np.ndarray, "C C"]:
    """Mean of j's standardised change to each class's logit, over i's photographs of each class."""
    scaled = _standard(change) * np.sqrt(len(change))
    rows = [scaled[labels == label].mean(axis=0) if has else np.zeros(len(mine)) for label, has in enumerate(mine)]
    return np.stack(rows)


def believe(matches: Sequence[Sequence[Match]]) -> Float[np.ndarray, "M M"]:
    """The probability that client j means by the classes what client i means; 1 for itself.

    A mixture of two: resemblances of those who mean the same scatter about r > 0, of others about 0, with variances
    that follow from how many classes are shared. r and the share of the first are fitted by expectation-maximisation
    over all pairs. Pairs that share no class are believed by that share.
    """
    like = np.array([[one.like for one in row] for row in matches])
    shared = np.array([[one.shared for one in row] for row in matches])
    apart = ~np.eye(len(like), dtype=bool)
    known = apart & (shared > 0)
    others = sum(one.others for row in matches for one in row)
    if not known.any() or not others:
        return np.where(apart, _PRIOR, 1.0)
    variance = sum(one.spread for row in matches for one in row) / others
    x, v = np.maximum(like[known], 0.0), max(variance, 1e-12) / shared[known]
    mean, prior = max(float(np.percentile(x, 75)), _LEAST_LIKE), _PRIOR
    for _ in range(_ROUNDS):
        same = _posterior(x, v, mean, prior)
        weights = same / (v + (_VARIES * mean) ** 2)
        mean = max(float(np.sum(weights * x) / max(weights.sum(), 1e-12)), _LEAST_LIKE)
        prior = float(np.clip(same.mean(), _LEAST_PRIOR, _PRIOR))
    trust = np.where(apart, prior, 1.0)
    trust[known] = _posterior(x, v, mean, prior)
    return trust


def rows_of_one(trust: Float[np.ndarray, "M M"]) -> Float[np.ndarray, "M M"]:
    """The matrix W: each client's trust as shares, rows that sum to one."""
    shares: np.ndarray = trust / trust.sum(axis=1, keepdims=True)
    return shares


def inside(trust: Float[np.ndarray, "M M"], groups: Sequence[int]) -> float:
    """Mean share of trust that clients give to their true group, in [0, 1]."""
    same = np.equal.outer(groups, groups)
    return float(np.sum(rows_of_one(trust) * same, axis=1).mean())


def _posterior(x: np.ndarray, v: np.ndarray, mean: float, prior: float) -> np.ndarray:
    """That a pair means the same, by its resemblance x of variance v."""
    wide = v + (_VARIES * mean) ** 2
    odds = np.log(prior / (1 - prior)) + (np.log(v / wide) - (x - mean) ** 2 / wide + x**2 / v) / 2
    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def _standard(columns: np.ndarray) -> np.ndarray:
    return _unit(columns - columns.mean(axis=0))


def _unit(columns: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(columns, axis=0)
    return columns / np.where(lengths > 0, lengths, 1.0)
