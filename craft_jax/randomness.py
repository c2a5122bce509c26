"""Typed randomness: one seed, and a named stream for every use of it.

No key is carried or used twice: each is derived where it is needed, so that a resumed run draws what an uninterrupted
one would have drawn.
"""

import enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax


class Stream(enum.IntEnum):
    """What a random number is for. The values are part of a run's identity: never renumber them."""

    PROJECTION = 0
    DIRECTIONS = 1
    TRAIN_VIEWS = 2
    BATCHES = 3
    HEAD_INIT = 4
    AUGMENTATION = 5
    QUERY_IMAGES = 6
    CALIBRATION = 7
    HELD_OUT = 8
    WORDS = 9
    PIECES = 10
    CLIENTS = 11
    PUBLIC = 12
    NOISE = 13
    LANGUAGE = 14


def stream_key(seed: int, stream: Stream) -> "jax.Array":
    """The typed JAX key of `stream` in a run seeded with `seed`; fold the step in to use it."""
    # Imported here, so that those who read settings and images do not wait for it.
    import jax

    return jax.random.fold_in(jax.random.key(seed), stream)


def host_generator(seed: int, stream: Stream, *counters: int) -> np.random.Generator:
    """A NumPy generator for one use of `stream` on the host, for example one view of one image."""
    return np.random.default_rng((seed, stream, *counters))
