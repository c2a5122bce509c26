"""Photographs through the black box's image side, once: a handle then answers any number of queries.

Training images are encoded in V random views, so that a step draws views instead of re-encoding (the views do not
depend on the prompt).
"""

from collections.abc import Sequence

import jax

from craft_jax.blackbox.meter import Ledger, Meter
from craft_jax.blackbox.wall import BlackBox, Handle, join_handles, stack_handles
from craft_jax.data import pixels
from craft_jax.data.photographs import Photograph

ENCODE_BATCH = 256


def training_views(
    black_box: BlackBox, photographs: Sequence[Photograph], *, views: int, seed: int, meter: Meter
) -> Handle:
    """The handle of V random views of N photographs, leaves [V, N, ...]; 0 views give the centre crop, V = 1.

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """
    if views == 0:
        return stack_handles([centre_crops(black_box, photographs, meter)])
    return stack_handles(
        [
            _encode(black_box, photographs, [pixels.view_crop(seed, view, i) for i in range(len(photographs))], meter)
            for view in range(views)
        ]
    )


def centre_crops(black_box: BlackBox, photographs: Sequence[Photograph], meter: Meter) -> Handle:
    """The handle of N photographs as they are tested: the centre crop."""
    return _encode(black_box, photographs, [pixels.centre_crop] * len(photographs), meter)


def _encode(
    black_box: BlackBox, photographs: Sequence[Photograph], crops: Sequence[pixels.Crop], meter: Meter
) -> Handle:
    """The handle of N photographs, each under its crop.

    Raises:
      UserError: naming the photograph, where one cannot be read.
    """
    meter.admit(Ledger(images_encoded=len(photographs)))
    batch = min(ENCODE_BATCH, len(photographs))
    squares = pixels.batches(photographs, crops, black_box.image_size, batch)
    joined = join_handles([black_box.encode_images(images) for images in squares])
    return jax.tree.map(lambda leaf: leaf[: len(photographs)], joined)
