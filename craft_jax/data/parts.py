"""The usual names of a split's parts."""

import re

PARTS = ("train", "val", "test")

_SYNONYMS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing", "tests", "eval", "evaluation", "tst"),
}
_BY_NAME = {
    name + ending: part
    for part, names in _SYNONYMS.items()
    for name in names
    for ending in ("", "set", "data", "split", "images")
}


def part_of(name: str) -> str | None:
    """`train`, `val` or `test` for its usual names in any case, such as Training, dev or test_set; else None."""
    return _BY_NAME.get("".join(character for character in name.casefold() if character not in " _-"))


def part_within(name: str) -> str | None:
    """The part that one word of a longer name stands for, as in seg_train, train2017 or Test 1; else None."""
    found = {part_of(word) for word in re.findall(r"[^\W\d_]+", name)} - {None}
    return found.pop() if len(found) == 1 else None
