"""How well each client is served: on its own mix of classes, on all alike, and on classes that it has never seen."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from craft_jax.clients.splits import Holding
from craft_jax.method import stacked

_ONE_IMAGE = 1.0  # spread over all classes, so that none is ruled out on the client's own mix
_TEMPERATURES = 2.0 ** np.arange(-4, 3.5, 0.5)
_USUAL_TEMPERATURE = 0.5
_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)


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
    logits: Sequence[tuple[Float[np.ndarray, "N C"], Float[np.ndarray, "N C"]]],
    holdings: Sequence[Holding],
    labels: Sequence[int],
) -> Measured:
    """Accuracies of what M clients have.

    Args:
      logits: of the test photographs as each client's domain shows them: in general, and for the client's own mix.
      holdings: their photographs and labels.
      labels: of the test photographs, before a client's own meaning.
    """
    rows = []
    for (in_general, for_own_mix), holding in zip(logits, holdings, strict=True):
        own = np.array(holding.meaning)[list(labels)]
        classes = len(holding.meaning)
        mix = np.bincount([item.label for item in holding.train], minlength=classes)
        general = by_class(in_general, own)
        adjusted = by_class(for_own_mix, own)
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


def by_class(logits: Float[np.ndarray, "N C"], labels: np.ndarray) -> Float[np.ndarray, " C"]:
    """Accuracy in percent on each class; NaN for one that is not tested."""
    right = np.argmax(logits, axis=1) == labels
    classes = logits.shape[1]
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    return np.where(counts > 0, 100 * hits / np.maximum(counts, 1), np.nan)


def own_mix_bias(
    logits: Float[np.ndarray, "H C"],
    labels: Int[np.ndarray, " H"],
    images: Float[np.ndarray, " C"],
) -> Float[np.ndarray, " C"]:
    """What makes logits those of photographs of a client's own mix of classes: log mix / t.

    One photograph is spread over all classes. Softmax(t logits + log mix) is likeliest of a grid on held-out
    photographs, which are of this mix.

    Args:
      logits: of H held-out photographs.
      labels: theirs.
      images: of each class, that the client has.
    """
    mix = np.log((images + _ONE_IMAGE / images.size) / (images.sum() + _ONE_IMAGE))
    logits = stacked.centred(np.asarray(logits, np.float64))
    scale = logits.std() if logits.size else 0.0
    if not scale > 0:
        return mix / _USUAL_TEMPERATURE
    return mix / min(_TEMPERATURES / scale, key=lambda t: _loss(t * logits + mix, labels))


def believable(logits_of: Callable[[float], Float[np.ndarray, "H C"]], labels: Int[np.ndarray, " H"]) -> float:
    """How much of a head that noise may have spoilt to take, in [0, 1], by held-out photographs; without any, all.

    Args:
      logits_of: the share -> logits of H held-out photographs.
      labels: theirs.
    """
    if not len(labels):
        return 1.0

    def loss(share: float) -> float:
        logits = stacked.centred(np.asarray(logits_of(share), np.float64))
        scale = logits.std() or 1.0
        return min(_loss(t * logits, labels) for t in _TEMPERATURES / scale)

    return min(_SHARES, key=loss)


def _loss(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean cross-entropy."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))
