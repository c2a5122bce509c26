"""Embeddings in OpenAI's form, with images as Infinity or Jina take them: each image and each text is asked once.

A logit is a cosine times a scale that no API tells; labels do not depend on it.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from craft_jax.blackbox.apis.http import Client
from craft_jax.blackbox.apis.messages import (
    Answer,
    Picture,
    Request,
    Wrong,
    ending,
    field,
    json_request,
    number,
    picture,
    rows,
)
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.billing import Estimate
from craft_jax.blackbox.meter import Ledger
from craft_jax.config import ApiConfig

_TEXTS, _IMAGES = 256, 16  # in a request
_TOKENS = 1000  # of an image, as a first guess


class EmbeddingOwner:
    """See `remote.Owner`.

    Args:
      name: of whoever answers, in the store.
      client: that sends.
      store: of embeddings.
      api: how it is asked.
    """

    def __init__(self, name: str, client: Client, store: Store, api: ApiConfig) -> None:
        self._client, self._store, self._api = client, store, api
        self._number = store.owner(name)
        self._address = ending(client.address, "embeddings")
        self._width = 0

    @property
    def sent(self) -> Ledger:
        """What was sent so far."""
        return self._client.sent

    def encode_images(self, images: UInt8[np.ndarray, "N size size 3"]) -> list[Picture]:
        """The files that will be sent once; nothing is sent yet."""
        return [picture(image, self._api.image_format) for image in images]

    def predict_texts(self, texts: Sequence[str], images: Sequence[Picture]) -> Float[np.ndarray, "N T"]:
        """Cosines times the logit scale."""
        of_images = self._features({image.digest: image for image in images}, self._ask_images, _IMAGES)
        by_key = {_key(text): text for text in texts}
        of_texts = self._features(by_key, self._ask_texts, self._api.texts or _TEXTS)
        left = np.stack([of_images[image.digest] for image in images])
        return self._api.logit_scale * left @ np.stack([of_texts[_key(text)] for text in texts]).T

    def estimate(self, texts: Sequence[str], sample: UInt8[np.ndarray, "n size size 3"], images: int) -> Estimate:
        """What asking T texts about images like those of a sample would take."""
        pictures = self.encode_images(sample)
        asked, most = pictures[:_IMAGES], self._api.texts or _TEXTS
        requests = [
            (self._images_request(asked), images / len(asked)),
            *((self._texts_request(texts[i : i + most]), 1) for i in range(0, len(texts), most)),
        ]
        kept = self._store.get(self._number, [image.digest for image in pictures])
        answered = sum(image.digest in kept for image in pictures) / len(pictures)
        return self._client.estimate(requests, 1, answered)

    def _features(
        self, wanted: dict[bytes, Any], ask: Callable[[list[Any]], list[np.ndarray]], most: int
    ) -> dict[bytes, Float[np.ndarray, " p"]]:
        """Normalised embeddings by key, asked `most` a request where they are not in the store."""
        kept = self._store.get(self._number, wanted)
        missing = [key for key in wanted if key not in kept]

        def fetch(keys: list[bytes]) -> None:
            vectors = ask([wanted[key] for key in keys])
            self._store.put(self._number, {key: vector.tobytes() for key, vector in zip(keys, vectors, strict=True)})

        if missing:
            parts = [missing[first : first + most] for first in range(0, len(missing), most)]
            self._client.each(functools.partial(fetch, part) for part in parts)
            kept |= self._store.get(self._number, missing)
        return {key: _normalised(np.frombuffer(vector)) for key, vector in kept.items()}

    def _ask_texts(self, texts: list[str]) -> list[np.ndarray]:
        return self._ask(self._texts_request(texts), len(texts))

    def _ask_images(self, images: list[Picture]) -> list[np.ndarray]:
        return self._ask(self._images_request(images), len(images))

    def _texts_request(self, texts: Sequence[str]) -> Request:
        given = [{"text": text} for text in texts] if self._api.images_as == "object" else list(texts)
        return self._request({"input": given} | self._kind("text"), len(texts), sum(map(len, texts)))

    def _images_request(self, images: Sequence[Picture]) -> Request:
        whole = self._api.images_as == "uri"
        given = [image.data_uri if whole else {"image": image.base64} for image in images]
        return self._request({"input": given} | self._kind("image"), 0, _TOKENS * len(images))

    def _kind(self, modality: str) -> dict[str, str]:
        return {"modality": modality} if self._api.images_as == "uri" else {}

    def _request(self, body: dict[str, Any], texts: int, tokens: int) -> Request:
        body |= {"model": self._api.model, "encoding_format": "float"}
        return json_request(self._address, body, texts, tokens)

    def _ask(self, request: Request, count: int) -> list[np.ndarray]:
        return self._client.ask(request, lambda answer: self._read(answer, count))

    def _read(self, answer: Answer, count: int) -> list[np.ndarray]:
        """The embeddings in the order of what was sent; raises Wrong where they are not that."""
        found = rows(field(answer.json, "data"))
        if len(found) != count:
            raise Wrong(f"it has {len(found)} embeddings for {count} inputs")
        if any(isinstance(row, dict) and "index" in row for row in found):
            by_place = {field(row, "index"): row for row in found}
            if set(by_place) != set(range(count)):
                raise Wrong("its embeddings are not numbered one after the other")
            found = [by_place[place] for place in range(count)]
        vectors = [np.array([number(value) for value in rows(field(row, "embedding"))]) for row in found]
        for vector in vectors:
            self._width = self._width or vector.size
            if not vector.size or vector.size != self._width or not np.any(vector):
                raise Wrong(f"it has an embedding of {vector.size} numbers, not {self._width}, or one of zeros alone")
        return vectors


def _key(text: str) -> bytes:
    return hashlib.sha256(b"text " + text.encode()).digest()


def _normalised(vector: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    return vector / np.linalg.norm(vector)
