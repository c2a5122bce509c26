"""From scores as APIs give them to logits: probabilities, percentages, cosines or logits; rounded, or the best alone.

What is rounded away is not what it says: 0.0000 is anything below half a step, and is taken as that.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

PROBABILITIES, SIGMOIDS, COSINES, LOGARITHMS = "probabilities", "independent probabilities", "cosines", "logits"

_DECIMALS = range(2, 8)  # of rounding: fewer would tell nothing, more are those of float32
_LEAST = 1e-12  # of a probability that is not rounded
_ZERO = 0.05  # steps that a probability rounded to 0 is taken as; no share told more of many images (docs/apis.md)
_SUM_SLACK = 0.05
_ENOUGH = 20  # numbers by which a rounding is told


class Treated(NamedTuple):
    """What is made of scores.

    Attributes:
      logits: up to a constant a row.
      weights: inverse variances of the logits, as far as rounding makes them uncertain.
      step: of rounding, 0 for none.
      notes: what there is to say.
    """

    logits: Float[np.ndarray, "N T"]
    weights: Float[np.ndarray, "N T"]
    step: float
    notes: tuple[str, ...]


def treat(
    scores: Float[np.ndarray, "N T"], *, kind: str | None = None, logit_scale: float, finest: float = np.inf
) -> Treated:
    """Logits from scores, each row the answer to one request.

    Args:
      scores: as they came, NaN where an answer left a label out.
      kind: one of this module's; None finds out.
      logit_scale: what cosines are multiplied with.
      finest: step of rounding that other answers of the same origin were found to have.
    """
    silent = np.isnan(scores).all(axis=-1, keepdims=True)
    if silent.any():  # of such an image nothing is known, and no label is likelier than another
        treated = treat(np.where(silent, 0.0, scores), kind=kind, logit_scale=logit_scale, finest=finest)
        return treated._replace(
            logits=np.where(silent, 0.0, treated.logits), weights=np.where(silent, _LEAST, treated.weights)
        )
    notes = []
    if kind is None:
        kind, per_cent = _kind(scores)
        if per_cent:
            notes.append("answers come in per cent, and are divided by 100")
            scores = scores / 100
    if kind == COSINES:
        return Treated(logit_scale * _filled(scores), np.isfinite(scores) + _LEAST, 0.0, tuple(notes))
    if kind == LOGARITHMS:
        return Treated(_filled(scores), np.isfinite(scores) + _LEAST, 0.0, tuple(notes))
    step = min(rounding_step(scores), finest)
    if step:
        lost = float(np.mean(scores[np.isfinite(scores)] < step / 2))
        notes.append(
            f"answers are rounded to steps of {step:g}, which leave {lost:.0%} of them 0; fewer texts a request "
            "(api.texts) lose less"
        )
    if kind == SIGMOIDS:
        notes.append("answers do not sum to 1, and are taken as one probability for each label by itself")
    missing = ~np.isfinite(scores)
    if missing.any():
        notes.append(f"answers leave out {missing.mean():.0%} of the labels, the least likely")
    logits, weights = _logarithms(scores, step, sigmoids=kind == SIGMOIDS)
    return Treated(logits, weights, step, tuple(notes))


def _kind(scores: Float[np.ndarray, "N T"]) -> tuple[str, bool]:
    """What scores are, and whether they come in per cent."""
    least, most, sums = np.nanmin(scores), np.nanmax(scores), np.nansum(scores, axis=-1)
    if least < 0:
        return (COSINES if least >= -1 - _SUM_SLACK and most <= 1 + _SUM_SLACK else LOGARITHMS), False
    if most <= 1 + 1e-6:
        partial = np.isnan(scores).any()
        ones = (sums <= 1 + _SUM_SLACK) & (partial | (sums >= 1 - _slack(scores)))
        return (PROBABILITIES if ones.mean() > 0.5 else SIGMOIDS), False
    if (sums <= 100 * (1 + _SUM_SLACK)).mean() > 0.5:
        return PROBABILITIES, True
    return LOGARITHMS, False


def _slack(scores: Float[np.ndarray, "N T"]) -> float:
    """How far from 1 sums may be: half a step of rounding for each label, and no less than a little."""
    return max(_SUM_SLACK, rounding_step(scores) / 2 * scores.shape[-1])


def rounding_step(scores: Float[np.ndarray, "N T"]) -> float:
    """The step that scores are multiples of, a power of ten, 0 where there is none."""
    values = scores[np.isfinite(scores) & (scores != 0)]
    if values.size < _ENOUGH:
        values = scores[np.isfinite(scores)]
    for decimals in _DECIMALS:
        step = 10.0**-decimals
        if np.allclose(values / step, np.round(values / step), rtol=0, atol=1e-3 * min(1, 1e6 * step)):
            return step
    return 0.0


def _filled(scores: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N T"]:
    """Scores with the lowest of their row where there is none."""
    return np.where(np.isfinite(scores), scores, np.nanmin(scores, axis=-1, keepdims=True))


def _logarithms(
    scores: Float[np.ndarray, "N T"], step: float, *, sigmoids: bool
) -> tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]:
    """Logits of probabilities that are rounded to `step` or left out, and their weights."""
    missing = ~np.isfinite(scores)
    known = np.where(missing, 0.0, scores)
    if missing.any():
        known = np.where(missing, _left(scores, missing, sigmoids=sigmoids), known)
    floor = step * _ZERO if step else _LEAST
    values = np.maximum(known, floor)
    logits = np.log(values)
    if sigmoids:
        logits = logits - np.log(np.maximum(1 - values, floor))
    variance = np.square((step / 2 + _LEAST) / values) + 1e-6
    return logits, np.where(missing, _LEAST, 1 / variance)


def _left(
    scores: Float[np.ndarray, "N T"], missing: Bool[np.ndarray, "N T"], *, sigmoids: bool
) -> Float[np.ndarray, "N 1"]:
    """What a label that an answer leaves out may have: an equal share of what is left, less than any that came."""
    lowest = np.nanmin(scores, axis=-1, keepdims=True)
    if sigmoids:
        return lowest / 2
    left = np.maximum(1 - np.nansum(scores, axis=-1, keepdims=True), 0)
    return np.minimum(left / np.maximum(missing.sum(axis=-1, keepdims=True), 1), lowest / 2)
