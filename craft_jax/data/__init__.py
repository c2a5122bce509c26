"""Few-shot sets: where images come from, how shots are drawn, how pixels are prepared.

`readers/` has a file for each layout on disk, `fewshot` draws shots, `images` decodes, `pixels` crops and augments.
Nothing here knows a model.
"""

from craft_jax.data import pixels, sources, tree
from craft_jax.data.arrays import as_images, from_arrays
from craft_jax.data.fewshot import FewShotSet, Labelled, draw_shots
from craft_jax.data.held_out import hold_out, notes_of
from craft_jax.data.images import ImageBytes, ImageFile, LazyImage
from craft_jax.data.readable import check_readable
from craft_jax.data.readers import folder, imagenet
from craft_jax.data.readers.imagenet import SHIFTS
from craft_jax.data.sources import draw, load, read

__all__ = [
    "FewShotSet",
    "Labelled",
    "LazyImage",
    "ImageBytes",
    "ImageFile",
    "SHIFTS",
    "check_readable",
    "draw",
    "draw_shots",
    "folder",
    "from_arrays",
    "hold_out",
    "imagenet",
    "load",
    "notes_of",
    "as_images",
    "pixels",
    "read",
    "sources",
    "tree",
]
