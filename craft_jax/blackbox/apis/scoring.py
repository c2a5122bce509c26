"""The owner behind a form that scores texts: one request for each image and chunk of texts."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from craft_jax.blackbox.apis import chunks, treatment
from craft_jax.blackbox.apis.http import Client
from craft_jax.blackbox.apis.kept import KeptAnswers
from craft_jax.blackbox.apis.labels import Form
from craft_jax.blackbox.apis.messages import Answer, Picture, Wrong, picture
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.billing import Estimate
from craft_jax.blackbox.meter import Ledger
from craft_jax.config import ApiConfig


class ScoringOwner:
    """See `remote.Owner`.

    Args:
      form: of its requests.
      name: of whoever answers, in the store.
      client: that sends.
      store: of answers.
      api: how it is asked.
      say: is told what there is to say of answers.
    """

    def __init__(
        self, form: Form, name: str, client: Client, store: Store, api: ApiConfig, say: Callable[[str], None]
    ) -> None:
        self._form, self._client, self._api = form, client, api
        most = most_texts(form, api)
        self._kept = KeptAnswers(
            store, f"{name} {form.wording}".strip(), lambda texts: chunks.plan(texts, most), self._tied
        )
        self._say = functools.cache(say)
        self._finest = float("inf")

    @property
    def sent(self) -> Ledger:
        """What was sent so far."""
        return self._client.sent

    def encode_images(self, images: UInt8[np.ndarray, "N size size 3"]) -> list[Picture]:
        """The files that will be sent with every question; nothing is sent yet."""
        return [picture(image, self._api.image_format) for image in images]

    def predict_texts(self, texts: Sequence[str], images: Sequence[Picture]) -> Float[np.ndarray, "N T"]:
        """Logits of N images for T texts, up to a constant an image."""
        return self._kept.logits(texts, images, self._fetch)

    def estimate(self, texts: Sequence[str], sample: UInt8[np.ndarray, "n size size 3"], images: int) -> Estimate:
        """What asking T texts about images like those of a sample would take."""
        pictures, parts = self.encode_images(sample), self._kept.parts(texts)
        each = images / len(pictures)
        requests = [(self._form.request(one, part), each) for one in pictures for part in parts]
        return self._client.estimate(requests, len(parts), self._kept.answered(texts, pictures))

    def _fetch(self, texts: list[str], images: Sequence[Picture], number: int) -> None:
        self._client.each(functools.partial(self._ask, image, texts, number) for image in images)

    def _ask(self, image: Picture, texts: list[str], number: int) -> None:
        scores = self._client.ask(self._form.request(image, texts), lambda answer: self._read(answer, texts))
        self._kept.keep({image.digest: scores}, number)

    def _read(self, answer: Answer, texts: list[str]) -> Float[np.ndarray, " T"]:
        scores = self._form.read(answer.json, texts)
        came, due = int(np.isfinite(scores).sum()), min(self._api.top or len(texts), len(texts))
        if came < due and not self._form.partial:
            lost = texts[int(np.argmin(np.isfinite(scores)))]
            remedy = "" if self._api.top else "; where the API answers the likeliest alone, set api.top to their number"
            raise Wrong(f"it holds {came} of {due} labels, not {lost!r} for one{remedy}")
        return scores

    def _tied(self, plan: chunks.Plan, scores: Sequence[Float[np.ndarray, "N _"]]) -> Float[np.ndarray, "N T"]:
        treated = []
        for part in scores:
            treated.append(
                treatment.treat(part, kind=self._form.kind, logit_scale=self._api.logit_scale, finest=self._finest)
            )
            self._finest = min(self._finest, treated[-1].step)
        for note in treated[0].notes:
            self._say(f"note: {self._client.address}: {note}")
        return chunks.tie(plan, [part.logits for part in treated], [part.weights for part in treated])


def most_texts(form: Form, api: ApiConfig) -> int:
    """Texts in a request; 0 for no limit."""
    return min(filter(None, (form.most, api.texts)), default=0)
