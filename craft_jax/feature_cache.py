"""Encoded images between runs: a folder of npz files named by content, safe to delete and to share between processes.

A file appears whole or not at all, and one that cannot be read counts as absent.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from craft_jax.atomic import replacing


def default_folder() -> Path:
    """Where encoded images are kept: craft_jax/features in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "craft_jax" / "features"


def read(path: Path, like: Any) -> Any | None:
    """The handle in `path`, in NumPy, of the structure, shapes and dtypes of `like`; None where there is none such."""
    leaves, structure = jax.tree.flatten(like)
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            found = [file[str(i)] for i in range(len(leaves))]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(found, leaves, strict=True)):
        return None
    return jax.tree.unflatten(structure, found)


def write(path: Path, handle: Any) -> None:
    """Keeps a handle; a cache that cannot be written is no reason to stop a run."""
    try:
        arrays: dict[str, Any] = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(handle))}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            np.savez(partial, **arrays)
    except OSError:
        return
