"""Photographs through the black box's image side, once: a handle then answers any number of queries.

Training images are encoded in V random views, so that a step draws views instead of re-encoding (the views do not
depend on the prompt). What was encoded gathers in the host's memory, since all of it need not fit one device, and is
kept between runs, by content. The images make fixed batches, and devices and hosts take whole ones, so that the bits do
not depend on how many there are.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
import PIL

from craft_jax.blackbox import BlackBox, Described, Handle, Ledger, Metered, is_remote, join_handles
from craft_jax.data import LazyImage, check_readable, pixels
from craft_jax.distributed import devices, hosts
from craft_jax.encoding import feature_cache
from craft_jax.errors import UserError
from craft_jax.progress import EncodingProgress

_IN_FLIGHT = 2  # calls dispatched and not yet fetched, which bounds memory


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Takes photographs to a black box.

    Attributes:
      black_box: whose image side, behind its meter.
      cache: folder of encoded images; None keeps none.
      spread: the devices that share the work. All hosts of it must call the same methods, and get the same handles;
        host 0 alone looks at the cache. None is this process's first device, whatever other hosts do.
      stream: where progress is shown; None shows none.
      opened_first: photographs opened before any image is encoded, so that all unreadable ones are named.
    """

    black_box: Metered
    cache: Path | None = None
    spread: devices.Spread | None = None
    stream: TextIO | None = None
    opened_first: Sequence[LazyImage] = ()

    def training_views(self, images: Sequence[LazyImage], *, views: int, seed: int) -> Handle:
        """The handle of V random views of N photographs, NumPy leaves [V, N, ...]; 0 views give the centre crop, V = 1.

        Raises:
          UserError: naming the photograph, where one cannot be read.
        """
        if views == 0:
            return jax.tree.map(lambda leaf: leaf[None], self.centre_crops(images))
        resizing = self.black_box.resizing
        crops = [[pixels.view_crop(seed, view, i, resizing) for view in range(views)] for i in range(len(images))]
        return self._in_views(images, crops, f"{views} views of seed {seed}")

    def fixed_views(self, images: Sequence[LazyImage], *, views: int, pieces: int, seed: int) -> Handle:
        """The handle of N photographs' centre crop, its mirror image, random views, and random pieces.

        Args:
          images: N of them.
          views: how many of the first three kinds, in this order; V. At least 1.
          pieces: small parts of each, which need not show its class; P.
          seed: of what is random.

        Returns:
          NumPy leaves [V + P, N, ...].

        Raises:
          UserError: naming the photograph, where one cannot be read.
        """
        resizing = self.black_box.resizing
        plain: list[pixels.Crop] = [
            functools.partial(pixels.centre_crop, resizing=resizing),
            functools.partial(pixels.mirrored, resizing=resizing),
        ]
        crops = [
            [*plain, *(pixels.view_crop(seed, view, i, resizing) for view in range(views))][:views]
            + [pixels.piece_crop(seed, piece, i, resizing) for piece in range(pieces)]
            for i in range(len(images))
        ]
        name = f"centre, mirrored, random, {views} in all, and {pieces} pieces of seed {seed}"
        return self._in_views(images, crops, name)

    def centre_crops(self, images: Sequence[LazyImage]) -> Handle:
        """The handle of N photographs as they are tested: the centre crop; NumPy leaves [N, ...].

        Raises:
          UserError: naming the photograph, where one cannot be read.
        """
        crop = functools.partial(pixels.centre_crop, resizing=self.black_box.resizing)
        return self._encode(images, [[crop]] * len(images), "centre crop")

    def _in_views(self, images: Sequence[LazyImage], crops: Sequence[Sequence[pixels.Crop]], crops_name: str) -> Handle:
        """The handle of N photographs, each under V crops of its own; leaves [V, N, ...]."""
        handle = self._encode(images, crops, crops_name)
        return jax.tree.map(lambda leaf: leaf.reshape(len(images), -1, *leaf.shape[1:]).swapaxes(0, 1), handle)

    def _encode(self, images: Sequence[LazyImage], crops: Sequence[Sequence[pixels.Crop]], crops_name: str) -> Handle:
        """The handle of every photograph under each of its crops, photograph after photograph."""
        if not images:
            raise UserError("there are no images to encode; give one at least")
        count = sum(map(len, crops))
        batch = min(batch_size(self.black_box.image_size), count)
        like = self.black_box.handle_of(count)

        key = functools.cache(lambda: _content_key(self.black_box, images, crops_name))
        if self.spread and hosts.several():
            hosts.check_alike("photographs", hosts.together(key), "give every host the same files")

        def entry() -> Path | None:
            return self.cache and self.cache / f"{key()}.npz"

        def kept() -> Handle | None:
            path = entry()
            return path and feature_cache.read(path, like, self._say)

        batches = -(-count // batch)

        def encoding(black_box: BlackBox) -> Callable[[], Handle]:
            def encode(some: range) -> Handle:
                part = _between(images, crops, some.start * batch, some.stop * batch)
                return self._in_batches(black_box, *part, batch, like)

            return lambda: hosts.in_shares(batches, batch, encode) if self.spread else encode(range(batches))

        found = hosts.handle_of_first(kept, like) if self.spread else kept()
        if found is not None:
            return found
        self._open_first()
        padded = self.black_box.program(encoding)(Ledger(images_encoded=count))
        handle = jax.tree.map(lambda leaf: leaf[:count], padded)
        if (not self.spread or hosts.is_first()) and (path := entry()):
            feature_cache.write(path, handle)
        return handle

    def _open_first(self) -> None:
        if not self.opened_first:
            return
        mine = self.opened_first
        if self.spread and hosts.several():
            mine = mine[jax.process_index() :: jax.process_count()]
        with EncodingProgress(len(mine), self.stream, verb="open") as progress:
            if self.spread:
                hosts.together(lambda: check_readable(mine, progress.show))
            else:
                check_readable(mine, progress.show)

    def _say(self, line: str) -> None:
        if self.stream:
            print(line, file=self.stream, flush=True)

    def _in_batches(
        self,
        black_box: BlackBox,
        images: Sequence[LazyImage],
        crops: Sequence[Sequence[pixels.Crop]],
        batch: int,
        like: Handle,
    ) -> Handle:
        """The handle of these images on this host's devices, a batch on each at a time; whole batches of NumPy rows."""
        spread = self.spread or devices.Spread(jax.local_devices()[:1])
        encode = _encoding_on(spread, black_box)
        squares = pixels.batches(images, crops, black_box.image_size, batch)
        count, at_once = sum(map(len, crops)), len(spread.own)
        handles: list[Handle] = []
        with EncodingProgress(count, self.stream) as progress:
            for first in range(0, count, at_once * batch):
                group = list(itertools.islice(squares, at_once))
                group += group[-1:] * (at_once - len(group))
                handles.append(encode(np.stack(group)))
                handles[-_IN_FLIGHT - 1 : -_IN_FLIGHT] = jax.device_get(handles[-_IN_FLIGHT - 1 : -_IN_FLIGHT])
                progress.show(min(count, first + at_once * batch))
        rows = [_rows_of_all_devices(handle) for handle in jax.device_get(handles)]
        none = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), like)
        return jax.tree.map(lambda leaf: leaf[: -(-count // batch) * batch], join_handles([none, *rows]))


def _rows_of_all_devices(handle: Handle) -> Handle:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), handle)


def _encoding_on(spread: devices.Spread, black_box: BlackBox) -> Callable[[np.ndarray], Handle]:
    """From images [devices, batch, size, size, 3] to their handle, [devices, batch, ...]."""
    if is_remote(black_box.identity):  # on one device; sent from here, so that an error stops what follows
        return lambda group: jax.tree.map(lambda leaf: leaf[None], black_box.encode_images(group[0]))
    encode: Callable[..., Handle] = spread.on_own(_encode_images)
    placed = spread.replicate(black_box)
    return lambda group: encode(placed, group)


def _encode_images(black_box: BlackBox, images: Any) -> Handle:
    return black_box.encode_images(images)


def _between(
    images: Sequence[LazyImage], crops: Sequence[Sequence[pixels.Crop]], start: int, stop: int
) -> tuple[list[LazyImage], list[Sequence[pixels.Crop]]]:
    """The photographs and crops of images `start` to `stop` of all, counted photograph after photograph."""
    some_images, some_crops, seen = [], [], 0
    for image, own in zip(images, crops, strict=True):
        inside = own[max(0, start - seen) : max(0, stop - seen)]
        seen += len(own)
        if inside:
            some_images.append(image)
            some_crops.append(inside)
    return some_images, some_crops


def batch_size(image_size: int) -> int:
    """Images encoded at once.

    On a CPU as many as leave a layer's activations in its caches, half again faster; elsewhere as many as have the
    pixels of 256 at CLIP's usual 224 px, which bounds memory.
    """
    if jax.default_backend() == "cpu":
        return 32
    return min(256, max(16, 256 * 224**2 // image_size**2))


def _content_key(black_box: Described, images: Sequence[LazyImage], crops_name: str) -> str:
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
        *([] if black_box.resizing == pixels.USUAL else [str(tuple(black_box.resizing))]),
    ]
    parts += [image.fingerprint() for image in images]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
