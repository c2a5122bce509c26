"""A local CLIP or SigLIP from its owner's side, for whoever serves it: features pass here, and for nobody else.

What is asked changes from request to request, so texts are encoded in groups of one length, in a few sizes, and classes
are arranged without reading the model again.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.blackbox.loading import load
from craft_jax.data import pixels

_IMAGES_AT_ONCE = 64
_TEXTS_AT_ONCE = 1024
_CAPTIONS_AT_ONCE = 16_384  # class names under all soft prompts of a call, which bounds memory too
_MOST_PROGRAMS = 200  # compiled ones kept, which bounds memory against requests of ever other shapes


class TextFeature(NamedTuple):
    """A text's normalised feature, [p], and how many tokens the model reads, with SOS and EOS or padding."""

    feature: Float[np.ndarray, " p"]
    tokens: int


class Owned:
    """A model's features, and black boxes of it for any classes. To be called from one thread at a time.

    Args:
      model, dtype: as of `load`.

    Raises:
      UserError: where the model cannot be loaded.
    """

    def __init__(self, model: str, dtype: str = "float32") -> None:
        self._any = load(model, ("object",), dtype=dtype)
        self._shapes: set[object] = set()

    @property
    def fingerprint(self) -> str:
        """Of the parameters and the preprocessing."""
        return str(self._any.identity["fingerprint"])

    @property
    def image_size(self) -> int:
        """Side of the square images that it takes, in pixels."""
        return self._any.image_size

    @property
    def resizing(self) -> pixels.Resizing:
        """How a photograph is resized before that square is cut out of it."""
        return self._any.resizing

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with to be logits."""
        return float(np.exp(self._any._logit_scale))

    @property
    def logit_bias(self) -> float | None:
        """What is added to them then, by a SigLIP: it scores each pair of image and text by itself."""
        bias = self._any._logit_bias
        return None if bias is None else float(bias)

    def images(self, images: UInt8[np.ndarray, "N size size 3"]) -> Float[np.ndarray, "N p"]:
        """Normalised features of images."""
        parts = []
        for first in range(0, len(images), _IMAGES_AT_ONCE):
            part = images[first : first + _IMAGES_AT_ONCE]
            filled = self.padded(part)
            self._bound_programs(("images", len(filled)))
            parts.append(np.asarray(self._any.encode_images(filled))[: len(part)])
        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> list[TextFeature]:
        """Normalised features of texts, which are whole captions.

        Raises:
          UserError: where one does not fit.
        """
        door = self._any._texts
        ids = [door.token_ids(text) for text in texts]
        features: list[TextFeature | None] = [None] * len(ids)
        for rows in _of_one_length(ids):
            size = _at_least(len(rows), 4)
            captions = [ids[row] for row in rows]
            captions += captions[-1:] * (size - len(captions))
            self._bound_programs(("texts", size, len(captions[0])))
            encoded = np.asarray(door.features_of_ids(self._any._text, captions))
            for row, feature in zip(rows, encoded, strict=False):
                features[row] = TextFeature(feature, len(ids[row]))
        return [feature for feature in features if feature is not None]

    def for_classes(self, class_names: Sequence[str], template: str) -> ClipBlackBox:
        """The black box that `load` gives for these classes and this template, but for the model's name.

        Raises:
          UserError: where a caption does not fit, or the template's words run into a class name.
        """
        tower, start = self._any._texts.for_classes(self._any._text, class_names, template)
        return self._any.replace(
            _text=tower,
            _initial_prompt=start,
            _class_names=tuple(class_names),
            _identity=tuple((self._any.identity | {"template": template}).items()),
        )

    def predict(
        self,
        black_box: ClipBlackBox,
        prompts: Float[np.ndarray, "K n_ctx d"] | Float[np.ndarray, "K C n_ctx d"],
        features: Float[np.ndarray, "N p"],
    ) -> Float[np.ndarray, "K N C"]:
        """The logits of N encoded images under each of K soft prompts, by a black box of `for_classes`."""
        handle = jnp.asarray(self.padded(features))
        at_once = max(1, _CAPTIONS_AT_ONCE // len(black_box.class_names))
        parts = []
        for first in range(0, len(prompts), at_once):
            part = prompts[first : first + at_once]
            self._bound_programs((black_box.class_names, black_box.identity["template"], part.shape, len(handle)))
            parts.append(np.asarray(black_box.predict(jnp.asarray(part), handle))[:, : len(features)])
        return np.concatenate(parts)

    @staticmethod
    def padded(rows: Shaped[np.ndarray, "N ..."]) -> Shaped[np.ndarray, "M ..."]:
        """Rows, the last one repeated up to a power of two of them: a few sizes, for each of which is compiled once."""
        return np.concatenate([rows, np.repeat(rows[-1:], _at_least(len(rows), 2) - len(rows), axis=0)])

    def _bound_programs(self, shape: object) -> None:
        self._shapes.add(shape)
        if len(self._shapes) > _MOST_PROGRAMS:
            jax.clear_caches()
            self._shapes = {shape}


def _of_one_length(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The rows of `ids` in groups of one length, none larger than what is encoded at once."""
    lengths = np.array([len(tokens) for tokens in ids])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length).tolist()
        yield from (rows[first : first + _TEXTS_AT_ONCE] for first in range(0, len(rows), _TEXTS_AT_ONCE))


def _at_least(count: int, base: int) -> int:
    """The lowest power of `base` that is no less than `count`."""
    size = 1
    while size < count:
        size *= base
    return size
