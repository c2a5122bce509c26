"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow through `tfds.data_source`.

TFDS's splits are not the ones that papers use (CoOp's), and every result on them says so.
"""

from typing import Any

from craft_jax.data.fewshot import FewShotSet, Labelled, readable
from craft_jax.data.photographs import PhotographRecord
from craft_jax.errors import UserError


def load(name: str, data_dir: str) -> FewShotSet:
    """The `train`, `test` and, where there is one, `validation` split of a prepared TFDS image classification set.

    Args:
      name: as in `tfds.builder(name)`, for example caltech101 or eurosat/rgb.
      data_dir: folder that TFDS prepared it in; empty for TFDS's own default.

    Raises:
      UserError: where the set is unknown, not prepared, not in a random-access format, or has no labelled images.
    """
    builder = _builder(name, data_dir)
    features = builder.info.features
    if "image" not in features or "label" not in features:
        raise UserError(f"data.name={name!r}: a set with the features image and label is needed, not {list(features)}")
    return FewShotSet(
        class_names=tuple(readable(class_name) for class_name in features["label"].names),
        train=_read(builder, "train", name),
        val=_read(builder, "validation", name) if "validation" in builder.info.splits else (),
        test=_read(builder, "test", name),
        split=f"TFDS split of {builder.info.full_name}",
    )


def _builder(name: str, data_dir: str) -> Any:
    # Imported here: it takes seconds, and most runs read no TFDS set.
    import tensorflow_datasets as tfds

    prepare = (
        f"prepare it once where TensorFlow is installed (pip install 'craft_jax[tensorflow]'): python -c \"import "
        f"tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{data_dir or '~/tensorflow_datasets'}', "
        f"file_format='array_record').download_and_prepare()\""
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UserError(f"data.name={name!r} is no data set that TFDS knows; check the spelling") from error
    except (ValueError, AssertionError) as error:
        raise UserError(f"data.name={name!r}: {str(error).splitlines()[0]}; {prepare}") from error
    if not builder.is_prepared():
        raise UserError(f"data.name={name!r} is not prepared as array_record in {builder.data_dir}; {prepare}")
    return builder


def _read(builder: Any, part: str, name: str) -> tuple[Labelled, ...]:
    import tensorflow_datasets as tfds

    if part not in builder.info.splits:
        raise UserError(f"data.name={name!r} has no {part} split, only {list(builder.info.splits)}; use a CoOp split")
    labels = builder.as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})
    source = builder.as_data_source(part)
    return tuple(
        Labelled(PhotographRecord(source, i, f"{name}:{part}"), int(labels[i]["label"])) for i in range(len(source))
    )
