"""What a language model replied, taken for what it is: text from outside. Wordings come out, or why there are none.

A reply may be JSON, lines, both, or neither; what does not fit is left out with a reason, and nothing of it is shown
but a few escaped characters.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from craft_jax.language.wordings import PLACE

MOST_WORDS = 20
_LONGEST = 100  # characters of a template
_LONGEST_PHRASE = 50  # of a phrase: with a template and a class's name it fits the 77 tokens of a CLIP
_LARGEST = 100_000  # characters of a reply that are looked at
_MOST = 200  # texts of a reply that are looked at
_SHOWN = 40
_PLACES = re.compile(
    r"\{\s*\w*\s*\}|<\s*(?:class|name|object|label)[\s_]*(?:name)?\s*>|\[\s*(?:class|name|object)\s*\]", re.I
)
_BULLET = re.compile(r"^\s*(?:[-*+\u2022\u2013\u2014]+|\(?\d{1,3}[.):]|[a-zA-Z]\))\s*")
_MARKUP = re.compile(r"[*_`#~|]+|</?\w{1,20}/?>")
_STRING = re.compile(r'"([^"\\]*)"(\s*:)?')
_QUOTES = "\"'\u201c\u201d\u2018\u2019\u00ab\u00bb"


class Read(NamedTuple):
    """What a reply held: texts that fit, and why others did not."""

    texts: tuple[str, ...]
    refused: tuple[str, ...]


class ReadOfClasses(NamedTuple):
    """The same of phrases by class name."""

    phrases: dict[str, tuple[str, ...]]
    refused: tuple[str, ...]


def templates(reply: str, class_names: Sequence[str]) -> Read:
    """Templates with `{}` for the class, at most `MOST_WORDS` words each."""
    found, refused = [], []
    for text in _texts(reply, "templates"):
        cleaned = _PLACES.sub(PLACE, _cleaned(_PLACES.sub(PLACE, text)))
        wrong = _wrong(cleaned, class_names) or ("" if PLACE in cleaned else "it has no {} for the class")
        if wrong:
            refused.append(f"{_shown(text)}: {wrong}")
        else:
            found.append(_ended(cleaned))
    return _read(found, refused, reply)


def descriptions(reply: str, class_names: Sequence[str]) -> ReadOfClasses:
    """Phrases about classes, each with the class's name before it."""
    by_lower = {name.lower(): name for name in class_names}
    found: dict[str, list[str]] = {}
    refused = []
    for name, text in _pairs(reply):
        known = by_lower.get(_cleaned(name).lower())
        phrase = _cleaned(text).rstrip(" .,;")
        wrong = "" if known else "it names no class that was asked about"
        wrong = (
            wrong
            or _wrong(phrase, class_names, _LONGEST_PHRASE)
            or ("it has braces" if set("{}") & set(phrase) else "")
        )
        if wrong:
            refused.append(f"{_shown(f'{name}: {text}')}: {wrong}")
        elif phrase not in found.setdefault(str(known), []):
            found[str(known)].append(phrase)
    read = _read([phrase for phrases in found.values() for phrase in phrases], refused, reply)
    return ReadOfClasses({name: tuple(phrases) for name, phrases in found.items()}, read.refused)


def _read(found: Sequence[str], refused: Sequence[str], reply: str) -> Read:
    kept = tuple(dict.fromkeys(found))
    if not kept and not refused:
        return Read(
            (), (f"{_shown(reply)}: it is empty" if not reply.strip() else f"{_shown(reply)}: nothing in it fits",)
        )
    return Read(kept, tuple(refused))


def _texts(reply: str, name: str) -> Iterator[str]:
    """The texts of a reply, as it may be."""
    reply = reply[:_LARGEST]
    value = _json(reply)
    if isinstance(value, dict):
        value = value.get(name, next((rows for rows in value.values() if isinstance(rows, list)), list(value.values())))
    if isinstance(value, list):
        yield from [row for row in value[:_MOST] if isinstance(row, str)]
        return
    if reply.lstrip().startswith(("{", "[")):  # JSON that the limit on tokens has cut off
        yield from [text for text, colon in _STRING.findall(reply)[:_MOST] if not colon]
        return
    lines = [line for line in reply.splitlines() if line.strip()]
    marked = [line for line in lines if _BULLET.match(line)] or [line for line in lines if _PLACES.search(line)]
    yield from (_BULLET.sub("", line) for line in (marked or lines)[:_MOST])


def _pairs(reply: str) -> Iterator[tuple[str, str]]:
    """Names and phrases of a reply, as they may be."""
    value = _json(reply[:_LARGEST])
    if isinstance(value, dict):
        value = value.get("descriptions", value)
    if isinstance(value, dict):
        value = [{"class": name, "text": text} for name, text in value.items()]
    if isinstance(value, list):
        for row in value[:_MOST]:
            if isinstance(row, dict) and isinstance(row.get("class"), str):
                text = row.get("text", row.get("description", row.get("phrases")))
                for one in text[:_MOST] if isinstance(text, list) else [text]:
                    if isinstance(one, str):
                        yield row["class"], one
        return
    for line in reply[:_LARGEST].splitlines()[:_MOST]:
        name, colon, text = _BULLET.sub("", line).partition(":")
        if colon and text.strip():
            yield name, text


def _json(reply: str) -> Any:
    """The JSON of a reply, alone, in a fence or after other words; None where there is none."""
    fenced = re.search(r"```(?:json)?\s*(.*?)```", reply, re.S)
    body = (fenced[1] if fenced else reply).strip()
    decoder = json.JSONDecoder()
    for start in [0, *(match.start() for match in list(re.finditer(r"[\[{]\s*[\"\[{]", body))[:3])]:
        try:
            value, _ = decoder.raw_decode(body, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, (dict, list)):
            return value
    return None


def _cleaned(text: str) -> str:
    """On one line, without markup, quotes and what no screen shows."""
    text = unicodedata.normalize("NFKC", text[: 10 * _LONGEST])
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(_MARKUP.sub("", text.replace("\u2019", "'")).split())
    return text.strip(_QUOTES + " ,;:").strip()


def _wrong(text: str, class_names: Sequence[str], longest: int = _LONGEST) -> str:
    """Why a text is not taken; empty where it is."""
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return "it has no words"
    if len(text) > longest or len(text.split()) > MOST_WORDS:
        return f"it has more than {MOST_WORDS} words or {longest} characters"
    if set("{}") & set(text.replace(PLACE, "")):
        return "it has braces that stand for no class"
    usual = set("".join(class_names))
    if not all(character in usual or unicodedata.name(character, "").startswith("LATIN") for character in letters):
        return "it is in letters that the class names do not have"
    return ""


def _ended(template: str) -> str:
    return template.rstrip(" .") + "."


def _shown(text: str) -> str:
    """The beginning of a text, on one line and escaped."""
    text = " ".join(text.split())
    return ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
