"""What is said of images: their classes with probabilities, or why one could not be read, which stops no other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from craft_jax.data import LazyImage
from craft_jax.errors import UserError
from craft_jax.precision import in_32_bits

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.tuned_model import TunedModel

UNSURE = "unsure"
CHUNK = 256  # images labelled at once; each chunk asks for every class's text once


class Answer(NamedTuple):
    """An image's best classes with their probabilities, or why it could not be read."""

    best: list[tuple[str, float]]
    error: str


class _Attempt:
    """An image that opens as a blank where it cannot be read, so that the rest of its chunk goes on."""

    def __init__(self, image: LazyImage) -> None:
        self._image = image
        self.name = image.name
        self.error = ""

    def open(self) -> Image.Image:
        """The image in RGB, or a blank."""
        try:
            return self._image.open()
        except UserError as error:
            self.error = str(error)
            return Image.new("RGB", (1, 1))

    def fingerprint(self) -> str:
        """Of the image."""
        return self._image.fingerprint()


def answers(
    tuned: "TunedModel", black_box: "BlackBox", images: Sequence[LazyImage], *, top: int, threshold: float
) -> list[Answer]:
    """The answers to N images.

    Args:
      tuned: the model.
      black_box: the one that it was tuned for.
      images: N of them.
      top: how many classes are named of each.
      threshold: probability below which the best class is called `UNSURE`.

    Raises:
      UserError: where the model was tuned for another black box.
    """
    attempts = [_Attempt(image) for image in images]
    rows = probabilities(tuned, black_box, attempts)
    return [
        Answer([], attempt.error) if attempt.error else Answer(_best(row, tuned.class_names, top, threshold), "")
        for attempt, row in zip(attempts, rows, strict=True)
    ]


@in_32_bits
def probabilities(tuned: "TunedModel", black_box: "BlackBox", images: Sequence[LazyImage]) -> Float[np.ndarray, "N C"]:
    """Class probabilities of N images.

    Raises:
      UserError: naming an image that cannot be read, or where the model was tuned for another black box.
    """
    # Imported here, so that --help and a wrong command line answer at once.
    import jax

    from craft_jax import encoding, evaluation, tuned_model
    from craft_jax.blackbox import Metered

    tuned_model.check_fit(tuned, black_box)
    metered = Metered(black_box, budget=None)
    handle = encoding.Encoder(metered).centre_crops(images)
    _, refined = evaluation.logits(metered, tuned, handle, len(images))
    return np.asarray(jax.nn.softmax(refined))


def _best(row: np.ndarray, class_names: tuple[str, ...], top: int, threshold: float) -> list[tuple[str, float]]:
    best = [(class_names[label], float(row[label])) for label in np.argsort(-row, kind="stable")[:top]]
    return best if best[0][1] >= threshold else [(UNSURE, best[0][1]), *best[1:]]
