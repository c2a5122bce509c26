"""A draw of a study's task, encoded once for all that looks at it."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from craft_jax import blackbox
from craft_jax.blackbox import Handle, Metered
from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.config import Config
from craft_jax.data import FewShotSet, hold_out
from craft_jax.encoding import Encoder
from craft_jax.training import probing
from craft_jax.training.probing import Probed


class Images(NamedTuple):
    """Encoded images and their labels; a handle of None where there are none."""

    handle: Handle | None
    labels: Int[np.ndarray, " N"]


class Draw(NamedTuple):
    """Training views, leaves [V, N, ...], with the labels of the N; held-out and test images."""

    black_box: ClipBlackBox
    train: Images
    held_out: Images
    test: Images
    content: str


def encode(few: FewShotSet, seed: int, views: int) -> Draw:
    """The draw before the bundled CLIP, with so many views of each training photograph."""
    black_box = blackbox.load("bundled", few.class_names)
    kept, held_out = hold_out(few, Config().held_out, seed)
    encoder = Encoder(Metered(black_box, budget=None))
    shown = encoder.fixed_views([item.image for item in kept.train], views=views, pieces=0, seed=seed)
    others = [encoder.centre_crops([item.image for item in items]) if items else None for items in (held_out, few.test)]
    labels = [np.array([item.label for item in items], int) for items in (kept.train, held_out, few.test)]
    train, chosen_by, test = map(Images, [shown, *others], labels)
    return Draw(black_box, train, chosen_by, test, few.digest())


def probe(draw: Draw, seed: int, views: int) -> Probed:
    """What the default's texts find by the first views of each photograph."""
    shown = jax.tree.map(lambda leaf: leaf[:views], draw.train.handle)
    about = probing.Asked(shown, draw.train.labels, views, *draw.held_out, draw.content)
    return probing.probe(Metered(draw.black_box, budget=None), about, texts=Config().probe.texts, seed=seed)


def accuracy(logits: Any, images: Images) -> float:
    """In percent."""
    return 100 * float(np.mean(np.asarray(logits).argmax(axis=-1) == images.labels))
