"""Soft prompts over HTTP, in our own form, as `craft_jax.serve` answers it.

Images are sent once and known by the names that the server gives them; where it has forgotten one, it is sent again.
"""

import functools
import hashlib
import io
import json
import math
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from craft_jax.blackbox.apis.chunks import Plan
from craft_jax.blackbox.apis.http import Client
from craft_jax.blackbox.apis.kept import KeptAnswers
from craft_jax.blackbox.apis.messages import Answer, Picture, Request, Wrong, field, json_request, picture, rows
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.billing import Estimate
from craft_jax.blackbox.meter import Ledger
from craft_jax.errors import UserError

T = TypeVar("T")

_LIMITS = {"body": 16 * 2**20, "images": 256, "texts": 1024, "prompts": 256}  # where the server names none
_ANSWER = 64 * 2**20  # bytes of an answer at most
_TIMES_FORGOTTEN = 3
_NPZ = "application/x-npz"


class About(NamedTuple):
    """What a server says of its model; `sides` and `resample` are how it wants photographs resized."""

    fingerprint: str
    image_size: int
    initial_prompt: Float[np.ndarray, "n_ctx d"] | None
    resizing: tuple[tuple[int, ...] | None, int] | None
    limits: dict[str, int]


class _Forgotten(Exception):
    def __init__(self, ids: list[str]) -> None:
        super().__init__()
        self.ids = ids


def about(client: Client, template: str) -> About:
    """Asks a server what it has for a template.

    Raises:
      UserError: where it does not answer, or not as such a server does.
    """
    address = f"{client.address.rstrip('/')}/v1/about?{urllib.parse.urlencode({'template': template})}"
    return client.ask(Request(address, None), _read_about)


class SoftOwner:
    """See `remote.Owner`.

    Args:
      told: what the server says of itself.
      class_names, template: that soft prompts stand before.
      client: that sends.
      store: of answers.
    """

    def __init__(self, told: About, class_names: Sequence[str], template: str, client: Client, store: Store) -> None:
        self._told, self._client, self._store = told, client, store
        self._class_names, self._template = list(class_names), template
        self._base = client.address.rstrip("/")
        name = f"soft {told.fingerprint}"
        self._sent_images = store.owner(f"{name} images at {client.address}")
        self._prompts = store.owner(f"{name} prompts")
        self._kept = KeptAnswers(store, f"{name} texts", self._plan, _beside)
        self._names: dict[bytes, str] = {}
        self._pictures: dict[str, Picture] = {}

    @property
    def sent(self) -> Ledger:
        """What was sent so far."""
        return self._client.sent

    def encode_images(self, images: UInt8[np.ndarray, "N size size 3"]) -> list[Picture]:
        """The files that will be sent before the first question about them; nothing is sent yet."""
        return [picture(image, "png") for image in images]

    def estimate(self, texts: Sequence[str], sample: UInt8[np.ndarray, "n size size 3"], images: int) -> Estimate:
        """What sending images like those of a sample, and asking T texts about them, would take."""
        pictures = self.encode_images(sample)
        sending = Request(f"{self._base}/v1/images", _npz(images=sample), _NPZ)
        ids = [image.digest.hex() for image in pictures]
        asking = [self._texts_request(part, ids) for part in self._kept.parts(texts)]
        times = -(-images // self._told.limits["images"])
        requests = [(sending, images / self._images_at_once()), *((one, times) for one in asking)]
        estimate = self._client.estimate(requests, 1 + len(asking), self._kept.answered(texts, pictures))
        return estimate._replace(size=images / len(sample) * sum(len(one.content or b"") for one, _ in requests))

    def predict(
        self, prompts: Float[np.ndarray, "K n_ctx d"] | Float[np.ndarray, "K C n_ctx d"], images: Sequence[Picture]
    ) -> Float[np.ndarray, "K N C"]:
        """Logits, in as many requests as the server's limits need."""
        self._introduce(images)
        classes = len(self._class_names)
        of_images = self._told.limits["images"]
        room = (self._told.limits["body"] // 2) // max(4 * prompts[0].size, 1)
        of_prompts = min(self._told.limits["prompts"], room, _ANSWER // (4 * classes * min(of_images, len(images))))
        parts: dict[tuple[int, int], np.ndarray] = {}

        def ask(first: int, image: int) -> None:
            some = prompts[first : first + max(of_prompts, 1)]
            parts[first, image] = self._predict(some, images[image : image + of_images])

        firsts = range(0, len(prompts), max(of_prompts, 1))
        seconds = range(0, len(images), of_images)
        self._client.each(functools.partial(ask, first, image) for first in firsts for image in seconds)
        return np.concatenate([np.concatenate([parts[f, s] for s in seconds], axis=1) for f in firsts])

    def predict_texts(self, texts: Sequence[str], images: Sequence[Picture]) -> Float[np.ndarray, "N T"]:
        """Logits of whole captions."""
        return self._kept.logits(texts, images, self._fetch)

    def _predict(self, prompts: np.ndarray, images: Sequence[Picture]) -> Float[np.ndarray, "K N C"]:
        digest = hashlib.sha256(json.dumps([self._class_names, self._template, prompts.shape]).encode())
        digest.update(np.ascontiguousarray(prompts, np.float32).tobytes())
        digest.update(b"".join(image.digest for image in images))
        shape = (len(prompts), len(images), len(self._class_names))
        kept = self._store.get_recent(self._prompts, digest.digest())
        if kept is not None:
            return np.frombuffer(kept, np.float32).reshape(shape)

        def request(ids: list[str]) -> Request:
            content = _npz(
                prompts=np.asarray(prompts, np.float32),
                ids=np.asarray(ids),
                classes=np.asarray(self._class_names),
                template=np.asarray(self._template),
            )
            return Request(f"{self._base}/v1/predict", content, _NPZ, texts=shape[2], accept=(200, 404))

        answer = self._about_known(images, request, lambda answer: _array(answer, shape))
        self._store.put_recent(self._prompts, digest.digest(), answer.tobytes())
        return answer

    def _plan(self, texts: int) -> Plan:
        most = self._told.limits["texts"]
        return Plan(tuple(tuple(range(first, min(first + most, texts))) for first in range(0, texts, most)), 0)

    def _fetch(self, texts: list[str], images: Sequence[Picture], number: int) -> None:
        self._introduce(images)

        def ask(part: Sequence[Picture]) -> None:
            read = functools.partial(_array, shape=(len(part), len(texts)))
            answer = self._about_known(part, functools.partial(self._texts_request, texts), read)
            self._kept.keep({image.digest: row for image, row in zip(part, answer, strict=True)}, number)

        at_once = self._told.limits["images"]
        self._client.each(functools.partial(ask, images[i : i + at_once]) for i in range(0, len(images), at_once))

    def _texts_request(self, texts: list[str], ids: list[str]) -> Request:
        body = {"texts": texts, "ids": ids}
        return json_request(f"{self._base}/v1/texts", body, len(texts))._replace(accept=(200, 404))

    def _about_known(
        self, images: Sequence[Picture], request: Callable[[list[str]], Request], read: Callable[[Answer], T]
    ) -> T:
        """Asks about images by name, and sends again those that the server does not know any more."""

        def checked(answer: Answer) -> T:
            if answer.status != 404:
                return read(answer)
            forgotten = rows(field(answer.json, "ids"))
            if not forgotten or not set(forgotten) <= set(self._pictures):
                raise Wrong("it does not know images that it was not asked about")
            raise _Forgotten(forgotten)

        for _ in range(_TIMES_FORGOTTEN):
            try:
                return self._client.ask(request([self._names[image.digest] for image in images]), checked)
            except _Forgotten as error:
                self._send([self._pictures[name] for name in error.ids], at_once=False)
        raise UserError(
            f"{self._base} forgets images faster than they can be asked about; let it keep more (--keep_images)"
        )

    def _introduce(self, images: Sequence[Picture]) -> None:
        """Sends the images that this server has not been sent before."""
        new = {image.digest: image for image in images if image.digest not in self._names}
        kept = self._store.get(self._sent_images, new)
        for digest, name in kept.items():
            self._know(new[digest], name.decode())
        self._send([image for digest, image in new.items() if digest not in kept])

    def _images_at_once(self) -> int:
        pixels = 3 * self._told.image_size**2
        return max(1, min(self._told.limits["images"], (self._told.limits["body"] // 2) // pixels))

    def _send(self, images: Sequence[Picture], at_once: bool = True) -> None:
        """Sends images, in as many requests as the server's limits need."""
        most = self._images_at_once()
        jobs = [functools.partial(self._send_some, images[i : i + most]) for i in range(0, len(images), most)]
        if at_once:
            self._client.each(jobs)
            return
        for job in jobs:  # inside a job already
            job()

    def _send_some(self, images: Sequence[Picture]) -> None:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(image.content))) for image in images])
        request = Request(f"{self._base}/v1/images", _npz(images=pixels), _NPZ)
        names = self._client.ask(request, functools.partial(_read_names, count=len(images)))
        for image, name in zip(images, names, strict=True):
            self._know(image, name)
        self._store.put(
            self._sent_images, {image.digest: name.encode() for image, name in zip(images, names, strict=True)}
        )

    def _know(self, image: Picture, name: str) -> None:
        self._names[image.digest], self._pictures[name] = name, image


def _read_about(answer: Answer) -> About:
    told = answer.json
    prompt, takes = field(told, "initial_prompt"), rows(field(told, "takes"))
    size, fingerprint = field(told, "image_size"), field(told, "fingerprint")
    limits, resizing = told.get("limits", {}), told.get("resizing")
    try:
        start = None if prompt is None or "soft prompts" not in takes else np.asarray(prompt, np.float32)
        how = None
        if resizing:
            sides = resizing["sides"]
            how = (None if sides is None else tuple(map(int, sides)), int(resizing["resample"]))
        allowed = {name: int(limits.get(name, most)) for name, most in _LIMITS.items()}
        told_size = int(size)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise Wrong(f"it does not tell of a model as craft_jax.serve does ({error})") from error
    if not isinstance(fingerprint, str) or told_size < 1 or min(allowed.values()) < 1:
        raise Wrong("it does not tell of a model as craft_jax.serve does")
    if start is not None and (start.ndim != 2 or not np.isfinite(start).all()):
        raise Wrong("its initial_prompt is no table of numbers")
    return About(fingerprint, told_size, start, how, allowed)


def _read_names(answer: Answer, count: int) -> list[str]:
    names = rows(field(answer.json, "ids"))
    if len(names) != count or not all(isinstance(name, str) and name for name in names):
        raise Wrong(f"it has {len(names)} names for {count} images")
    return names


def _beside(plan: Plan, scores: Sequence[Float[np.ndarray, "N _"]]) -> Float[np.ndarray, "N T"]:
    return np.concatenate(scores, axis=1)


def _npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _array(answer: Answer, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array out of an answer; raises Wrong where it is of another shape, or not finite."""
    if len(answer.content) < 4 * math.prod(shape):
        raise Wrong(f"it has {len(answer.content)} bytes, too few for an array of shape {shape}")
    try:
        array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Wrong("it is no array in npy") from error
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "f":
        raise Wrong(f"it is not an array of shape {shape}")
    if not np.isfinite(array).all():
        raise Wrong("it holds numbers that are not finite")
    return np.asarray(array, np.float32)
