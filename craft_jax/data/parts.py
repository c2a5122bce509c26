"""The usual names of a split's parts."""

PARTS = ("train", "val", "test")

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing", "tests", "eval", "evaluation"),
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
