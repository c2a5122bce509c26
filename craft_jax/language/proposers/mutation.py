"""Wordings without a language model: words and phrases added, deleted, replaced and crossed over; the best are parents.

After ProAPO (Qu et al., CVPR 2025), with a library of our own; random words as in WaffleCLIP (Roth et al., ICCV 2023).
"""

from collections.abc import Callable, Sequence

import numpy as np

from craft_jax.language.ask_tell import Ask, Proposal, State, best, ranked, unseen
from craft_jax.language.proposers import library
from craft_jax.language.wordings import PLACE, Wording
from craft_jax.randomness import Stream, host_generator

PARENTS = 4
_TRIES = 20  # drawings for each wording that is wanted, before fewer will do
_MOST_WORDS = 15  # of a template
_RANDOM_WORDS = 0.3  # share of words that come from the vocabulary, in the place of the library


def pool(first: Wording, count: int, what: str, class_names: Sequence[str], seed: int) -> tuple[Wording, ...]:
    """What a search begins with.

    Args:
      first: the black box's own template, which is the first of them.
      count: wordings in all.
      what: `templates`, `descriptions` or `both`.
      class_names: C names.
      seed: of the draw.
    """
    rng = host_generator(seed, Stream.LANGUAGE, 0)
    vocabulary = library.words(class_names)

    def one() -> Wording:
        if what == "descriptions":
            return Wording(first.template, tuple(library.phrase(rng, vocabulary) for _ in class_names))
        if rng.random() < 0.5:
            return Wording(library.TEMPLATES[rng.integers(len(library.TEMPLATES))])
        return Wording(library.template(rng))

    return (first, *_distinct(one, State(), [first], count - 1))


def build(*, count: int, what: str, class_names: Sequence[str], seed: int) -> Ask:
    """The proposer; arguments as of `pool`, `count` of one round."""
    vocabulary = library.words(class_names)

    def ask(state: State) -> Proposal:
        rng = host_generator(seed, Stream.LANGUAGE, state.round)
        if turn(what, state.round) == "templates":
            return Proposal(_distinct(lambda: _template_child(rng, state, vocabulary), state, [], count))
        return Proposal(_distinct(lambda: _details_child(rng, state, class_names, vocabulary), state, [], count))

    return ask


def turn(what: str, round: int) -> str:
    """What a round proposes: of `both`, templates in odd rounds and descriptions in even ones."""
    if what == "both":
        return "templates" if round % 2 else "descriptions"
    return what


def _distinct(draw: Callable[[], Wording], state: State, known: Sequence[Wording], count: int) -> tuple[Wording, ...]:
    """`count` new wordings, or fewer where drawing brings up no more."""
    found = list(known)
    for _ in range(_TRIES * max(count, 1)):
        if len(found) == len(known) + count:
            break
        found = list(unseen(state, [*found, draw()]))
    return tuple(found[len(known) :])


def _template_child(rng: np.random.Generator, state: State, vocabulary: Sequence[str]) -> Wording:
    parents = [scored.wording for scored in ranked(state)[:PARENTS]]
    parent, other = (parents[rng.integers(len(parents))] for _ in range(2))
    change = (_add, _delete, _replace)[rng.integers(3)]
    crossed = rng.random() < 0.25 and other != parent
    text = (
        _joined(_words(_cross(parent.template, other.template)))
        if crossed
        else change(rng, parent.template, vocabulary)
    )
    return Wording(text, parent.details)


def _add(rng: np.random.Generator, template: str, vocabulary: Sequence[str]) -> str:
    words = _words(template)
    if rng.random() < 0.3:
        return _joined([*words, _of(rng, [part for part in library.AFTER if part])])
    place = rng.integers(1, len(words) + 1)
    return _joined([*words[:place], _word(rng, vocabulary), *words[place:]])


def _delete(rng: np.random.Generator, template: str, vocabulary: Sequence[str]) -> str:
    words = _words(template)
    others = [place for place, word in enumerate(words) if PLACE not in word]
    if len(others) < 2:
        return _add(rng, template, vocabulary)
    gone = others[rng.integers(len(others))]
    return _joined([word for place, word in enumerate(words) if place != gone])


def _replace(rng: np.random.Generator, template: str, vocabulary: Sequence[str]) -> str:
    words = _words(template)
    if rng.random() < 0.3:
        start = words.index(next(word for word in words if PLACE in word))
        return _joined([_of(rng, library.BEFORE), _of(rng, library.ARTICLES), *words[start:]])
    others = [place for place, word in enumerate(words) if PLACE not in word]
    if not others:
        return _add(rng, template, vocabulary)
    changed = others[rng.integers(len(others))]
    return _joined([_word(rng, vocabulary) if place == changed else word for place, word in enumerate(words)])


def _cross(one: str, other: str) -> str:
    """The one as far as the class's name, the other from there."""
    return one.partition(PLACE)[0] + PLACE + other.partition(PLACE)[2]


def _details_child(
    rng: np.random.Generator, state: State, class_names: Sequence[str], vocabulary: Sequence[str]
) -> Wording:
    """Each class keeps its phrase, takes one that did well for it, or gets a new one."""
    start = best(state)
    details = list(start.details or ("",) * len(class_names))
    for label in range(len(details)):
        drawn = rng.random()
        if drawn < 0.4:
            details[label] = library.phrase(rng, vocabulary)
        elif drawn < 0.7:
            liked = np.argsort(state.by_class[label])[:PARENTS]
            wording = state.scored[liked[rng.integers(len(liked))]].wording
            details[label] = wording.details[label] if wording.details else ""
    return Wording(start.template, tuple(details))


def _words(template: str) -> list[str]:
    return template.rstrip(" .").split()


def _joined(words: Sequence[str]) -> str:
    """A template no longer than is admitted, which keeps its class's name."""
    kept = list(words)
    while len(" ".join(kept).split()) > _MOST_WORDS:
        last = max(place for place, word in enumerate(kept) if PLACE not in word)
        kept.pop(last)
    return " ".join(kept) + "."


def _word(rng: np.random.Generator, vocabulary: Sequence[str]) -> str:
    if rng.random() < _RANDOM_WORDS:
        return _of(rng, vocabulary)
    parts = " ".join((*library.BEFORE, *library.ARTICLES, *library.AFTER, *library.PHRASES)).split()
    return _of(rng, parts)


def _of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
