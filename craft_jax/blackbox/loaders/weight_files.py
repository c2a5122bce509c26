"""A model's weights as its files hold them: safetensors, msgpack or pytorch_model.bin, in one file or in shards."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from craft_jax.blackbox.loaders import torch_archive
from craft_jax.errors import UserError, first_line


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors.flax import load_file  # not safetensors.numpy, which lacked bfloat16 for long

    return {name: np.asarray(value) for name, value in load_file(file).items()}


def _msgpack(file: Path) -> dict[str, np.ndarray]:
    from flax import serialization

    return dict(_flat(serialization.msgpack_restore(file.read_bytes())))


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "model.safetensors": _safetensors,
    "flax_model.msgpack": _msgpack,
    "pytorch_model.bin": torch_archive.read,
}
_INDEX = ".index.json"

NAMES = tuple(name + suffix for name in _READERS for suffix in ("", _INDEX))
"""Files that weights are read from; the first that is there counts. An index names the shards beside it."""


def find(folder: Path) -> Path:
    """The file of a folder that its weights are read from.

    Raises:
      UserError: where there is none.
    """
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no weights; it must hold one of {', '.join(NAMES)}")


def shards(file: Path) -> list[str]:
    """Names of the files that hold the weights: the file itself, or those that an index names.

    Raises:
      UserError: where an index is damaged or leads out of its folder.
    """
    if not file.name.endswith(_INDEX):
        return [file.name]
    try:
        names = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not readable as an index of weights ({error}); bring the file anew") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{file}: names shards outside its folder; bring the file anew")
    return names


def read(file: Path) -> dict[str, np.ndarray]:
    """Weights by their names, levels joined by dots, in the file's own dtype.

    Args:
      file: as `find` gives it.

    Raises:
      UserError: naming the file that is damaged or absent.
    """
    reader = _READERS[file.name.removesuffix(_INDEX)]
    found: dict[str, np.ndarray] = {}
    for name in shards(file):
        shard = file.parent / name
        if not shard.is_file():
            raise UserError(f"{file}: names the shard {name}, which is not beside it; bring it")
        try:
            found |= reader(shard)
        except UserError:
            raise
        except Exception as error:  # safetensors and msgpack raise their own kinds
            raise UserError(f"{shard}: could not be read ({first_line(error)}); bring the file anew") from error
    return found


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", np.asarray(value)
