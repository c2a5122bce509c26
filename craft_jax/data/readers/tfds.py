"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow through `tfds.data_source`.

TFDS's splits are not the ones that papers use (CoOp's), and every result on them says so; where the records name their
files, they can be joined to a split file of CoOp's instead.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from craft_jax.data.class_names import distinct_names, readable
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.data.images import ImageRecord
from craft_jax.data.readers import coop
from craft_jax.errors import UserError, first_line, needed
from craft_jax.files import shown

_FORMATS = ("array_record", "parquet")  # those that TFDS can read record by record
_FILE_IDS = ("image/file_name", "file_name", "filename", "id")


class _Record(NamedTuple):
    """A record's photograph, class, part and, where the set names it, file."""

    image: ImageRecord
    label: int
    class_name: str
    part: str
    file: str


def load(name: str, data_dir: str) -> FewShotSet:
    """The `train`, `test` and, where there is one, `validation` split of a prepared TFDS image classification set.

    Args:
      name: as in `tfds.builder(name)`, for example caltech101, eurosat/rgb or food101:2.1.0.
      data_dir: folder that TFDS prepared it in; empty for TFDS's own default.

    Raises:
      UserError: where the set is unknown, not prepared, not in a random-access format, or has no labelled images, or
        where two classes read the same.
    """
    builder = _builder(name, data_dir)
    names = distinct_names([_class_name(found) for found in _label_names(builder, name)], f"data.tfds={name!r}")
    if re.fullmatch(r"n\d{8}", names[0]):
        raise UserError(
            f"data.tfds={name!r} names its classes by WordNet ids, which no prompt can read; use data.source=imagenet"
        )
    for part in ("train", "test"):
        if part not in builder.info.splits:
            raise UserError(
                f"data.tfds={name!r} has no {part} split, only {', '.join(builder.info.splits)}; set data.split to a "
                "split file in CoOp's form"
            )
    train, val, test = (
        tuple(Labelled(record.image, record.label) for record in _records(builder, part, name))
        for part in ("train", "validation", "test")
    )
    return FewShotSet(names, train, val, test, split=f"TFDS split of {builder.info.full_name}")


def load_joined(name: str, data_dir: str, split_file: Path) -> FewShotSet:
    """A prepared TFDS set under a split in CoOp's form: labels and names are the file's, images the records'.

    Raises:
      UserError: as `load` does; where the file is missing or malformed; or where its images are not found among the
        records by their files' names.
    """
    parts, names = coop.read_split(split_file)
    builder = _builder(name, data_dir)
    records = [record for part in builder.info.splits for record in _records(builder, part, name)]
    if not any(record.file for record in records):
        raise UserError(
            f"data.tfds={name!r} does not say which file a record came from, so it cannot follow {split_file}; leave "
            "data.split empty for TFDS's own split"
        )
    listed = [path for rows in parts.values() for path, _, _ in rows]
    best = 0
    for path_key, record_key in _KEYS:
        found = _unique({}, ((record_key(record), record) for record in records))
        matched = [path for path in listed if path_key(path) in found]
        if len(matched) == len(listed) == len({path_key(path) for path in listed}):
            train, val, test = (
                tuple(Labelled(found[path_key(path)].image, label) for path, label, _ in parts[part])
                for part in ("train", "val", "test")
            )
            split = f"{shown(split_file.stem)}, joined to TFDS's {builder.info.full_name}"
            return FewShotSet(names, train, val, test, split=split)
        best = max(best, len(matched))
    raise UserError(
        f"{split_file}: {best} of its {len(listed)} images are found in data.tfds={name!r} by their files' names; give "
        "the split file of this set, or leave data.split empty for TFDS's own split"
    )


def _stem(path: str) -> str:
    return str(PurePosixPath(path.strip("/").lower()).with_suffix(""))


def _last(path: str) -> str:
    return PurePosixPath(_stem(path)).name


def _last_two(path: str) -> str:
    return "/".join(PurePosixPath(_stem(path)).parts[-2:])


def _part_and_file(path: str) -> str:
    file = PurePosixPath(_stem(path))
    return f"{file.parent.name.rpartition('_')[2]}/{file.name}"


# How a listed path and a record may name the same image: the path as it is; class and file name; the file name alone;
# part and file name, as in Stanford Cars' cars_train/00001.jpg. Case and suffix do not matter.
_KEYS: tuple[tuple[Callable[[str], str], Callable[[_Record], str]], ...] = (
    (_stem, lambda record: _stem(record.file)),
    (_last_two, lambda record: f"{record.class_name.lower()}/{_last(record.file)}"),
    (_last, lambda record: _last(record.file)),
    (_part_and_file, lambda record: f"{record.part}/{_last(record.file)}"),
)


def _unique(found: dict[str, _Record], keyed: Any) -> dict[str, _Record]:
    """The records by key, without those that share one."""
    twice = set()
    for key, record in keyed:
        if key in found:
            twice.add(key)
        found[key] = record
    return {key: record for key, record in found.items() if key not in twice}


def _class_name(name: str) -> str:
    """SUN397's names are paths, /a/apse/indoor, and are read from their end as CoOp does; others are words."""
    return readable(" ".join(name.split("/")[:1:-1]) if name.startswith("/") else name)


def _label_names(builder: Any, name: str) -> list[str]:
    features = builder.info.features
    if "image" not in features or "label" not in features:
        raise UserError(f"data.tfds={name!r}: a set with the features image and label is needed, not {list(features)}")
    return list(features["label"].names)


def _builder(name: str, data_dir: str) -> Any:
    # Imported here: it takes seconds, and most runs read no TFDS set.
    with needed("tensorflow-datasets", "data.source=tfds"):
        import tensorflow_datasets as tfds

    prepare = (
        f"prepare it once where TensorFlow is installed (pip install 'craft_jax[tensorflow]'): python -c \"import "
        f"tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{data_dir or '~/tensorflow_datasets'}', "
        f"file_format='array_record').download_and_prepare()\""
    )
    if not name:
        raise UserError("data.tfds is empty; name the TFDS data set, such as caltech101")
    found = f"is not prepared in {data_dir or 'the data_dir of TFDS'}"
    for file_format in _FORMATS:
        try:
            builder = tfds.builder(name, data_dir=data_dir or None, file_format=file_format)
        except tfds.core.registered.DatasetNotFoundError as error:
            raise UserError(f"data.tfds={name!r} is no data set that TFDS knows; check the spelling") from error
        except (ValueError, AssertionError) as error:  # prepared in another format
            found = f"cannot be read record by record ({first_line(error)})"
            continue
        if builder.is_prepared():
            return builder
    raise UserError(f"data.tfds={name!r} {found}; {prepare}")


def _records(builder: Any, part: str, name: str) -> list[_Record]:
    import tensorflow_datasets as tfds

    if part not in builder.info.splits:
        return []
    about = builder.as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})
    source = builder.as_data_source(part)
    file_id = next((feature for feature in _FILE_IDS if feature in builder.info.features), None)
    classes = _label_names(builder, name)
    records = []
    for i in range(len(source)):
        record = about[i]
        label, file = int(record["label"]), _text(record[file_id]) if file_id else ""
        records.append(_Record(ImageRecord(source, i, f"{name}:{part}"), label, classes[label], part, file))
    return records


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
