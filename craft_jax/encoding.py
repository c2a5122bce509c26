"""Photographs through the black box's image side, once: a handle then answers any number of queries.

Training images are encoded in V random views, so that a step draws views instead of re-encoding (the views do not
depend on the prompt). What was encoded gathers in the host's memory, since all of it need not fit one device, and is
kept between runs, by content.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import PIL

from craft_jax import feature_cache
from craft_jax.blackbox.meter import Ledger, Meter
from craft_jax.blackbox.wall import BlackBox, Handle, join_handles
from craft_jax.data import pixels
from craft_jax.data.photographs import Photograph
from craft_jax.errors import UserError

_IN_FLIGHT = 2  # batches dispatched and not yet encoded, which bounds memory


def training_views(
    black_box: BlackBox,
    photographs: Sequence[Photograph],
    *,
    views: int,
    seed: int,
    meter: Meter,
    cache: Path | None = None,
) -> Handle:
    """The handle of V random views of N photographs, NumPy leaves [V, N, ...]; 0 views give the centre crop, V = 1.

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """
    if views == 0:
        return jax.tree.map(lambda leaf: leaf[None], centre_crops(black_box, photographs, meter, cache))
    crops = [[pixels.view_crop(seed, view, i) for view in range(views)] for i in range(len(photographs))]
    handle = _encode(black_box, photographs, crops, f"{views} views of seed {seed}", meter, cache)
    by_view = jax.tree.map(lambda leaf: leaf.reshape(len(photographs), views, *leaf.shape[1:]), handle)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), by_view)


def centre_crops(
    black_box: BlackBox, photographs: Sequence[Photograph], meter: Meter, cache: Path | None = None
) -> Handle:
    """The handle of N photographs as they are tested: the centre crop; NumPy leaves [N, ...].

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """
    return _encode(black_box, photographs, [[pixels.centre_crop]] * len(photographs), "centre crop", meter, cache)


def _encode(
    black_box: BlackBox,
    photographs: Sequence[Photograph],
    crops: Sequence[Sequence[pixels.Crop]],
    crops_name: str,
    meter: Meter,
    cache: Path | None,
) -> Handle:
    """The handle of every photograph under each of its crops, photograph after photograph."""
    if not photographs:
        raise UserError("there are no images to encode; give one at least")
    images = sum(map(len, crops))
    entry = cache and cache / f"{_content_key(black_box, photographs, crops_name)}.npz"
    like = jax.eval_shape(black_box.encode_images, _blank(black_box, images))
    kept = entry and feature_cache.read(entry, like)
    if kept is not None:
        return kept
    meter.admit(Ledger(images_encoded=images))
    handles: list[Handle] = []
    batch = min(batch_size(black_box.image_size), images)
    for squares in pixels.batches(photographs, crops, black_box.image_size, batch):
        handles.append(black_box.encode_images(squares))
        handles[-_IN_FLIGHT - 1 : -_IN_FLIGHT] = jax.device_get(handles[-_IN_FLIGHT - 1 : -_IN_FLIGHT])
    handle = jax.tree.map(lambda leaf: leaf[:images], join_handles(handles))
    if entry:
        feature_cache.write(entry, handle)
    return handle


def batch_size(image_size: int) -> int:
    """Images encoded at once.

    On a CPU as many as leave a layer's activations in its caches, half again faster; elsewhere as many as have the
    pixels of 256 at CLIP's usual 224 px, which bounds memory.
    """
    if jax.default_backend() == "cpu":
        return 32
    return min(256, max(16, 256 * 224**2 // image_size**2))


def _blank(black_box: BlackBox, images: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((images, black_box.image_size, black_box.image_size, 3), np.uint8)


def _content_key(black_box: BlackBox, photographs: Sequence[Photograph], crops_name: str) -> str:
    """Of everything that an encoded image depends on, down to the platform, whose bits differ in the last place."""
    owner = black_box.identity
    parts = [
        jax.__version__,
        PIL.__version__,
        str(pixels.VERSION),
        jax.default_backend(),
        owner["fingerprint"],
        owner["dtype"],
        str(black_box.image_size),
        str(batch_size(black_box.image_size)),
        crops_name,
    ]
    parts += [photograph.fingerprint() for photograph in photographs]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
