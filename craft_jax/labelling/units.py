"""What is labelled in one piece: a shard, or some files of a folder that the plan in the output lists.

A unit and the name of its part follow from the sources and the plan alone, so that whoever does a unit again, after a
kill or beside one that was thought dead, writes the same file in the place of the other.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs, parquet

from craft_jax import folders
from craft_jax.data import tree
from craft_jax.errors import UserError, first_line
from craft_jax.files import replacing, shown

IMAGES_A_UNIT = 1024  # files of a folder
IMAGES, PARQUET, TAR = "images", "parquet", "tar"
_SHARDS = {".parquet": PARQUET, ".tar": TAR, ".tar.gz": TAR, ".tgz": TAR}
_PLANNED = pa.schema([("source", pa.string()), ("key", pa.string())])


class Unit(NamedTuple):
    """A piece of work.

    Attributes:
      part: name of the file that its labels are written to.
      kind: IMAGES, PARQUET or TAR.
      root: the source, as it was given: a path or a URL.
      path: of the shard, as the root's file system has it; of the plan's file for IMAGES.
      group: of the plan's file: the row group that lists the images.
    """

    part: str
    kind: str
    root: str
    path: str
    group: int = 0


class Found(NamedTuple):
    """What a source holds: keys of image files, paths below a folder; shards, each a path and its bytes."""

    root: str
    images: list[str]
    shards: list[tuple[str, int]]


def opened(root: str) -> tuple[fs.FileSystem, str]:
    """The file system of a source, and the source's path in it; raises UserError where it has none that is known."""
    if "://" not in root:
        return fs.LocalFileSystem(), root
    user, at, _ = root.partition("://")[2].partition("/")[0].rpartition("@")
    if at and ":" in user:  # it would go into the plan
        raise UserError("a source's URL has a key in it; give the key as its store has it, such as AWS_ACCESS_KEY_ID")
    try:
        return fs.FileSystem.from_uri(root)
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise UserError(f"{root}: cannot be opened ({first_line(error)}); check the address and the access") from error


def find(source: str) -> Found:
    """The images and shards of a source: a folder, a shard, or the URL of one.

    Raises:
      UserError: where it is not there, is something else, or holds neither.
    """
    root = source if "://" in source else str(folders.expanded(source, "SOURCE").absolute())
    _check_text(root)
    system, path = opened(root)
    try:
        about = system.get_file_info(path)
        if about.type == fs.FileType.NotFound:
            raise UserError(f"{source}: no such file or folder; check the path")
        if about.type == fs.FileType.File:
            if _shard(path) is None:
                raise UserError(
                    f"{source}: --engine=ray labels folders and shards ({', '.join(_SHARDS)}); give the image's "
                    "folder, or label it without --engine"
                )
            return Found(root, [], [(path, about.size)])
        images, shards = [], []
        for below, size in _below(system, path):
            if _shard(below):
                shards.append((below, size))
            else:
                images.append(str(PurePosixPath(below).relative_to(path)))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: cannot be listed ({first_line(error)}); check the address and access") from error
    if not images and not shards:
        raise UserError(f"{source}: holds no image and no shard ({', '.join(_SHARDS)}); check the path")
    return Found(root, sorted(images), sorted(shards))


def _below(system: fs.FileSystem, path: str) -> Iterator[tuple[str, int]]:
    """The shards and images below a folder, but for hidden ones, with their bytes."""
    if isinstance(system, fs.LocalFileSystem):
        for file in tree.shown_below(Path(path)):
            if not (_shard(file.name) or tree.is_image(file) or tree.is_unread(file)):
                continue
            _check_text(str(file))
            yield str(file), file.stat().st_size if _shard(file.name) else 0
        return
    for about in system.get_file_info(fs.FileSelector(path, recursive=True)):
        hidden = any(map(tree.is_hidden, PurePosixPath(about.path).relative_to(path).parts))
        if about.type == fs.FileType.File and not hidden and (_shard(about.path) or tree.is_named_image(about.path)):
            yield about.path, about.size


def _check_text(path: str) -> None:
    """Raises UserError for a name that no column of Parquet holds."""
    if shown(path) != path:
        raise UserError(f"{shown(path)}: this name is not UTF-8 text, which Parquet wants; rename it")


def _shard(path: str) -> str | None:
    """What kind of shard a file is, by its name."""
    return next((kind for suffix, kind in _SHARDS.items() if path.lower().endswith(suffix)), None)


def plan(found: Sequence[Found], folder: Path) -> list[Unit]:
    """The units of sources; image files that no earlier plan lists are added to the plans in `folder`.

    Returns:
      The images' units of all plans, and those of the shards.
    """
    images = ((each.root, key) for each in found for key in each.images)
    _add_to_plans(images, folder)
    units = []
    for path in _plans(folder):
        groups = _listed(path).num_row_groups
        units += [Unit(f"{path.stem}-{i:06d}.parquet", IMAGES, "", str(path), i) for i in range(groups)]
    return units + [_shard_unit(each.root, *shard) for each in found for shard in each.shards]


def _plans(folder: Path) -> list[Path]:
    return sorted(folder.glob("images-*.parquet"))


def _listed(path: Path) -> parquet.ParquetFile:
    """A plan's file; raises UserError where it is damaged."""
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged; name a new --output") from error


def _add_to_plans(images: Iterable[tuple[str, str]], folder: Path) -> None:
    plans = _plans(folder)
    listed = {pair for path in plans for pair in zip(*_listed(path).read().to_pydict().values(), strict=True)}
    fresh = [pair for pair in dict.fromkeys(images) if pair not in listed]
    if not fresh:
        return
    table = pa.Table.from_arrays([pa.array(column) for column in zip(*fresh, strict=True)], schema=_PLANNED)
    with replacing(folder / f"images-{len(plans):04d}.parquet") as partial:
        parquet.write_table(table, partial, row_group_size=IMAGES_A_UNIT)


def _shard_unit(root: str, path: str, size: int) -> Unit:
    """The part is called after the shard's address and its bytes: a shard that changed is not taken for itself."""
    address = hashlib.sha256(named(root, path).encode()).hexdigest()[:24]
    return Unit(f"shard-{address}-{size}.parquet", str(_shard(path)), root, path)


def missing(units: Sequence[Unit], parts: Iterable[str]) -> list[Unit]:
    """The units that have no part yet.

    Raises:
      UserError: naming a shard that has other bytes than when it was labelled.
    """
    there = set(parts)
    addresses = {part.rpartition("-")[0] for part in there if part.startswith("shard-")}
    waiting = [unit for part, unit in {unit.part: unit for unit in units}.items() if part not in there]
    for unit in waiting:
        if unit.kind != IMAGES and unit.part.rpartition("-")[0] in addresses:
            raise UserError(
                f"{named(unit.root, unit.path)}: has changed since it was labelled; give another --output, or a new "
                "name to the new shard"
            )
    return waiting


def named(root: str, path: str) -> str:
    """A shard as messages and the column `source` call it: its path, or its URL without what asks for access."""
    scheme, separator, _ = root.partition("://")
    return f"{scheme}://{path.lstrip('/') if scheme != 'file' else path}" if separator else path


def without_query(root: str) -> str:
    """A source as the column `source` calls it: its path, or its URL without what a store is asked by."""
    return root.partition("?")[0] if "://" in root else root
