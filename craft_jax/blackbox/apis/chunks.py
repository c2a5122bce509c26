"""Many texts in chunks that a request takes, tied together by reference texts that all chunks share.

Softmax removes a constant from each chunk of an image; the references' answers, asked in each, say which.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_REFERENCES = 4  # texts in every chunk, or fewer where a request takes few


class Plan(NamedTuple):
    """Chunks of T texts, as their places; with more than one, each begins with the same `references` of them."""

    chunks: tuple[tuple[int, ...], ...]
    references: int

    def of(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts of each chunk."""
        return [[texts[place] for place in chunk] for chunk in self.chunks]


def plan(texts: int, most: int) -> Plan:
    """Chunks of at most `most` texts, 0 for no limit; the references are spread evenly over all.

    The texts of a chunk are neighbours, so that a list may be ordered by what should be asked together.
    """
    if not most or texts <= most:
        return Plan((tuple(range(texts)),), 0)
    references = max(1, min(_REFERENCES, most // 4))
    spread = np.linspace(0, texts - 1, references + 2)[1:-1].round().astype(int).tolist()
    others = [place for place in range(texts) if place not in spread]
    count = -(-len(others) // max(most - references, 1))
    parts = np.array_split(np.asarray(others), count)
    return Plan(tuple((*spread, *part.tolist()) for part in parts), references)


def tie(
    how: Plan, logits: Sequence[Float[np.ndarray, "N _"]], weights: Sequence[Float[np.ndarray, "N _"]]
) -> Float[np.ndarray, "N T"]:
    """The logits of all texts on one scale.

    Args:
      how: the plan that the chunks follow.
      logits: of each chunk, up to a constant a row.
      weights: of each logit, its inverse variance: what is rounded to nothing says little of the constant.
    """
    count = 1 + max(max(chunk) for chunk in how.chunks)
    total = np.zeros((len(logits[0]), count))
    weight = np.zeros_like(total)
    first, first_weight = logits[0][:, : how.references], weights[0][:, : how.references]
    for chunk, values, certain in zip(how.chunks, logits, weights, strict=True):
        places = list(chunk)
        if how.references:
            shared, its = values[:, : how.references], certain[:, : how.references]
            trust = first_weight * its / (first_weight + its)
            values = values - ((shared - first) * trust).sum(-1, keepdims=True) / trust.sum(-1, keepdims=True)
        total[:, places] += certain * values
        weight[:, places] += certain
    return total / weight
