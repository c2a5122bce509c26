"""Settings of a model that is asked over HTTP: how it is asked, what it may cost, where its answers are kept."""

import dataclasses
import urllib.parse

from craft_jax.config.validation import NOT_NEGATIVE, POSITIVE, at_least, one_of, setting
from craft_jax.errors import UserError

FORMS = ("labels", "compare", "rank", "embeddings", "chat", "soft")
"""Of requests, which `black_box.api` names."""

MOST_MARKS = 20
"""Labels that a chat's answer tells of: the likeliest tokens that OpenAI's form lists."""

_OPENAI_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiConfig:
    """How a model is asked over HTTP, where `black_box.api` names a form and `black_box.model` an address.

    The first eight change what is answered, and a run keeps them; the others may change where it is resumed.

    Attributes:
      model: name that requests carry, where the form has a place for one (embeddings, chat).
      image_format: `jpeg`, or `png` without loss and several times as large.
      image_size: side of the squares that are sent, in pixels; with `soft` the server says it.
      texts: in a request at most; 0 is what the form takes: all, and 20 in chat.
      top: labels that an answer holds, where the API answers the likeliest alone; 0 wants all.
      logit_scale: what cosines are multiplied with to be logits (compare, embeddings); published CLIPs have 100.
      images_as: how embeddings take an image: `uri` (a data URI, with modality=image; Infinity) or `object`
        ({"image": base64}; Jina).
      marks: that stand before the labels in chat: `numbers`, or `letters` for models whose tokens are single digits.
      token_limit: what chat calls the most tokens to answer: `max_tokens`, or OpenAI's newer `max_completion_tokens`.
      key_variable: environment variable that holds the key; without it requests carry none.
      key_header: that carries the key; with Authorization it follows the word Bearer.
      in_flight: requests at once.
      per_minute: requests a minute at most, of all processes that share the store; 0 sets no limit.
      timeout: seconds to wait for an answer.
      attempts: how often a request is sent at most, where a connection breaks or the server says to come again.
      pause: seconds before the second attempt, doubled before each further one; a server's Retry-After counts more.
      max_requests: ceiling on the requests that were ever sent to the address, by the store's count over all runs and
        processes; the one that would pass it is not sent. 0 sets none.
      max_tokens: the same for tokens, which answers tell; those of the next request are guessed from others.
      max_money: the same for money, at the prices below.
      price_request: of a request, for estimates and max_money.
      price_1000_tokens: of 1,000 tokens.
      store: file of answers, which are asked once; by default in the user's cache folder.
    """

    model: str = setting("")
    image_format: str = setting("jpeg", one_of("jpeg", "png"))
    image_size: int = setting(224, at_least(1))
    texts: int = setting(0, at_least(0))
    top: int = setting(0, at_least(0))
    logit_scale: float = setting(100.0, POSITIVE)
    images_as: str = setting("uri", one_of("uri", "object"))
    marks: str = setting("numbers", one_of("numbers", "letters"))
    token_limit: str = setting("max_tokens", one_of(*_OPENAI_LIMITS))
    key_variable: str = setting("CRAFT_JAX_API_KEY")
    key_header: str = setting("Authorization")
    in_flight: int = setting(4, at_least(1))
    per_minute: int = setting(0, at_least(0))
    timeout: float = setting(60.0, POSITIVE)
    attempts: int = setting(6, at_least(1))
    pause: float = setting(1.0, NOT_NEGATIVE)
    max_requests: int = setting(0, at_least(0))
    max_tokens: int = setting(0, at_least(0))
    max_money: float = setting(0.0, NOT_NEGATIVE)
    price_request: float = setting(0.0, NOT_NEGATIVE)
    price_1000_tokens: float = setting(0.0, NOT_NEGATIVE)
    store: str = setting("")


SHAPES_ANSWERS = ("model", "image_format", "image_size", "texts", "top", "logit_scale", "images_as", "marks")
"""Those of its settings that change what is answered."""

_SECRETS = ("key", "token", "secret", "sig", "password")


def check_api(model: str, form: str, api: ApiConfig) -> None:
    """Raises UserError where an address and a form of requests do not go together, or the address holds a secret."""
    parts = urllib.parse.urlsplit(model)
    is_address = parts.scheme in ("http", "https")
    if is_address and not form:
        raise UserError(f"black_box.model is an address; set black_box.api to its form: {', '.join(FORMS)}")
    if not form:
        return
    if not is_address or not parts.hostname:
        raise UserError(f"black_box.api={form} needs an address, such as https://example.com/v1, as black_box.model")
    check_secrets(parts, "black_box.model", api.key_variable)
    if form in ("embeddings", "chat") and not api.model:
        raise UserError(f"black_box.api={form} asks a model by name; set api.model")
    if form == "chat" and api.texts > MOST_MARKS:
        raise UserError(f"api.texts={api.texts}: chat answers {MOST_MARKS} labels a request at most")


def check_secrets(address: urllib.parse.SplitResult, name: str, key_variable: str) -> None:
    """Raises UserError where an address, the setting `name`, holds a secret."""
    named = [part for part, _ in urllib.parse.parse_qsl(address.query, keep_blank_values=True)]
    if address.username or address.password or any(secret in part.lower() for part in named for secret in _SECRETS):
        raise UserError(
            f"{name} holds a key, and checkpoints and reports would show it; put the key into the environment "
            f"variable {key_variable} and take it out of the address"
        )
