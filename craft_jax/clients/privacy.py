"""How less leaves a client than it has: a least count, Gaussian noise, masks that cancel in the sum."""

import functools
import hashlib
import math
import statistics as normal
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from craft_jax.clients.settings import Noise
from craft_jax.method import stacked

_AXES = 32  # of the public photographs' answers, in which noised sums are sent
_FIXED_POINT = 2.0**28
_BLOCKS = math.sqrt(2)  # counts and sums change by 1 each, in their units, with one photograph


class Basis(NamedTuple):
    """What public photographs say of answers, for noise to be measured in.

    Attributes:
      axes: the first principal ones.
      covariance: of the answers less their mean over texts.
      radius: to which every photograph's answers are clipped, along the axes: their median length.
    """

    axes: Float[np.ndarray, "T k"]
    covariance: Float[np.ndarray, "T T"]
    radius: float


def enough(labels: Int[np.ndarray, " N"], least: int) -> np.ndarray:
    """Which of N photographs are of a class with `least` of them at least."""
    return np.bincount(labels, minlength=labels.max(initial=0) + 1)[labels] >= least


def basis(public: Float[np.ndarray, "P T"]) -> Basis:
    """Of the answers about public photographs."""
    stack = stacked.centred(np.asarray(public, np.float64))
    covariance = np.cov(stack, rowvar=False, bias=True)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :_AXES]
    return Basis(axes, covariance, float(np.median(np.linalg.norm(stack @ axes, axis=1))))


def noised(
    answers: Float[np.ndarray, "V N T"],
    labels: Int[np.ndarray, " N"],
    classes: int,
    noise: Noise,
    of: Basis,
    rng: np.random.Generator,
) -> stacked.Statistics:
    """Statistics that are (epsilon, delta)-differentially private for each photograph, all its views together.

    Sums and counts get noise; the scatter is that of public photographs about the same mean, which costs no privacy,
    where noise on T^2 numbers would drown them.
    """
    views = len(answers)
    stack = stacked.centred(np.asarray(answers, np.float64)) @ of.axes
    lengths = np.linalg.norm(stack, axis=-1, keepdims=True)
    stack = (stack * np.minimum(1.0, of.radius / np.maximum(lengths, 1e-12))).sum(axis=0)
    members = np.eye(classes)[labels]
    sigma = views * deviation(noise.epsilon, noise.delta, _BLOCKS)
    counts = np.maximum(views * members.sum(axis=0) + rng.normal(0, sigma, classes), 0.0)
    sums = members.T @ stack + rng.normal(0, sigma * of.radius, (classes, stack.shape[-1]))
    sums = np.where(counts[:, None] > 0, sums, 0.0) @ of.axes.T
    total = counts.sum()
    mean = sums.sum(axis=0) / max(total, 1e-12)
    return stacked.Statistics(counts, sums, total * (of.covariance + np.outer(mean, mean)))


@functools.cache
def deviation(epsilon: float, delta: float, sensitivity: float) -> float:
    """The least standard deviation of Gaussian noise that gives (epsilon, delta)-differential privacy.

    Source: the analytic Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8).
    """
    below = normal.NormalDist().cdf

    def told(sigma: float) -> float:
        a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
        return below(a - b) - math.exp(epsilon) * below(-a - b)

    low, high = 1e-6 * sensitivity, sensitivity
    while told(high) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if told(middle) > delta else (low, middle)
    return high


def flat(of: stacked.Statistics) -> Float[np.ndarray, " n"]:
    """All numbers of the statistics, the symmetric scatter's upper half once."""
    return np.concatenate([of.counts, of.sums.ravel(), of.scatter[np.triu_indices(len(of.scatter))]])


def unflat(numbers: Float[np.ndarray, " n"], classes: int, texts: int) -> stacked.Statistics:
    """The statistics that `flat` was made of."""
    counts, sums, upper = np.split(numbers, [classes, classes * (texts + 1)])
    scatter = np.zeros((texts, texts))
    scatter[np.triu_indices(texts)] = upper
    return stacked.Statistics(counts, sums.reshape(classes, texts), scatter + np.triu(scatter, 1).T)


def masked(
    numbers: Float[np.ndarray, " n"], weight: float, me: int, secrets: Sequence[bytes | None], about: str
) -> np.ndarray:
    """`weight` times the numbers in fixed point, under masks that cancel in the sum over all clients modulo 2^64.

    Args:
      numbers: what is to be summed.
      weight: that the receiver of the sum gives this client.
      me: this client's index.
      secrets: that it shares with each other client; None at its own index.
      about: names the sum, so that no mask is used twice.

    Returns:
      uint64 [n]. Without the others' it tells nothing: each mask is uniform.

    References:
      Bonawitz et al., Practical secure aggregation, CCS 2017, without its second mask: whoever adds up must not ask a
      client for the same sum with other partners.
    """
    total = np.round(np.asarray(numbers) * weight * _FIXED_POINT).astype(np.int64).view(np.uint64)
    for other, secret in enumerate(secrets):
        if secret is None:
            continue
        mask = _mask(secret, about, total.size)
        total = total + mask if me < other else total - mask
    return total


def unmasked(uploads: Sequence[np.ndarray]) -> Float[np.ndarray, " n"]:
    """The sum of what all clients sent under masks, exact to 2^-29 a client."""
    total = functools.reduce(np.add, uploads)
    return total.view(np.int64) / _FIXED_POINT


def _mask(secret: bytes, about: str, size: int) -> np.ndarray:
    """A stream of uniform uint64 from SHAKE-256, which only the two that share the secret can tell from chance."""
    return np.frombuffer(hashlib.shake_256(secret + about.encode()).digest(8 * size), np.uint64)
