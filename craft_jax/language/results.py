"""What is made of the wordings that were asked: the best alone, their convex combination, and a head on all as probes.

Each is texts and a head on the answers to them, as a tuned model holds, so that checkpoints and prediction know it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import Ledger, Metered, prompts_for
from craft_jax.language import ask_tell, combination, search
from craft_jax.language.search import Board, Shown
from craft_jax.language.wordings import Wording, captions
from craft_jax.method import StackedHead, stacked

BEST, COMBINED, PROBES = "best wording", "wordings combined", "probes + head"
_TOLD = 12  # wordings that the report names


class Found(NamedTuple):
    """What a search has found.

    Attributes:
      heads: by name, texts to ask of an image and the head on their answers.
      target: logits of the head on all texts for every view, less their mean over classes.
      told: for the report, as JSON knows it.
    """

    heads: dict[str, tuple[tuple[str, ...], StackedHead]]
    target: Float[np.ndarray, "V N C"]
    told: dict[str, Any]


def of_board(board: Board, black_box: Metered, shown: Shown, *, texts: int) -> Found:
    """The three, from the answers on the board; the head asks held-out images its texts, and nothing else is asked.

    Args:
      board: with one wording at least.
      black_box: that was asked.
      shown: the photographs.
      texts: of the head at most, or as many as there are classes.
    """
    scored = board.state.scored
    order = ask_tell.ranked(board.state)
    best = order[0].wording
    answers = np.ascontiguousarray(np.stack([board.logits(one.wording).T for one in scored], axis=1))
    losses = np.array([one.loss for one in scored])
    weights = combination.weights(answers, losses, board.shots, board.images, board.scale)
    del answers
    shares = weights.mean(axis=0)
    used = np.argsort(-shares, kind="stable")[: int(np.sum(shares > 0))]
    probes, target = _probes(board, black_box, shown, [one.wording for one in order], texts)
    heads = {
        BEST: (tuple(captions(best, board.class_names)), _plain(len(board.class_names))),
        COMBINED: mixed([scored[k].wording for k in used], weights[:, used], board.class_names),
        PROBES: probes,
    }
    named = [
        {"wording": str(scored[k].wording), "loss": scored[k].loss, "weight": float(shares[k])} for k in used[:_TOLD]
    ]
    told = {
        "best": {"wording": str(best), "loss": order[0].loss, "captions": captions(best, board.class_names)[:3]},
        "start": {"wording": str(scored[0].wording), "loss": scored[0].loss},
        "combined": named,
        "left_out": len(used) - len(named),
        "wordings": len(scored),
        "calls": board.state.calls,
        "notes": list(board.state.notes),
    }
    if best.details:
        pairs = zip(board.class_names, best.details, strict=True)
        told["details"] = {name: detail for name, detail in pairs if detail}
    return Found(heads, target, told)


def mixed(
    wordings: Sequence[Wording], weights: Float[np.ndarray, "C K"], class_names: Sequence[str]
) -> tuple[tuple[str, ...], StackedHead]:
    """Texts and the head that makes of their answers each class's weighted sum of its captions' answers, exactly.

    A head answers f + F W + b, where f is of the first wording and F of all texts less their mean: W holds the weights,
    less one for f itself; its columns sum to zero, so that the mean falls out. Captions of weight 0 are not asked.
    """
    texts = {text: place for place, text in enumerate(dict.fromkeys(captions(wordings[0], class_names)))}
    assert len(texts) == len(class_names)
    matrix = {(text, label): -1.0 for label, text in enumerate(texts)}
    for k, wording in enumerate(wordings):
        for label, text in enumerate(captions(wording, class_names)):
            if weights[label, k] > 0:
                texts.setdefault(text, len(texts))
                matrix[text, label] = matrix.get((text, label), 0.0) + weights[label, k]
    array = np.zeros((len(texts), len(class_names)), np.float32)
    for (text, label), weight in matrix.items():
        array[texts[text], label] = weight
    return tuple(texts), StackedHead(array, np.zeros(len(class_names), np.float32))


def _plain(classes: int) -> StackedHead:
    """The head that changes nothing, on the captions of the classes alone."""
    return StackedHead(np.zeros((classes, classes), np.float32), np.zeros(classes, np.float32))


def _probes(
    board: Board, black_box: Metered, shown: Shown, wordings: Sequence[Wording], most: int
) -> tuple[tuple[tuple[str, ...], StackedHead], Float[np.ndarray, "V N C"]]:
    """The head in closed form on the texts of the wordings, those of the first as its plain logits."""
    classes, (views, images) = len(board.class_names), shown.shape
    listed = list(dict.fromkeys(text for wording in wordings for text in captions(wording, board.class_names)))
    texts = listed[: max(most, classes)]
    answers = np.stack([board.answers[text] for text in texts], axis=-1)
    held_out = np.zeros((0, len(texts)), np.float32)
    if shown.held_out is not None:
        count = len(shown.held_out_labels)
        cost = Ledger(evaluation_predictions=prompts_for(len(texts), classes) * count)
        held_out = search.answers_about(black_box, shown.held_out, texts, cost)
    of = stacked.statistics(answers, board.shots.labels, classes)
    head = stacked.fit(of, images / classes, held_out, shown.held_out_labels)
    logits = stacked.centred(stacked.apply(head, answers)).astype(np.float32)
    return (tuple(texts), head), logits.reshape(views, images, classes)
