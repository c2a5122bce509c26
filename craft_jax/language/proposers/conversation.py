"""One question and one reply of a language model in OpenAI's chat form, by the client that all requests over HTTP take.

Replies are kept in the store of answers: a resumed or repeated run asks nothing twice. What comes is judged elsewhere.
"""

import contextlib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax import folders
from craft_jax.blackbox import Ledger, apis
from craft_jax.config import ChatConfig
from craft_jax.errors import UserError

_CHARACTERS = 3  # of a token, as a first guess
_REFUSED = (400, 404, 415, 422, 501)  # statuses of servers that know no structured replies


class Reply(NamedTuple):
    """What came: the text, empty where there is none, and what is wrong with it, empty where nothing is."""

    text: str
    wrong: str = ""


class Conversation:
    """Asks one language model. Each question stands alone.

    Args:
      chat: where and how.

    Raises:
      UserError: where the key cannot be sent, or the store cannot be opened.
    """

    def __init__(self, chat: ChatConfig) -> None:
        self._chat = chat
        self._store = _store(folders.expanded(chat.store, "chat.store") if chat.store else None)
        with _names_of_chat(chat):
            self._client = apis.Client(chat.address, chat.asking, self._store, _say)
        self._address = apis.ending(chat.address, "chat/completions")
        self._owner = self._store.owner(f"proposals {chat.address} {chat.model}")
        self._structured = True

    @property
    def sent(self) -> Ledger:
        """What was sent since this was made."""
        return self._client.sent

    def ask(self, question: str, schema: Mapping[str, Any], number: int) -> Reply:
        """The reply to a question; kept, it is the same for ever.

        Args:
          question: of one message.
          schema: of a reply in JSON, where the server has such.
          number: of the call in its run, so that the same question may get another reply later in it.

        Raises:
          CeilingReached: where a ceiling covers no further request.
          UserError: where the server refuses or does not answer.
        """
        about = f"{number} {self._chat.reply_tokens} {json.dumps(schema, sort_keys=True)} {question}"
        subject = hashlib.sha256(about.encode()).digest()
        kept = self._store.get(self._owner, [subject]).get(subject)
        if kept is None:
            with _names_of_chat(self._chat):
                answer = self._answer(question, schema)
            kept = answer.content
            self._store.put(self._owner, {subject: kept})
        return _read(apis.Answer(200, kept))

    def _answer(self, question: str, schema: Mapping[str, Any]) -> apis.Answer:
        if self._structured:
            answer = self._send(question, {"response_format": _format(schema)}, (200, *_REFUSED))
            if answer.status == 200:
                return answer
            self._structured = False
        return self._send(question, {}, (200,))

    def _send(self, question: str, more: Mapping[str, Any], accept: tuple[int, ...]) -> apis.Answer:
        body = {
            "model": self._chat.model,
            "messages": [{"role": "user", "content": question}],
            self._chat.token_limit: self._chat.reply_tokens,
            **more,
        }
        request = apis.json_request(self._address, body, 0, len(question) // _CHARACTERS + self._chat.reply_tokens)
        return self._client.ask(request._replace(accept=accept), lambda answer: answer)


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "proposals", "strict": True, "schema": schema}}


def _read(answer: apis.Answer) -> Reply:
    """The text of the first choice."""
    try:
        choices = apis.rows(apis.field(answer.json, "choices"))
        if not choices:
            return Reply("", "it has no choices")
        message = apis.field(choices[0], "message")
        refusal = message.get("refusal") if isinstance(message, Mapping) else None
        content = apis.field(message, "content")
    except apis.Wrong as error:
        return Reply("", str(error))
    if isinstance(content, list):  # in parts
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str) or not content.strip():
        return Reply("", "it refuses" if isinstance(refusal, str) and refusal else "it is empty")
    return Reply(content)


@contextlib.contextmanager
def _names_of_chat(chat: ChatConfig) -> Iterator[None]:
    """The client speaks of the black box's settings; inside, of the language model's."""
    try:
        yield
    except UserError as error:
        told = re.sub(r"(?<![\w.])api\.(?=\w+)", "chat.", str(error)).replace("black_box.model", "chat.address")
        raise type(error)(told) from error


@functools.cache
def _store(path: Path | None) -> apis.Store:
    return apis.Store(path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
