"""Refinement in closed form on everything that answers tell: f + alpha g(F), where F stacks the answers to T texts.

Less their mean, the answers about an image are T linear measurements of its feature, so that a linear discriminant on
them is one on features that nobody gave away. Its statistics are sums over images: those of several sets add up.
Computed once, in float64, on the host. Derivation: docs/answers.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

SHRINKAGES = (0.3, 1.0, 3.0, 10.0, 30.0)  # in mean variances
_WEIGHTS = (0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0)  # times the rule's
_RULE_SHRINKAGE = 3.0
_RULE_WEIGHT = 3.0  # of g in standard deviations of f, at one shot; grows with the fourth root of the shots
_WHITENING = 0.75  # axes are scaled by variance^(-whitening / 2): 0 keeps the probes' crowding, 1 forgets the metric
_LEAST_VARIANCE = 1e-6  # of the largest: rounding below it
_LEAST_TOLD = 1e-4  # of the largest: an axis below it adds nothing that a head could use
_PRIOR_WIDTHS = (2.0, 1.0)  # in natural logarithms of shrinkage and weight
_BELIEF = 0.5  # of held-out images, which are few and of one draw
_TEMPERATURES = 2.0 ** np.arange(-2, 3.5, 0.5)


class Statistics(NamedTuple):
    """Sums over M images that the discriminant is made of, float64.

    Attributes:
      counts: images of each class.
      sums: of each class's stacked answers.
      scatter: of their outer products, over all images.
    """

    counts: Float[np.ndarray, " C"]
    sums: Float[np.ndarray, "C T"]
    scatter: Float[np.ndarray, "T T"]


class StackedHead(NamedTuple):
    """f + F W + b, with alpha in W and b."""

    weights: Float[Any, "T C"]
    bias: Float[Any, " C"]


def nothing(texts: int, classes: int) -> StackedHead:
    """The head that leaves f as it is, on the answers to T texts."""
    return StackedHead(np.zeros((texts, classes), np.float32), np.zeros(classes, np.float32))


def centred(answers: Float[Any, "*M T"]) -> Float[Any, "*M T"]:
    """Answers less their mean over texts: what probabilities tell of them, too."""
    return answers - answers.mean(axis=-1, keepdims=True)


def statistics(answers: Float[Any, "M T"], labels: Int[Any, " M"], classes: int) -> Statistics:
    """Of M images' answers to T texts, the captions of the C classes first."""
    stack = centred(np.asarray(answers, np.float64))
    members = np.eye(classes)[np.asarray(labels)]
    return Statistics(members.sum(axis=0), members.T @ stack, stack.T @ stack)


def add(one: Statistics, other: Statistics) -> Statistics:
    """The statistics of both sets of images."""
    return Statistics(*(a + b for a, b in zip(one, other, strict=True)))


def rank(of: Statistics) -> int:
    """How many independent numbers of an image the answers tell: axes above the noise of rounding."""
    variances = np.linalg.eigvalsh(_covariance(of))
    return int(np.sum(variances > _LEAST_TOLD * variances[-1]))


def apply(head: StackedHead, answers: Float[Any, "*N T"]) -> Any:
    """The refined logits f + alpha g(F) of N images, from their answers to the T texts of the head."""
    bias = head.bias.reshape(*[1] * (answers.ndim - 1), -1)
    return answers[..., : head.bias.size] + centred(answers) @ head.weights + bias


def fit(
    of: Statistics, shots: float, held_out: Float[Any, "N T"] | None = None, labels: Int[Any, " N"] | None = None
) -> StackedHead:
    """The head that the statistics give.

    Without held-out images by the rule alone: shrinkage of 3 mean variances, and g of 3 shots^(1/4) times f's standard
    deviation. With them, the mean of heads on a grid around it, weighted by a prior at the rule and by what the images
    tell (their likelihood to the power of a half), so that few move it little.

    Args:
      of: the training images.
      shots: images a class, views not counted.
      held_out: answers to the same texts about N images that were not trained on.
      labels: theirs.
    """
    heads = grid(of, shots)
    deviations = {key: _deviation(of, head) for key, head in heads.items()}
    shares = _shares(heads, held_out, labels)
    shares = {key: share / deviations[key] for key, share in shares.items()}
    total = sum(shares.values())
    return StackedHead(
        *(
            np.sum([share / total * leaf for share, leaf in zip(shares.values(), leaves, strict=True)], axis=0).astype(
                np.float32
            )
            for leaves in zip(*heads.values(), strict=True)
        )
    )


def grid(of: Statistics, shots: float) -> dict[tuple[float, float], StackedHead]:
    """The heads that `fit` weighs, by shrinkage in mean variances and multiple of the rule's weight."""
    classes = len(of.counts)
    spread = _deviation(of, nothing(len(of.scatter), classes))
    heads = {}
    for shrinkage, head in zip(SHRINKAGES, discriminants(of, SHRINKAGES), strict=True):
        own = _deviation(of, head, residual=False)
        for weight in _WEIGHTS:
            alpha = weight * _RULE_WEIGHT * shots**0.25 * spread / own if own > 0 else 0.0
            heads[shrinkage, weight] = StackedHead(alpha * head.weights, alpha * head.bias)
    return heads


def _shares(
    heads: Mapping[tuple[float, float], StackedHead], held_out: Any, labels: Any
) -> dict[tuple[float, float], float]:
    """The weight of each head of the grid, before its scale."""
    if held_out is None or not len(held_out):
        return {key: float(key == (_RULE_SHRINKAGE, 1.0)) for key in heads}
    answers, labels = np.asarray(held_out, np.float64), np.asarray(labels)
    logs = []
    for (shrinkage, weight), head in heads.items():
        prior = [np.log(shrinkage / _RULE_SHRINKAGE) / _PRIOR_WIDTHS[0], np.log(weight) / _PRIOR_WIDTHS[1]]
        loss = _best_loss(apply(head, answers), labels)
        logs.append(-np.square(prior).sum() / 2 - _BELIEF * labels.size * loss)
    shares = np.exp(np.array(logs) - max(logs))
    return dict(zip(heads, shares / shares.sum(), strict=True))


def _best_loss(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean cross-entropy at the best of a few temperatures."""

    def loss(scaled: np.ndarray) -> float:
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        logs = np.log(np.exp(shifted).sum(axis=1))
        return float(np.mean(logs - shifted[np.arange(labels.size), labels]))

    logits = centred(logits)  # a constant an image, which softmax removes, must not change the scale
    scale = logits.std() or 1.0
    return min(loss(temperature * logits / scale) for temperature in _TEMPERATURES)


def discriminants(of: Statistics, shrinkages: Sequence[float], whitening: float = _WHITENING) -> list[StackedHead]:
    """G of linear discriminant analysis: W = S^-1 means, b = -means' S^-1 means / 2, by shrinkage.

    S is the covariance within classes plus `shrinkage` mean variances, on principal axes scaled by
    variance^(-whitening / 2). Logits are less their mean over classes.
    """
    total = of.counts.sum()
    mean = of.sums.sum(axis=0) / total
    variances, axes = np.linalg.eigh(_covariance(of))
    kept = variances > _LEAST_VARIANCE * max(variances[-1], np.finfo(float).tiny)
    if not kept.any():
        return [nothing(mean.size, len(of.counts))] * len(shrinkages)
    variances, axes = variances[kept], axes[:, kept]
    map_ = axes * variances ** (-whitening / 2)
    held = of.counts[:, None] > 0  # of a class without images nothing is known: g leaves it as it is
    means = np.where(held, of.sums / np.where(held, of.counts[:, None], 1.0) - mean, 0.0) @ map_
    scaled = variances ** (1 - whitening)
    within = np.diag(scaled) - (means * of.counts[:, None]).T @ means / total
    heads = []
    for shrinkage in shrinkages:
        weights = np.linalg.solve(within + shrinkage * scaled.mean() * np.eye(scaled.size), means.T)
        bias = -np.sum(means.T * weights, axis=0) / 2 - mean @ map_ @ weights
        heads.append(StackedHead(centred(map_ @ weights), centred(bias)))
    return heads


def _covariance(of: Statistics) -> Float[np.ndarray, "T T"]:
    total = of.counts.sum()
    mean = of.sums.sum(axis=0) / total
    return of.scatter / total - np.outer(mean, mean)


def _deviation(of: Statistics, head: StackedHead, residual: bool = True) -> float:
    """Root mean square over training images of the logits less their mean over classes: f + g, or g alone."""
    classes = len(of.counts)
    weights = np.asarray(head.weights, np.float64) + (np.eye(len(of.scatter), classes) if residual else 0.0)
    weights, bias = centred(weights), centred(np.asarray(head.bias, np.float64))
    total = of.counts.sum()
    mean = of.sums.sum(axis=0) @ weights / total
    second = np.sum(weights * (of.scatter / total @ weights), axis=0) + 2 * mean * bias + bias**2
    return float(np.sqrt(max(second.mean(), 0.0)))
