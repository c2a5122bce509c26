"""What a model over HTTP is sent and costs: counted, foreseen, and held against ceilings."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from craft_jax.blackbox.meter import Ledger
from craft_jax.blackbox.remote import RemoteBlackBox
from craft_jax.errors import UserError


class CeilingReached(UserError):
    """A request was not sent, because a ceiling does not cover it."""


class Ceilings(NamedTuple):
    """What may ever be sent to an address; 0 sets no limit."""

    requests: int = 0
    tokens: int = 0
    money: float = 0.0
    price_request: float = 0.0
    price_1000_tokens: float = 0.0

    def price(self, requests: int, tokens: int) -> float:
        """What these cost."""
        return requests * self.price_request + tokens / 1000 * self.price_1000_tokens


class Bill(NamedTuple):
    """What was ever sent to an address, since the day that `since` names."""

    since: str
    requests: int
    tokens: int


class Estimate(NamedTuple):
    """What asking about images would take, at most.

    Attributes:
      requests: to ask.
      size: of them, in bytes.
      tokens: that they would take.
      later: requests for an image that is labelled later.
      answered: share of a sample that was answered before.
      before: what was ever sent to the address.
      ceilings: that hold.
    """

    requests: int
    size: float
    tokens: int
    later: int
    answered: float
    before: Bill
    ceilings: Ceilings


def sent_to(black_box: Any) -> Callable[[], Ledger] | None:
    """What tells of the requests that were sent to a remote black box; None where nothing counts them."""
    owner: Any = black_box._desk.owner if isinstance(black_box, RemoteBlackBox) else None
    return (lambda: owner.sent) if hasattr(owner, "sent") else None


def cost_of(
    black_box: Any, texts: Sequence[str], sample: UInt8[np.ndarray, "n size size 3"], images: int
) -> Estimate | None:
    """What asking T texts about images like those of a sample would take over HTTP; None where nobody can tell."""
    owner: Any = black_box._desk.owner if isinstance(black_box, RemoteBlackBox) else None
    return owner.estimate(texts, sample, images) if hasattr(owner, "estimate") else None
