"""Labels in, scores out: the forms of Hugging Face's zero-shot image classification, Roboflow's CLIP, clip-as-service.

A request carries one image and whole captions as labels; but for Roboflow's, an answer names the labels it was sent.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox.apis import treatment
from craft_jax.blackbox.apis.messages import Picture, Request, Wrong, ending, field, json_request, number, rows


class Form(Protocol):
    """How images and labels are written into a request, and scores read from its answer.

    Attributes:
      kind: of the scores, as `treatment.treat` takes it.
      most: texts in a request, 0 for no limit.
      partial: whether answers leave out labels as a rule.
      wording: of what else is sent and matters to the answer; a store keeps answers by it.
    """

    @property
    def kind(self) -> str | None: ...  # noqa: D102

    @property
    def most(self) -> int: ...  # noqa: D102

    @property
    def partial(self) -> bool: ...  # noqa: D102

    @property
    def wording(self) -> str: ...  # noqa: D102

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """Asks for the scores of T texts about an image."""

    def read(self, answer: Any, texts: Sequence[str]) -> Float[np.ndarray, " T"]:
        """The scores in an answer's JSON, NaN where a text has none; raises Wrong where it is no such answer."""


class ZeroShot:
    """Hugging Face's form."""

    kind = None  # softmax as a rule, and one sigmoid for each label with SigLIP
    most = 0
    partial = False
    wording = ""

    def __init__(self, address: str) -> None:
        self._address = address

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """POST {"inputs": base64, "parameters": {...}} to the address as it is."""
        parameters = {"candidate_labels": list(texts), "hypothesis_template": "{}"}
        return json_request(self._address, {"inputs": picture.base64, "parameters": parameters}, len(texts))

    def read(self, answer: Any, texts: Sequence[str]) -> Float[np.ndarray, " T"]:
        """[{"label", "score"}, ...] in any order."""
        return by_label([(field(row, "label"), field(row, "score")) for row in rows(answer)], texts)


class Compare:
    """Roboflow's form; its answers are in the order of the prompts and do not repeat them."""

    kind = treatment.COSINES
    most = 0
    partial = False
    wording = ""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = ending(address, "clip/compare"), key

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """POST {"subject", "prompt"} to /clip/compare; the key may stand in the body."""
        body: dict[str, Any] = {
            "subject": {"type": "base64", "value": picture.base64},
            "subject_type": "image",
            "prompt": list(texts),
            "prompt_type": "text",
        }
        return json_request(self._address, body | ({"api_key": self._key} if self._key else {}), len(texts))

    def read(self, answer: Any, texts: Sequence[str]) -> Float[np.ndarray, " T"]:
        """{"similarity": [...]}."""
        found = rows(field(answer, "similarity"))
        if len(found) != len(texts):
            raise Wrong(f"it has {len(found)} similarities for {len(texts)} prompts")
        return np.array([number(value) for value in found])


class Rank:
    """clip-as-service's form; of its two scores the cosine, which softmax has not rounded."""

    kind = treatment.COSINES
    most = 0
    partial = False
    wording = ""

    def __init__(self, address: str) -> None:
        self._address = ending(address, "post")

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """POST {"data": [{"uri", "matches": [{"text"}]}], "execEndpoint": "/rank"} to /post."""
        document = {"uri": picture.data_uri, "matches": [{"text": text} for text in texts]}
        return json_request(self._address, {"data": [document], "execEndpoint": "/rank"}, len(texts))

    def read(self, answer: Any, texts: Sequence[str]) -> Float[np.ndarray, " T"]:
        """{"data": [{"matches": [{"text", "scores": {"clip_score_cosine": {"value"}}}]}]}, best first."""
        documents = rows(field(answer, "data"))
        if len(documents) != 1:
            raise Wrong(f"it has {len(documents)} documents for one image")
        pairs = []
        for match in rows(field(documents[0], "matches")):
            cosine = field(field(match, "scores"), "clip_score_cosine")
            pairs.append((field(match, "text"), field(cosine, "value")))
        return by_label(pairs, texts)


def by_label(pairs: Sequence[tuple[Any, Any]], texts: Sequence[str]) -> Float[np.ndarray, " T"]:
    """Scores in the order of the texts that were sent, NaN for those that have none.

    Raises:
      Wrong: where a label was not sent, comes twice, or has no score.
    """
    places = {text: place for place, text in enumerate(texts)}
    scores = np.full(len(texts), np.nan)
    for label, score in pairs:
        if not isinstance(label, str) or label not in places:
            raise Wrong(f"it names a label that was not sent, {str(label)[:60]!r}")
        if np.isfinite(scores[places[label]]):
            raise Wrong(f"it names the label {label!r} twice")
        scores[places[label]] = number(score)
    return scores
