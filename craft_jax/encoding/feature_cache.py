"""Encoded images between runs: a folder of npz files named by content, safe to delete and to share between processes.

A file appears whole or not at all, and one that does not hold what was written counts as absent.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from craft_jax import folders
from craft_jax.errors import UserError
from craft_jax.files import replacing

_DIGEST = "digest"


def default_folder() -> Path:
    """Where encoded images are kept: craft_jax/features in the user's cache folder."""
    return folders.cache() / "features"


def read(path: Path, like: Any, say: Callable[[str], None] = lambda line: None) -> Any | None:
    """The handle in `path`, in NumPy, of the structure, shapes and dtypes of `like`; None where there is none such.

    Args:
      path: the file.
      like: a pytree of arrays or their shapes.
      say: is told of a file that is there, but damaged.
    """
    leaves, structure = jax.tree.flatten(like)
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            found = [file[str(i)] for i in range(len(leaves))]
            # Files of older versions have no digest, and zip's own checksums alone.
            whole = _DIGEST not in file or str(file[_DIGEST]) == _digest_of(found)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        whole, found = False, []
    if not whole or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(found, leaves, strict=True)):
        say(f"{path}: these encoded images are damaged; encoding them anew")
        return None
    return jax.tree.unflatten(structure, found)


def write(path: Path, handle: Any) -> None:
    """Keeps a handle; a cache that cannot be written is no reason to stop a run."""
    try:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(handle)]
        arrays: dict[str, Any] = {str(i): leaf for i, leaf in enumerate(leaves)}
        arrays[_DIGEST] = np.asarray(_digest_of(leaves))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            np.savez(partial, **arrays)
    except (OSError, UserError):
        return


def _digest_of(leaves: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for leaf in leaves:
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest()
