"""Few-shot sets: where images come from, how shots are drawn, how pixels are prepared."""

from craft_jax.data.arrays import from_arrays
from craft_jax.data.fewshot import FewShotSet, Labelled, draw_shots
from craft_jax.data.photographs import Photograph, PhotographFile
from craft_jax.data.sources import draw, load, read

__all__ = [
    "FewShotSet",
    "Labelled",
    "Photograph",
    "PhotographFile",
    "draw",
    "draw_shots",
    "from_arrays",
    "load",
    "read",
]
