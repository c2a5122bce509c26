"""The images of a unit, a chunk at a time: Parquet's rows, a tar file's members (WebDataset), a plan's files.

Content alone is read here; it is decoded while the model works.
"""

import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from craft_jax.data import ImageBytes, LazyImage, tree
from craft_jax.errors import UserError, first_line
from craft_jax.files import shown
from craft_jax.labelling import units
from craft_jax.labelling.units import Unit

_AT_ONCE = 16  # files opened together: an object store answers each after a while


class Columns(NamedTuple):
    """Of Parquet's rows: the images, bytes or Hugging Face's struct of bytes and path; a key, or "" for row numbers."""

    image: str
    key: str


class Item(NamedTuple):
    """An image with what tells it from all others: its source (a folder or shard) and its key there."""

    source: str
    key: str
    image: LazyImage


class Unread(NamedTuple):
    """An image whose content is not there."""

    name: str
    reason: str

    def open(self) -> Image.Image:
        """Raises UserError, always."""
        self._refuse()

    def fingerprint(self) -> str:
        """Raises UserError, always."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self.name}: {self.reason}")


def chunks(unit: Unit, columns: Columns, size: int) -> Iterator[list[Item]]:
    """The unit's images, `size` at a time; the next chunk is read while the caller works on one.

    Raises:
      UserError: where the shard cannot be read, or has no such column.
    """
    items = {units.IMAGES: _of_plan, units.TAR: _of_tar, units.PARQUET: _of_parquet}[unit.kind]
    with ThreadPoolExecutor(1) as reader:
        found = items(unit, columns, size)
        ahead = reader.submit(next, found, None)
        while chunk := ahead.result():
            ahead = reader.submit(next, found, None)
            yield chunk


def _of_plan(unit: Unit, _: Columns, size: int) -> Iterator[list[Item]]:
    listed = parquet.ParquetFile(unit.path).read_row_group(unit.group).to_pylist()
    systems = {root: units.opened(root) for root in {row["source"] for row in listed}}

    def read(row: dict[str, str]) -> Item:
        system, path = systems[row["source"]]
        name = units.named(row["source"], f"{path.rstrip('/')}/{row['key']}")
        return Item(units.without_query(row["source"]), row["key"], _content(system, f"{path}/{row['key']}", name))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for first in range(0, len(listed), size):
            yield list(pool.map(read, listed[first : first + size]))


def _content(system: Any, path: str, name: str) -> LazyImage:
    try:
        with system.open_input_stream(path) as stream:
            return ImageBytes(stream.read(), name)
    except FileNotFoundError:
        return Unread(name, "no such image; check the path")
    except (pa.ArrowException, OSError) as error:
        return Unread(name, f"cannot be read ({first_line(error)})")


class _Member(tarfile.TarInfo):
    """A member whose header is whole: `tarfile` takes a damaged one, or none, for the archive's end, without a word."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """The member of a header; raises ReadError where that is neither one nor the mark of the archive's end."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"{error} in the place of a member or of the end") from error


def _of_tar(unit: Unit, _: Columns, size: int) -> Iterator[list[Item]]:
    """The members that are images, by their names; labels and captions beside them are passed over."""
    source, chunk = units.named(unit.root, unit.path), []
    system, _path = units.opened(unit.root)
    try:
        with (
            system.open_input_stream(unit.path, compression=None) as stream,
            tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive,
        ):
            for member in archive:
                hidden = any(map(tree.is_hidden, Path(member.name).parts))
                if not member.isfile() or hidden or not tree.is_named_image(member.name):
                    continue
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                key = shown(member.name)  # Parquet takes no name that is not text
                chunk.append(Item(source, key, ImageBytes(content.read(), f"{source}/{key}")))
                if len(chunk) == size:
                    yield chunk
                    chunk = []
    except (tarfile.TarError, zlib.error, EOFError, pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: cannot be read as a tar file ({error}); make the shard anew") from error
    if chunk:
        yield chunk


def _of_parquet(unit: Unit, columns: Columns, size: int) -> Iterator[list[Item]]:
    source = units.named(unit.root, unit.path)
    system, _ = units.opened(unit.root)
    row = 0
    try:
        with system.open_input_file(unit.path) as stream, parquet.ParquetFile(stream) as file:
            _check(file.schema_arrow, columns, source)
            wanted = [columns.image, *([columns.key] if columns.key else [])]
            for batch in file.iter_batches(batch_size=size, columns=wanted):
                images = batch.column(columns.image).to_pylist()
                keys = batch.column(columns.key).to_pylist() if columns.key else range(row, row + len(images))
                row += len(images)
                yield [_item(source, str(key), image) for key, image in zip(keys, images, strict=True)]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: cannot be read as Parquet ({error}); make the shard anew") from error


def _item(source: str, key: str, image: Any) -> Item:
    content = image["bytes"] if isinstance(image, dict) else image
    name = f"{source}[{key}]"
    return Item(source, key, Unread(name, "holds no image") if content is None else ImageBytes(content, name))


def _check(schema: pa.Schema, columns: Columns, source: str) -> None:
    """Raises UserError where there are no such columns, or the images are no bytes."""
    for flag, name in (("image_column", columns.image), ("key_column", columns.key)):
        if name and name not in schema.names:
            raise UserError(f"--{flag}={name}: {source} has no such column; it has {', '.join(schema.names)}")
    kind = schema.field(columns.image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UserError(
            f"--image_column={columns.image}: {source} holds {kind} there; name the column with the images' bytes"
        )
