"""The served CLIP: a bounded memory of what it has encoded, and the worker that encodes the rest."""

import asyncio
import collections
import functools
import hashlib
import os
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from craft_jax.blackbox import Owned, TextFeature
from craft_jax.serve.limits import Counts, Limits, Refused
from craft_jax.serve.worker import Worker

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_LISTS = 16  # of texts, whose features are kept side by side
_ARRANGED = 16  # lists of classes whose black boxes are kept


class Square(NamedTuple):
    """An image as the model takes it, uint8 [size, size, 3], and the name that its content gives it."""

    id: str
    pixels: UInt8[np.ndarray, "size size 3"]


class Question(NamedTuple):
    """Soft prompts, [K, n_ctx, d] or [K, C, n_ctx, d], for C classes under a template, about images by their names."""

    prompts: np.ndarray
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    template: str


class Memory(Generic[K, V]):
    """The values of the keys that were asked for last, `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: collections.OrderedDict[K, V] = collections.OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, if it is still there; it is then the one asked for last."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keeps a value, and forgets the one that was asked for longest ago where there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)


def square(pixels: UInt8[np.ndarray, "size size 3"]) -> Square:
    """Names an image."""
    pixels = np.ascontiguousarray(pixels)
    return Square(hashlib.sha256(pixels.tobytes()).hexdigest(), pixels)


class Served:
    """A CLIP that any number of requests ask at once.

    Args:
      name: how it is called.
      owned: the model.
      limits: of what is kept and done at once.
      counts: takes note of what is encoded.
    """

    def __init__(self, name: str, owned: Owned, limits: Limits, counts: Counts) -> None:
        self.name, self.limits, self.counts = name, limits, counts
        self.image_size, self.resizing = owned.image_size, owned.resizing
        self.logit_scale, self.logit_bias, self.fingerprint = owned.logit_scale, owned.logit_bias, owned.fingerprint
        self.opening = asyncio.Semaphore(os.cpu_count() or 1)  # of images, each of many pixels, which bounds memory
        self._owned = owned
        self._images: Memory[str, np.ndarray] = Memory(limits.kept_images)
        self._texts: Memory[str, TextFeature] = Memory(limits.kept_texts)
        self._lists: Memory[tuple[str, ...], np.ndarray] = Memory(_LISTS)
        self._black_box = functools.lru_cache(_ARRANGED)(owned.for_classes)
        self._worker = Worker(max(limits.images, limits.texts))

    async def images(self, squares: Sequence[Square]) -> Float[np.ndarray, "N p"]:
        """Normalised features of images."""
        return np.stack(await self._worker.do(self._encode_images, squares))

    async def texts(self, texts: Sequence[str]) -> list[TextFeature]:
        """Normalised features of texts; raises UserError where one does not fit."""
        return await self._worker.do(self._encode_texts, texts)

    async def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "T p"]:
        """The features alone; of the lists that were asked for last at once, for a client asks one about all images."""
        key = tuple(texts)
        features = self._lists.get(key)
        if features is None:
            features = np.stack([text.feature for text in await self.texts(texts)])
            self._lists.put(key, features)
        return features

    def answering(
        self, answer: Callable[[Float[np.ndarray, "N p"]], np.ndarray]
    ) -> Callable[[Sequence[Square]], Awaitable[list[np.ndarray]]]:
        """From images to what `answer` makes of their features, row for row, by the worker."""

        def together(squares: Sequence[Square]) -> list[np.ndarray]:
            return list(answer(np.stack(self._encode_images(squares))))

        return functools.partial(self._worker.do, together)

    async def known(self, ids: Sequence[str]) -> Float[np.ndarray, "N p"]:
        """The features of images that were sent before; raises Refused where some are not known."""
        return (await self._worker.do(lambda wanted: [self._known(wanted[0])], [ids]))[0]

    async def initial_prompt(self, template: str) -> Float[np.ndarray, "n_ctx d"]:
        """The unlearnt prompt of a template."""
        return (
            await self._worker.do(
                lambda wanted: [np.asarray(self._black_box(("object",), wanted[0]).initial_prompt)], [template]
            )
        )[0]

    async def predict(self, question: Question) -> Float[np.ndarray, "K N C"]:
        """The logits that a question asks for; raises Refused where it cannot be asked."""
        return (await self._worker.do(lambda asked: [self._predict(asked[0])], [question]))[0]

    def _encode_images(self, squares: Sequence[Square]) -> list[np.ndarray]:
        features = {square.id: self._images.get(square.id) for square in squares}
        new = list({square.id: square for square in squares if features[square.id] is None}.values())
        if new:
            self.counts.encoded_images += len(new)
            for image, feature in zip(new, self._owned.images(np.stack([s.pixels for s in new])), strict=True):
                features[image.id] = feature
                self._images.put(image.id, feature)
        return [features[square.id] for square in squares]  # type: ignore[misc]

    def _encode_texts(self, texts: Sequence[str]) -> list[TextFeature]:
        features = {text: self._texts.get(text) for text in texts}
        new = [text for text, feature in features.items() if feature is None]
        for text, feature in zip(new, self._owned.texts(new), strict=True):
            features[text] = feature
            self._texts.put(text, feature)
        self.counts.encoded_texts += len(new)
        return [features[text] for text in texts]  # type: ignore[misc]

    def _known(self, ids: Sequence[str]) -> np.ndarray:
        features = {name: self._images.get(name) for name in ids}
        unknown = [name for name, feature in features.items() if feature is None]
        if unknown:
            raise Refused(f"{len(unknown)} images are not known here, or no more; send them again", 404, ids=unknown)
        return np.stack([features[name] for name in ids])  # type: ignore[misc]

    def _predict(self, question: Question) -> np.ndarray:
        features = self._known(question.ids)
        black_box = self._black_box(question.classes, question.template)
        expected = black_box.initial_prompt.shape
        if question.prompts.ndim == 4:
            expected = (len(question.classes), *expected)
        if question.prompts.shape[1:] != expected:
            found, wanted = list(question.prompts.shape), ["K", *expected]
            raise Refused(f"prompts has shape {found}, and the template's words and the classes need {wanted}")
        return self._owned.predict(black_box, question.prompts, features)
