"""The first thing that a run asks: the class names and blindly drawn words, once, about every training image.

From the answers the head in closed form (`method.stacked`), and what it says of every view, which later prompts are
fitted to. Kept beside the checkpoints, so that a run that resumes asks nothing twice.
"""

import dataclasses
import functools
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from craft_jax.blackbox import Described, Handle, Ledger, Metered, captions, is_remote, prompts_for
from craft_jax.files import replacing
from craft_jax.method import StackedHead, stacked
from craft_jax.randomness import Stream, host_generator

FILE = "probes.npz"
_WORDS = Path(__file__).parent.parent / "assets" / "words.txt"
_FIRST_ROUND = 128  # texts asked before the rank of what comes back is looked at; each round doubles them
_ENOUGH = 2  # texts for each independent number that comes back


class Probed(NamedTuple):
    """What the probes have found.

    Attributes:
      texts: T captions, those of the C classes first.
      head: on the answers to them.
      target: its logits for every view, less their mean over classes; float32.
    """

    texts: tuple[str, ...]
    head: StackedHead
    target: Float[np.ndarray, "V N C"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked about.

    Attributes:
      views: handle of the training images, leaves [V, N, ...].
      labels: of the N images.
      labelled_views: how many of the V views show their image's class.
      held_out: handle of images that are not trained on; None where there are none.
      held_out_labels: theirs.
      content: tells the images and their views from others.
    """

    views: Handle
    labels: Int[np.ndarray, " N"]
    labelled_views: int
    held_out: Handle | None
    held_out_labels: Int[np.ndarray, " H"]
    content: str


def vocabulary(class_names: Sequence[str]) -> list[str]:
    """The words to draw from, without those that are class names."""
    taken = {name.lower() for name in class_names}
    return [word for word in _WORDS.read_text(encoding="utf-8").split() if word not in taken]


def probe(
    black_box: Metered,
    about: Asked,
    *,
    texts: int,
    seed: int,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Probed:
    """Asks, within the budget, and fits the head.

    Args:
      black_box: that takes texts, behind its meter.
      about: the images.
      texts: asked at most, the class names among them.
      seed: of the words.
      keep: file of what was found before under the same circumstances, or will be; what is in it is not asked again,
        and booked as it was.
      say: is told of a file that is damaged.

    Raises:
      UserError: where a caption does not fit, or an answer is not finite.
    """
    key = _key(black_box, about, texts, seed)
    classes = len(black_box.class_names)
    found = _read(keep, key, jax.tree.leaves(about.views)[0].shape[0], say) if keep else None
    if found:
        black_box.meter.admit(_cost(0, len(found.texts), classes, about))
        return found
    budget, spent = black_box.meter.budget, black_box.meter.ledger.prompts
    room = None if budget is None else budget - spent
    listed = to_ask(black_box, texts, room, seed)
    answers, of = _ask(black_box, about, listed)
    probed = _fit(about, answers, of, tuple(listed[: answers.training.shape[-1]]))
    if keep:
        _write(keep, key, probed)
    return probed


def to_ask(black_box: Described, texts: int, room: int | None, seed: int) -> list[str]:
    """The captions of the classes and of words, `texts` at most and what `room` prompts pay for."""
    classes = len(black_box.class_names)
    most = texts if room is None else min(texts, classes * room)
    words = vocabulary(black_box.class_names)
    order = host_generator(seed, Stream.WORDS).permutation(len(words))
    listed = [*black_box.class_names, *(words[i] for i in order)]
    return captions(black_box, listed[: max(most, classes)])


class _Answers(NamedTuple):
    """Logits of every view, and of held-out images, for the texts so far."""

    training: Float[np.ndarray, "V N T"]
    held_out: Float[np.ndarray, "H T"]


def _ask(black_box: Metered, about: Asked, listed: Sequence[str]) -> tuple[_Answers, stacked.Statistics]:
    """Rounds of texts, until they are twice the rank of what came back or all that are listed."""
    classes, done = len(black_box.class_names), 0
    rounds: list[_Answers] = []
    while True:
        wanted = len(listed) if is_remote(black_box.identity) else max(2 * done, _FIRST_ROUND, classes)
        part = listed[done : min(wanted, len(listed))]
        cost = _cost(done, done + len(part), classes, about)
        of_held_out = Ledger(evaluation_predictions=cost.evaluation_predictions)
        training = _about(black_box, about.views, part, cost - of_held_out)
        held_out = np.zeros((0, len(part)), np.float32)
        if about.held_out is not None:
            held_out = black_box.predict_texts_in_parts(part, about.held_out, cost=of_held_out)
        rounds.append(_Answers(training, held_out))
        done += len(part)
        answers = _Answers(*(np.concatenate(parts, axis=-1) for parts in zip(*rounds, strict=True)))
        of = _statistics(about, answers, classes)
        if done >= len(listed) or done >= _ENOUGH * stacked.rank(of):
            return answers, of


def _cost(before: int, after: int, classes: int, about: Asked) -> Ledger:
    """Of the texts from the one count to the other, about views and held-out images."""
    views, images = jax.tree.leaves(about.views)[0].shape[:2]
    prompts = prompts_for(after, classes) - prompts_for(before, classes)
    return Ledger(
        prompts=prompts,
        texts=after - before,
        probe_predictions=prompts * views * images,
        evaluation_predictions=prompts * len(about.held_out_labels),
    )


def _about(black_box: Metered, views: Handle, texts: Sequence[str], cost: Ledger) -> Float[np.ndarray, "V N T"]:
    """The answers about every view."""
    shape = jax.tree.leaves(views)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), views)
    return black_box.predict_texts_in_parts(texts, flat, cost=cost).reshape(*shape, len(texts))


def _statistics(about: Asked, answers: _Answers, classes: int) -> stacked.Statistics:
    """Of the labelled views, a view at a time, which bounds memory."""
    views = (stacked.statistics(view, about.labels, classes) for view in answers.training[: about.labelled_views])
    return functools.reduce(stacked.add, views)


def _fit(about: Asked, answers: _Answers, of: stacked.Statistics, texts: tuple[str, ...]) -> Probed:
    shots = len(about.labels) / len(of.counts)
    head = stacked.fit(of, shots, answers.held_out, about.held_out_labels)
    logits = np.stack([stacked.apply(head, view) for view in answers.training])
    return Probed(texts, head, stacked.centred(logits).astype(np.float32))


def _key(black_box: Described, about: Asked, texts: int, seed: int) -> str:
    """Of everything that the answers depend on."""
    parts = (black_box.identity, black_box.class_names, about.content, about.labelled_views, texts, seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _read(path: Path, key: str, views: int, say: Callable[[str], None]) -> Probed | None:
    """What a file holds; None where there is none, it is damaged, or it was found under other circumstances."""
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            if str(file["key"]) != key or len(file["target"]) != views:
                return None
            head = StackedHead(file["weights"], file["bias"])
            return Probed(tuple(map(str, file["texts"])), head, file["target"])
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        say(f"{path} is damaged; asking its texts again")
        return None


def _write(path: Path, key: str, probed: Probed) -> None:
    with replacing(path) as partial:
        np.savez(
            partial,
            key=np.asarray(key),
            texts=np.asarray(probed.texts),
            weights=probed.head.weights,
            bias=probed.head.bias,
            target=probed.target,
        )
