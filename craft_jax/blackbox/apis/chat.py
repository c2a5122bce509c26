"""Chat completions in OpenAI's form: a model that sees is asked which of up to 20 marked labels fits an image.

Its answer is one token, whose alternatives come with their log-probabilities; a label's mark stands for the label.
"""

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox.apis import treatment
from craft_jax.blackbox.apis.messages import Picture, Request, Wrong, ending, field, json_request, number, rows
from craft_jax.config import MOST_MARKS, ApiConfig

_QUESTION = "Which of these fits the image best? Answer with its {} alone, nothing else.\n"
_MARKS = {
    "numbers": [str(place) for place in range(1, MOST_MARKS + 1)],
    "letters": list(string.ascii_uppercase[:MOST_MARKS]),
}
_NAMES = {"numbers": "number", "letters": "letter"}
_TOKENS = 1000  # of an image, as a first guess
_CHARACTERS = 3  # of a token, as a first guess
_FIRST = 3  # answers, none of which names a mark, tell of a model that does not do as it is asked


class Chat:
    """See `labels.Form`; the scores are probabilities, of which those of the likeliest tokens come.

    Args:
      address: of the API, to which /chat/completions is added.
      api: names the model and how labels are marked.
    """

    kind = treatment.PROBABILITIES
    most = MOST_MARKS
    partial = True

    def __init__(self, address: str, api: ApiConfig) -> None:
        self._address, self._api = ending(address, "chat/completions"), api
        self._marks = _MARKS[api.marks]
        self.wording = f"{_QUESTION} {api.marks}"
        self._strange, self._understood = 0, False

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """One message with the image and the marked labels, to be answered by one token.

        Without a temperature: some models refuse one, and log-probabilities should be those at 1.
        """
        lines = [f"{mark}. {text}" for mark, text in zip(self._marks, texts, strict=False)]
        question = _QUESTION.format(_NAMES[self._api.marks]) + "\n".join(lines)
        content = [
            {"type": "image_url", "image_url": {"url": picture.data_uri}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self._api.model,
            "messages": [{"role": "user", "content": content}],
            "logprobs": True,
            "top_logprobs": MOST_MARKS,
            self._api.token_limit: 1,
        }
        return json_request(self._address, body, len(texts), _TOKENS + len(question) // _CHARACTERS)

    def read(self, answer: Any, texts: Sequence[str]) -> Float[np.ndarray, " T"]:
        """The probabilities of the marks among the alternatives of the first token, NaN for the others.

        An answer that names no mark says nothing of its image; one by one such are taken, a model that answers so is
        not.
        """
        marks = {mark: place for place, mark in enumerate(self._marks[: len(texts)])}
        scores = np.full(len(texts), np.nan)
        alternatives = _alternatives(answer)
        for token, logarithm in alternatives:
            place = marks.get(token.strip().upper())
            if place is not None:
                scores[place] = np.nansum([scores[place], math.exp(min(logarithm, 0.0))])
        self._check_digits(scores, texts)
        strange = bool(np.isnan(scores).all())
        self._strange, self._understood = self._strange + strange, self._understood or not strange
        if strange and not self._understood and self._strange >= _FIRST:
            shown = ", ".join(repr(token) for token, _ in alternatives[:5])
            raise Wrong(f"no label's {_NAMES[self._api.marks]} is among its likeliest tokens, {shown}")
        return scores

    def _check_digits(self, scores: Float[np.ndarray, " T"], texts: Sequence[str]) -> None:
        """Raises Wrong where a model's tokens are single digits, so that 1 may be the beginning of 12."""
        single, several = np.isfinite(scores[:9]), np.isfinite(scores[9:])
        if self._api.marks == "numbers" and several.size > 2 and single.all() and not several.any():
            raise Wrong("its tokens seem to be single digits; set api.marks=letters")


def _alternatives(answer: Any) -> list[tuple[str, float]]:
    """Tokens that the answer might have begun with, and their log-probabilities."""
    choices = rows(field(answer, "choices"))
    if not choices:
        raise Wrong("it has no choices")
    told = field(choices[0], "logprobs")
    if not isinstance(told, Mapping):
        raise Wrong("it has no log-probabilities; choose a model that gives them")
    content = rows(field(told, "content"))
    if not content:
        raise Wrong("it is empty")
    found = []
    for row in rows(field(content[0], "top_logprobs")):
        token, logarithm = field(row, "token"), number(field(row, "logprob"))
        if isinstance(token, str):
            found.append((token, logarithm))
    return found
