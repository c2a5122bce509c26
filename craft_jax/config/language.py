"""Settings of the search over texts: who proposes them, how many, and the chat model that may be asked for them."""

import dataclasses
import urllib.parse

from craft_jax.config.api import ApiConfig, check_secrets
from craft_jax.config.validation import NOT_NEGATIVE, POSITIVE, at_least, one_of, setting
from craft_jax.errors import UserError

TEXTS_ALONE = ("probes", "texts")
"""What may be learnt, of `learn`, without soft prompts."""

ASKS_CHAT = ("chat", "published")
"""Proposers that ask a language model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The search over texts, where `learn=texts`: captions of all classes are proposed, asked and scored.

    Attributes:
      proposer: `mutation` (words and phrases of a library added, deleted, replaced, crossed over; no language
        model), `chat` (a language model is shown the best and the worst so far, and the classes most confused), or
        `published` (Liu et al., CVPR 2024: a pool, then one new template a call from the 3 best and the 3 worst).
      what: `templates` for all classes, `descriptions` of each class, or `both` in turns.
      wordings: sets of captions, one a class, asked at most; each counts as a prompt, a part of it as its part.
      start: of these, drawn from the library before anything is proposed.
      each_round: proposals between two looks at the scores.
    """

    proposer: str = setting("mutation", one_of("mutation", *ASKS_CHAT))
    what: str = setting("templates", one_of("templates", "descriptions", "both"))
    wordings: int = setting(100, at_least(2))
    start: int = setting(20, at_least(1))
    each_round: int = setting(8, at_least(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """The language model that proposes texts, at an address that answers OpenAI's chat form.

    Model, calls and reply_tokens change what is learnt; the others may change where a run is resumed.

    Attributes:
      address: such as https://api.openai.com/v1; /chat/completions is added where it is missing.
      model: name that requests carry.
      calls: to the model in one run at most, bad replies among them.
      reply_tokens: of a reply at most.
      token_limit: what the server calls that: `max_tokens`, or OpenAI's newer `max_completion_tokens`.
      key_variable: environment variable that holds the key; without it requests carry none.
      key_header: that carries the key; with Authorization it follows the word Bearer.
      per_minute: requests a minute at most; 0 sets no limit.
      timeout: seconds to wait for a reply.
      attempts: how often a request is sent at most, where a connection breaks or the server says to come again.
      pause: seconds before the second attempt, doubled before each further one; a server's Retry-After counts more.
      max_requests: ceiling on the requests that were ever sent to the address, by the store's count; a run that reaches
        it goes on with the texts that it has. 0 sets none.
      max_tokens: the same for tokens, which replies tell.
      max_money: the same for money, at the prices below.
      price_request: of a request.
      price_1000_tokens: of 1,000 tokens.
      store: file of replies, which are asked for once; by default in the user's cache folder.
    """

    address: str = setting("")
    model: str = setting("")
    calls: int = setting(20, at_least(1))
    reply_tokens: int = setting(600, at_least(1))
    token_limit: str = setting("max_tokens", one_of("max_tokens", "max_completion_tokens"))
    key_variable: str = setting("CRAFT_JAX_CHAT_KEY")
    key_header: str = setting("Authorization")
    per_minute: int = setting(0, at_least(0))
    timeout: float = setting(120.0, POSITIVE)
    attempts: int = setting(6, at_least(1))
    pause: float = setting(1.0, NOT_NEGATIVE)
    max_requests: int = setting(0, at_least(0))
    max_tokens: int = setting(0, at_least(0))
    max_money: float = setting(0.0, NOT_NEGATIVE)
    price_request: float = setting(0.0, NOT_NEGATIVE)
    price_1000_tokens: float = setting(0.0, NOT_NEGATIVE)
    store: str = setting("")

    @property
    def asking(self) -> ApiConfig:
        """How the address is asked, for the client that all requests over HTTP go through."""
        alike = {field.name for field in dataclasses.fields(ApiConfig)} & {f.name for f in dataclasses.fields(self)}
        return ApiConfig(in_flight=1, **{name: getattr(self, name) for name in alike})


def check_language(learn: str, language: LanguageConfig, chat: ChatConfig) -> None:
    """Raises UserError where a language model is to be asked and its address does not say where, or holds a secret."""
    if learn != "texts" or language.proposer not in ASKS_CHAT:
        return
    parts = urllib.parse.urlsplit(chat.address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        found = f"chat.address={chat.address!r}" if chat.address else "chat.address is empty"
        raise UserError(
            f"{found}; language.proposer={language.proposer} asks a language model: set chat.address to where "
            "it answers OpenAI's chat form, such as http://127.0.0.1:8000/v1, and chat.model to its name, or take the "
            "recipe mutation"
        )
    check_secrets(parts, "chat.address", chat.key_variable)
    if not chat.model:
        raise UserError("chat.model is empty; set it to the name of the language model at chat.address")
