"""What a server takes at most, and what it has taken."""

import dataclasses
from typing import Any, NamedTuple

from craft_jax.errors import UserError


class Refused(UserError):
    """A request that is answered with an error of 4xx or 503.

    Args:
      message: what is wrong with it, and the remedy.
      status: of HTTP.
      about: further parts of the answer, JSON values.
    """

    def __init__(self, message: str, status: int = 400, **about: Any) -> None:
        super().__init__(message)
        self.status, self.about = status, about


class Limits(NamedTuple):
    """Of one request, but for the last three, which are of the server.

    Attributes:
      body: bytes.
      seconds: for a body to arrive in.
      images, texts, prompts: how many; class names are texts.
      characters: of a text.
      pixels: of an image.
      answer: bytes of an array.
      in_flight: requests at once.
      kept_images, kept_texts: features kept, the ones asked for last.
    """

    body: int = 64 * 2**20
    seconds: float = 60.0
    images: int = 1024
    texts: int = 4096
    prompts: int = 1024
    characters: int = 2000
    pixels: int = 50_000_000
    answer: int = 512 * 2**20
    in_flight: int = 128
    kept_images: int = 100_000
    kept_texts: int = 100_000

    def check(self, what: str, count: int) -> None:
        """Raises Refused where a request has none, or too many, of `what`: images, texts or prompts."""
        most = getattr(self, what)
        if not count:
            raise Refused(f"there are no {what}; send one at least")
        if count > most:
            raise Refused(f"{count} {what} in one request; this server takes {most}", 413)


@dataclasses.dataclass
class Counts:
    """What has arrived since the start; the content of a request counts once it is ready to be answered.

    Attributes:
      requests: to any address that asks the model, refused ones too.
      answered: requests that were answered with what they asked for.
      images, texts, prompts: in them, class names as texts, repeats too.
      predictions: prompts, or texts, x images, where images were sent before.
      encoded_images, encoded_texts: those that were not in memory.
    """

    requests: int = 0
    answered: int = 0
    images: int = 0
    texts: int = 0
    prompts: int = 0
    predictions: int = 0
    encoded_images: int = 0
    encoded_texts: int = 0
