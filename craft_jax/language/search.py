"""The search: proposals are asked of the black box within the budget, scored on the shots, and told, round after round.

What a round asked and found is kept until the search is over: a run that is killed goes on from there.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from craft_jax.blackbox import (
    CeilingReached,
    Described,
    Handle,
    Ledger,
    Metered,
    is_remote,
    prompts_for,
)
from craft_jax.language import ask_tell, scoring
from craft_jax.language.ask_tell import Ask, Proposal, State
from craft_jax.language.kept import Kept, Round
from craft_jax.language.wordings import Wording, captions

_SHOWN = 60  # characters of a template in a note
_LEAST_GAIN = 1.0  # nats over all images, beyond what the best of so many captions gains by chance


class Shown(NamedTuple):
    """The photographs that wordings are judged on.

    Attributes:
      views: handle, leaves [V, N, ...].
      labels: of the N images.
      held_out: handle of images that are not trained on; None where there are none.
      held_out_labels: theirs.
      content: tells the images and their views from others.
    """

    views: Handle
    labels: Int[np.ndarray, " N"]
    held_out: Handle | None
    held_out_labels: Int[np.ndarray, " H"]
    content: str

    @property
    def shape(self) -> tuple[int, int]:
        """V and N."""
        views, images = jax.tree.leaves(self.views)[0].shape[:2]
        return views, images


class Board:
    """All that was asked so far: the answers of M = V N rows by text, and the wordings' scores.

    Args:
      black_box: that takes texts.
      shown: the photographs.
      first: the wording that a search begins with.
      mixed: whether captions of a class may come from several wordings, which descriptions allow.
      seed: of the folds.
    """

    def __init__(self, black_box: Described, shown: Shown, first: Wording, mixed: bool, seed: int) -> None:
        views, images = shown.shape
        self.class_names = black_box.class_names
        self.shots = scoring.shots_of(np.tile(shown.labels, views), np.tile(np.arange(images), views), seed)
        self.images, self.first, self._mixed = images, first, mixed
        self.answers: dict[str, Float[np.ndarray, " M"]] = {}
        self.state = State()
        self.scale = 1.0

    def logits(self, wording: Wording) -> Float[np.ndarray, "M C"]:
        """Of a wording whose captions were asked."""
        return np.stack([self.answers[text] for text in captions(wording, self.class_names)], axis=-1)

    def new_texts(self, wording: Wording) -> list[str]:
        """Its captions that were not asked yet."""
        return [text for text in dict.fromkeys(captions(wording, self.class_names)) if text not in self.answers]

    def tell(self, one: Round) -> None:
        """Takes a round in: scores its wordings, and with them the mixture of captions that they suggest."""
        self.answers.update(zip(one.texts, one.answers.T, strict=True))
        if not self.state.scored:
            self.scale = scoring.temperature(self.logits(self.first), self.shots.labels)
        state = self._told(self.state, one.proposal)
        if self._mixed and self.shots.folds.any():
            mixture = ask_tell.unseen(state, [self._mixture(state)])
            state = self._told(self.state, one.proposal._replace(wordings=(*one.proposal.wordings, *mixture)))
        self.state = state

    def _told(self, state: State, proposal: Proposal) -> State:
        losses = [scoring.loss(self.logits(wording), self.shots, self.scale) for wording in proposal.wordings]
        scored = ask_tell.tell(state, proposal, losses, state.by_class, state.confused)
        if not proposal.wordings:
            return scored
        logits, labels = self.logits(ask_tell.best(scored)), self.shots.labels
        confused = tuple(scoring.confused(logits, labels, self.class_names))
        return scored._replace(confused=confused, by_class=self._by_class(scored, logits))

    def _by_class(self, state: State, logits: Float[np.ndarray, "M C"]) -> Float[np.ndarray, "C K"]:
        """See `State.by_class`."""
        if not self._mixed:
            return state.by_class
        template = ask_tell.best(state).template
        alike = [k for k, scored in enumerate(state.scored) if scored.wording.template == template]
        others = np.stack([self.logits(state.scored[k].wording) for k in alike])
        found = np.full((len(self.class_names), len(state.scored)), np.inf)
        found[:, alike] = scoring.by_class(logits, others, self.shots.labels, self.scale)
        return found

    def _mixture(self, state: State) -> Wording:
        """The best wording, with the captions of others for the classes that they serve clearly better.

        Not where shots are too few to hold out any: there each class is one image or two, which any phrase may fit.
        """
        start = ask_tell.best(state)
        own = scoring.cross_entropies(self.scale * self.logits(start), self.shots.labels).mean()
        details = list(start.details or ("",) * len(self.class_names))
        for label, losses in enumerate(state.by_class):
            other = int(np.argmin(losses))
            if (own - losses[other]) * self.images > np.log(np.isfinite(losses).sum()) + _LEAST_GAIN:
                its = state.scored[other].wording.details
                details[label] = its[label] if its else ""
        return Wording(start.template, tuple(details))


def run(
    black_box: Metered,
    shown: Shown,
    board: Board,
    *,
    pool: Sequence[Wording],
    ask: Ask,
    spent: Callable[[], Ledger],
    wordings: int,
    kept: Kept,
    say: Callable[[str], None],
) -> None:
    """Fills the board: the pool first, then what the proposer is asked for, until texts or proposals run out.

    Args:
      black_box: that takes texts.
      shown: the photographs.
      board: empty.
      pool: wordings to begin with.
      ask: the proposer.
      spent: what a language model took so far, which a round adds to the ledger.
      wordings: sets of captions at most.
      kept: earlier rounds, which are booked and not asked again.
      say: is told of each round.

    Raises:
      UserError: where a caption does not fit, an answer is not finite, or a language model does not answer.
    """
    classes = len(board.class_names)
    meter = black_box.meter
    room = wordings if meter.budget is None else min(wordings, meter.budget - meter.ledger.prompts)
    rounds = kept.rounds()
    for one in rounds:
        meter.admit(one.cost)
        board.tell(one)
    number = len(rounds)
    while len(board.answers) < room * classes:
        before = spent()
        try:
            proposal = ask(board.state) if number else Proposal(tuple(pool))
        except CeilingReached as error:
            board.state = board.state._replace(notes=(*board.state.notes, f"no more was proposed: {error}"))
            return
        proposal = _fitting(black_box, proposal, board.class_names)
        admitted, texts = _admitted(board, proposal, room * classes)
        if not admitted and not proposal.calls:
            return
        cost = _cost(board, shown, texts) + _of_chat(spent() - before, proposal)
        answers = _answers(black_box, shown, texts, cost)
        one = Round(proposal._replace(wordings=admitted), cost, tuple(texts), answers)
        kept.add(number, one)
        board.tell(one)
        say(_line(board.state))
        number += 1


def _line(state: State) -> str:
    """How far it is."""
    best = ask_tell.ranked(state)[0]
    calls = f", {state.calls} calls" if state.calls else ""
    return f"{len(state.scored)} wordings{calls}, the best so far, loss {best.loss:.4f}: {best.wording}"


def _fitting(black_box: Metered, proposal: Proposal, class_names: Sequence[str]) -> Proposal:
    """The wordings whose captions the model takes, with a note of the others."""
    taken, notes = [], list(proposal.notes)
    for wording in proposal.wordings:
        if all(black_box.fits(text) for text in captions(wording, class_names)):
            taken.append(wording)
        else:
            notes.append(f"{ascii(wording.template[:_SHOWN])}: a caption of it has more tokens than the model takes")
    return proposal._replace(wordings=tuple(taken), notes=tuple(notes))


def _admitted(board: Board, proposal: Proposal, most: int) -> tuple[tuple[Wording, ...], list[str]]:
    """The proposed wordings that `most` texts in all pay for, and what of them is to be asked."""
    admitted: list[Wording] = []
    texts: list[str] = []
    for wording in proposal.wordings:
        new = [text for text in board.new_texts(wording) if text not in texts]
        if len(board.answers) + len(texts) + len(new) > most:
            break
        admitted.append(wording)
        texts += new
    return tuple(admitted), texts


def _cost(board: Board, shown: Shown, texts: Sequence[str]) -> Ledger:
    views, images = shown.shape
    classes, before = len(board.class_names), len(board.answers)
    prompts = prompts_for(before + len(texts), classes) - prompts_for(before, classes)
    return Ledger(prompts=prompts, texts=len(texts), probe_predictions=prompts * views * images)


def _of_chat(sent: Ledger, proposal: Proposal) -> Ledger:
    return Ledger(proposal_calls=proposal.calls, proposal_tokens=sent.tokens, proposal_money=sent.money)


def _answers(black_box: Metered, shown: Shown, texts: Sequence[str], cost: Ledger) -> Float[np.ndarray, "M T"]:
    """Of all rows, view after view."""
    views, images = shown.shape
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), shown.views)
    if not texts:
        black_box.meter.admit(cost)  # of a language model alone
        return np.zeros((views * images, 0), np.float32)
    return answers_about(black_box, rows, texts, cost)


def answers_about(black_box: Metered, handle: Handle, texts: Sequence[str], cost: Ledger) -> Float[np.ndarray, "M T"]:
    """Of M images, comparable over questions, and booked first.

    A remote black box may answer up to a constant an image, another one each time. So it is asked the classes' usual
    captions each time too, and their mean is taken off.
    """
    template = black_box.identity["template"]
    usual = captions(Wording(template), black_box.class_names) if is_remote(black_box.identity) else []
    asked = list(dict.fromkeys([*usual, *texts]))
    answers = black_box.predict_texts_in_parts(asked, handle, cost=cost)
    if usual:
        answers = answers - answers[:, : len(set(usual))].mean(axis=1, keepdims=True)
    places = {text: place for place, text in enumerate(asked)}
    return answers[:, [places[text] for text in texts]]
