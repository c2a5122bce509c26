"""Ask and tell over texts: a proposer is asked for wordings, given those that are scored, and their scores come back.

The state is plain data, and the fold of `tell` over the rounds so far: a run that resumes has it from what it kept.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.language.wordings import Wording


class Scored(NamedTuple):
    """A wording and its cross-entropy on the shots."""

    wording: Wording
    loss: float


class State(NamedTuple):
    """What a proposer is shown.

    Attributes:
      round: how many proposals were told.
      scored: K wordings in the order in which they were asked.
      by_class: [C, K], the loss of the best wording with class c's caption taken from wording k; infinite where the two
        have different templates.
      confused: pairs of class names, an image's and the one that the best wording takes it for, most frequent first.
      calls: of a language model so far.
      notes: what was wrong with its replies.
    """

    round: int = 0
    scored: tuple[Scored, ...] = ()
    by_class: Float[np.ndarray, "C K"] = np.zeros((0, 0))
    confused: tuple[tuple[str, str], ...] = ()
    calls: int = 0
    notes: tuple[str, ...] = ()


class Proposal(NamedTuple):
    """What a proposer answers.

    Attributes:
      wordings: to ask; none where it knows no more.
      calls: of a language model that it took.
      notes: what was wrong with replies.
    """

    wordings: tuple[Wording, ...]
    calls: int = 0
    notes: tuple[str, ...] = ()


Ask = Callable[[State], Proposal]
"""A proposer: pure but for the language model, whose replies are kept."""


def tell(
    state: State,
    proposal: Proposal,
    losses: Sequence[float],
    by_class: Float[np.ndarray, "C K"],
    confused: Sequence[tuple[str, str]],
) -> State:
    """The state with a proposal's wordings scored; `by_class` and `confused` are of all wordings so far."""
    new = [Scored(*pair) for pair in zip(proposal.wordings, map(float, losses), strict=True)]
    return State(
        round=state.round + 1,
        scored=(*state.scored, *new),
        by_class=by_class,
        confused=tuple(confused),
        calls=state.calls + proposal.calls,
        notes=(*state.notes, *proposal.notes),
    )


def ranked(state: State) -> list[Scored]:
    """The scored wordings, best first."""
    return sorted(state.scored, key=lambda scored: scored.loss)


def best(state: State) -> Wording:
    """The wording of the lowest loss."""
    return ranked(state)[0].wording


def unseen(state: State, wordings: Sequence[Wording]) -> tuple[Wording, ...]:
    """Those that were neither scored nor come twice, letter case and a full stop aside."""
    seen = {_key(scored.wording) for scored in state.scored}
    kept = []
    for wording in wordings:
        if _key(wording) not in seen:
            seen.add(_key(wording))
            kept.append(wording)
    return tuple(kept)


def _key(wording: Wording) -> tuple[str, ...]:
    details = wording.details if any(wording.details) else ()
    return tuple(" ".join(text.lower().rstrip(" .").split()) for text in (wording.template, *details))
