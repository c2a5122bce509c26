"""Proposers that ask a language model: ours, and the loop of Liu et al. (CVPR 2024) in our words.

A reply that is of no use costs a call and a note. Messages hold no reply: what comes from outside goes to the black box
as a caption, or nowhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from craft_jax.language.ask_tell import Ask, Proposal, State, best, ranked, unseen
from craft_jax.language.proposers import parsing
from craft_jax.language.proposers.conversation import Reply
from craft_jax.language.proposers.mutation import turn
from craft_jax.language.wordings import Wording

Converse = Callable[[str, Mapping[str, Any], int], Reply]
"""A question, the schema of its reply, and the number of the call."""

_SHOWN = 5  # best and worst templates in a message
_CLASSES_NAMED = 60  # in a message about templates
_CLASSES_ASKED = 8  # in a message about descriptions
_PHRASES = 3  # asked for each of them
_POSITIVE, _NEGATIVE = 3, 3  # of the published loop
_PUBLISHED_WORDS = 15
_TEXTS = {"type": "array", "items": {"type": "string"}}


def build(converse: Converse, *, count: int, what: str, class_names: Sequence[str], calls: int) -> Ask:
    """Asks for `count` templates, or for phrases about the classes that are confused most.

    Args:
      converse: asks the language model.
      count: wordings of one round.
      what: `templates`, `descriptions` or `both`.
      class_names: C names.
      calls: to be made at most.
    """

    def ask(state: State) -> Proposal:
        if state.calls >= calls:
            return Proposal(())
        if turn(what, state.round) == "templates":
            return _templates(converse, _about_templates(state, class_names, count), state, class_names, count)
        return _descriptions(converse, state, class_names, count)

    return ask


def published(converse: Converse, *, class_names: Sequence[str], calls: int) -> Ask:
    """One better template a call, from the 3 best and the 3 worst so far; no class is named, nothing else is told."""

    def ask(state: State) -> Proposal:
        if state.calls >= calls:
            return Proposal(())
        order = [scored.wording.template for scored in ranked(state)]
        question = "\n".join(
            [
                "Captions with {} in the place of a class's name classify images, some better than others.",
                "These do well:",
                *_listed(order[:_POSITIVE]),
                "These do badly:",
                *_listed(order[-_NEGATIVE:]),
                f"Write one caption that does better than all of them, in fewer than {_PUBLISHED_WORDS} words, with "
                "{} for the class, on a line of its own after a dash. Write nothing else.",
            ]
        )
        return _templates(converse, question, state, class_names, 1)

    return ask


def _about_templates(state: State, class_names: Sequence[str], count: int) -> str:
    order = ranked(state)
    lines = [
        "We classify images by a model that compares each with one caption a class. A template makes the captions: "
        "{} stands for the class's name. The lower its loss, the better a template tells the classes apart.",
        f"Classes: {_some(class_names)}.",
        "Best so far, with their losses:",
        *_listed([f"{scored.loss:.4f} {scored.wording.template}" for scored in order[:_SHOWN]]),
        "Worst so far:",
        *_listed([f"{scored.loss:.4f} {scored.wording.template}" for scored in order[_SHOWN:][-_SHOWN:]]),
    ]
    if state.confused:
        lines.append("Confused most: " + "; ".join(f"{one} taken for {other}" for one, other in state.confused) + ".")
    lines += [
        f"Write {count} new templates that do better, unlike one another and unlike those above, in English, of at "
        f"most {parsing.MOST_WORDS} words, each with {{}} once. Do not name a class.",
        'Answer in JSON, {"templates": ["...", "..."]}, or each on a line of its own after a dash. Write nothing else.',
        *_reminder(state),
    ]
    return "\n".join(lines)


def _templates(converse: Converse, question: str, state: State, class_names: Sequence[str], count: int) -> Proposal:
    reply = converse(question, _object(templates=_TEXTS), state.calls)
    number = state.calls + 1
    if reply.wrong:
        return Proposal((), 1, (f"reply {number}: {reply.wrong}",))
    read = parsing.templates(reply.text, class_names)
    details = best(state).details
    found = unseen(state, [Wording(text, details) for text in read.texts])[:count]
    return Proposal(found, 1, _notes(number, read.refused, bool(found)))


def _descriptions(converse: Converse, state: State, class_names: Sequence[str], count: int) -> Proposal:
    start = best(state)
    details = start.details or ("",) * len(class_names)
    asked = _troubled(state, class_names)
    listed = [f"{name} (now: {details[class_names.index(name)] or 'nothing'})" for name in asked]
    confused = [f"{one} taken for {other}" for one, other in state.confused]
    question = "\n".join(
        [
            "We classify images by a model that compares each with one caption a class, such as "
            f'"{start.template.replace("{}", asked[0])}", followed by a phrase of what such a thing looks like.',
            "Write phrases of at most 8 words, in English, that tell these classes from the others by what can be seen "
            "in a small picture. Do not repeat the class's name.",
            "Classes, with the phrase that they have:",
            *_listed(listed),
            *([f"Confused most: {'; '.join(confused)}."] if confused else []),
            f"All classes: {_some(class_names)}.",
            f"Write {_PHRASES} phrases for each class listed, unlike one another and unlike those that they have.",
            'Answer in JSON, {"descriptions": [{"class": "...", "text": "..."}, ...]}, or each on a line of its own as '
            "class: phrase. Write nothing else.",
            *_reminder(state),
        ]
    )
    row = {"class": {"type": "string"}, "text": {"type": "string"}}
    schema = _object(descriptions={"type": "array", "items": _object(**row)})
    reply = converse(question, schema, state.calls)
    number = state.calls + 1
    if reply.wrong:
        return Proposal((), 1, (f"reply {number}: {reply.wrong}",))
    read = parsing.descriptions(reply.text, class_names)
    most = max(map(len, read.phrases.values()), default=0)
    wordings = []
    for place in range(min(most, count)):
        changed = list(details)
        for name, phrases in read.phrases.items():
            if place < len(phrases):
                changed[class_names.index(name)] = phrases[place]
        wordings.append(Wording(start.template, tuple(changed)))
    found = unseen(state, wordings)
    return Proposal(found, 1, _notes(number, read.refused, bool(found)))


def _troubled(state: State, class_names: Sequence[str]) -> list[str]:
    """The classes to ask about: those confused most, filled up by the others in turns."""
    count, start = len(class_names), state.calls * _CLASSES_ASKED
    in_turn = [class_names[(start + i) % count] for i in range(count)]
    named = [name for pair in state.confused[:2] for name in pair]
    return list(dict.fromkeys([*named, *in_turn]))[:_CLASSES_ASKED]


def _notes(number: int, refused: Sequence[str], found: bool) -> tuple[str, ...]:
    notes = tuple(f"reply {number}, {reason}" for reason in refused[:3])
    return notes if found or notes else (f"reply {number}: nothing new",)


def _reminder(state: State) -> list[str]:
    """After a reply of no use, what is wanted; it also makes another question of it."""
    last = f"reply {state.calls}"
    spoilt = any(note.startswith(last) for note in state.notes)
    return [f"Keep to the form (reply {state.calls} did not, or brought nothing new)."] if spoilt else []


def _object(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _listed(texts: Sequence[str]) -> list[str]:
    return [f"- {text}" for text in texts]


def _some(class_names: Sequence[str]) -> str:
    more = len(class_names) - _CLASSES_NAMED
    return ", ".join(class_names[:_CLASSES_NAMED]) + (f", and {more} more" if more > 0 else "")
