"""What a reader of results should know of a whole set, whichever way it was read; and photographs that leak."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from craft_jax.data.class_names import name_notes
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageFile
from craft_jax.errors import UserError
from craft_jax.files import shown


def told(whole: FewShotSet) -> FewShotSet:
    """The set, with notes on class names, on classes that a part lacks, and on photographs that two parts share.

    Raises:
      UserError: where there is one class alone, or one file is in two parts or two classes, by two spellings of its
        path or by a link.
    """
    if len(whole.class_names) < 2:
        raise UserError(f"one class only, {whole.class_names[0]!r}; at least two are needed")
    parts = {"train": whole.train, "val": whole.val, "test": whole.test}
    twice = (*_repeated(parts), *_shared(parts))
    lacking = [*_without(whole, whole.test, "test"), *(_without(whole, whole.val, "validation") if whole.val else ())]
    return dataclasses.replace(whole, notes=(*whole.notes, *name_notes(whole.class_names), *lacking, *twice))


def once(items: Iterable[Labelled], where: Path) -> None:
    """Raises UserError where two of the items are one file, by two spellings of its path or by a link."""
    seen: dict[tuple[int, int], list[Path]] = {}
    for path in _paths(items):
        for other in _met(path, seen):
            raise UserError(f"{shown(where)}: {shown(other)} and {shown(path)} are one photograph; keep one of them")


def _without(whole: FewShotSet, part: tuple[Labelled, ...], called: str) -> tuple[str, ...]:
    there = {item.label for item in part}
    names = [repr(name) for label, name in enumerate(whole.class_names) if label not in there]
    if not names:
        return ()
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    what = "class has" if len(names) == 1 else "classes have"
    return (f"{len(names)} {what} no {called} photograph: {', '.join(names[:5])}{more}",)


def _repeated(parts: dict[str, tuple[Labelled, ...]]) -> tuple[str, ...]:
    """Files that stand twice in one part; raises UserError where one is in two parts, or has two labels."""
    by_file: dict[tuple[int, int], list[Path]] = {}
    place: dict[Path, tuple[str, int]] = {}
    repeated: list[Path] = []
    for part, items in parts.items():
        for path, label in _files(items):
            for other in _met(path, by_file):
                there, before = place[other]
                if there != part:
                    raise UserError(
                        f"{shown(path)} in {part} is the photograph {shown(other)} in {there}; keep it in one"
                    )
                if before != label:
                    raise UserError(
                        f"{shown(path)} in {part} is of label {label}, and {shown(other)}, the same photograph, "
                        f"of label {before}; give it one"
                    )
                repeated.append(path)
            place[path] = part, label
    if not repeated:
        return ()
    what = "photograph stands" if len(set(repeated)) == 1 else "photographs stand"
    return (f"{len(set(repeated))} {what} more than once in one part, such as {shown(repeated[0])}",)


def _shared(parts: dict[str, tuple[Labelled, ...]]) -> tuple[str, ...]:
    """Files of the same bytes in two parts; sizes are compared first."""
    by_size: dict[int, dict[str, list[Path]]] = {}
    for part, items in parts.items():
        for path in _paths(items):
            by_size.setdefault(_size(path), {}).setdefault(part, []).append(path)
    pairs = [pair for size, found in by_size.items() if size > 0 and len(found) > 1 for pair in _same_bytes(found)]
    if not pairs:
        return ()
    one, other = pairs[0]
    what = "photograph of one part has" if len(pairs) == 1 else "photographs of one part have"
    return (
        f"{len(pairs)} {what} the same bytes as one of another part, such as {shown(other)} and {shown(one)}; "
        "what is trained on is no test",
    )


def _same_bytes(found: dict[str, list[Path]]) -> Iterator[tuple[Path, Path]]:
    first: dict[str, tuple[str, Path]] = {}
    for part, paths in found.items():
        for path in paths:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            there, other = first.setdefault(digest, (part, path))
            if there != part:
                yield other, path


def _paths(items: Iterable[Labelled]) -> Iterator[Path]:
    return (path for path, _ in _files(items))


def _files(items: Iterable[Labelled]) -> Iterator[tuple[Path, int]]:
    """Paths and labels of those items that are files."""
    return ((item.image.path, item.label) for item in items if isinstance(item.image, ImageFile))


def _met(path: Path, seen: dict[tuple[int, int], list[Path]]) -> list[Path]:
    """The paths met before that lead to the same file; a hard link is a file of its own with the same bytes."""
    try:
        about = path.stat()
    except OSError:
        return []
    others = seen.setdefault((about.st_dev, about.st_ino), [])
    same = [other for other in others if os.path.realpath(other) == os.path.realpath(path)]
    others.append(path)
    return same


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if os.access(path, os.R_OK) else 0
    except OSError:
        return 0
