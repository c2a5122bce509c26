"""Reads the tensors of a pytorch_model.bin without PyTorch, and without running anything that the file asks for.

The file is a zip of raw storages and one pickle, which may name nothing but tensors, their storages and dictionaries of
them. Source: PyTorch's serialization notes, `torch.save` since version 1.6.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from craft_jax.errors import UserError

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Kind(NamedTuple):
    """What the pickle calls a class of storages; no callable, so that nothing can be made of it."""

    dtype: np.dtype


def read(file: Path) -> dict[str, np.ndarray]:
    """Tensors by their names.

    Raises:
      UserError: where the file is damaged, of PyTorch before 1.6, or names anything but tensors.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            content = _Tensors(archive, listing.removesuffix("data.pkl")).load()
    except _Refused as refused:
        raise UserError(f"{file}: {refused}; {_remedy(file)}") from refused
    except Exception as error:  # a damaged pickle or zip raises any kind
        raise UserError(f"{file}: no whole archive of PyTorch 1.6 or newer ({error}); {_remedy(file)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, np.ndarray) for value in content.values()):
        raise UserError(f"{file}: holds no dictionary of tensors; {_remedy(file)}")
    return {str(name): value for name, value in content.items()}


def _remedy(file: Path) -> str:
    return (
        "bring it anew, or where PyTorch is installed, "
        f"transformers.CLIPModel.from_pretrained({str(file.parent)!r}).save_pretrained(FOLDER) writes model.safetensors"
    )


class _Refused(Exception):
    """What the file asks for that no weights need."""


class _Tensors(pickle.Unpickler):
    """Makes NumPy arrays of an archive's tensors."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(archive.open(prefix + "data.pkl"))
        self._archive, self._prefix = archive, prefix
        self._read: dict[str, np.ndarray] = {}
        order = prefix + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _Refused("its numbers are big-endian, and little-endian ones are read here")

    def find_class(self, module: str, name: str) -> Any:
        """The few things that a pickle of tensors names."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _Kind(np.dtype(_STORAGES[name]))
        if module == "torch._utils" and name in _REBUILD:
            return _REBUILD[name]
        raise _Refused(f"its pickle asks for {module}.{name}, which weights do not need and which is not run here")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """A storage, as a flat array."""
        _, kind, key, _, count = pid
        if key not in self._read:
            values = np.frombuffer(self._archive.read(f"{self._prefix}data/{key}"), kind.dtype)
            if len(values) != count:
                raise _Refused(f"storage {key} holds {len(values)} numbers instead of {count}")
            self._read[key] = values
        return self._read[key]


def _tensor(storage: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> np.ndarray:
    if len(shape) != len(strides) or min([offset, *shape, *strides]) < 0:
        raise _Refused(f"a tensor has the shape {shape}, strides {strides} and offset {offset}")
    if math.prod(shape) == 0:
        return np.zeros(shape, storage.dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= len(storage):
        raise _Refused(f"a tensor reaches number {last} of a storage of {len(storage)}")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


_REBUILD: dict[str, Callable[..., np.ndarray]] = {"_rebuild_tensor_v2": _tensor, "_rebuild_parameter": _parameter}
