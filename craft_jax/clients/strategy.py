"""The exchange of the closed form, step by step, whoever carries the messages: this process, or Flower's.

A client that does not answer is left out from then on; the others go on without it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from craft_jax.clients import privacy, trust
from craft_jax.clients.client import JUDGE, OFFER, SEND, SETTLE, SETTLE_HEAD, Message
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.trust import Match
from craft_jax.errors import UserError

Carry = Callable[[str, dict[int, Message]], dict[int, Message]]
"""(step, messages by client) -> replies by client; one that is gone is not among them."""


class Exchanged(NamedTuple):
    """How an exchange went.

    Attributes:
      trust: that row gives to column, in [0, 1], 1 to itself; 0 for clients that were lost.
      lost: clients that did not answer.
    """

    trust: Float[np.ndarray, "M M"]
    lost: tuple[int, ...]


def exchange(carry: Carry, config: ClientsConfig, clients: int, groups: Sequence[int] | None = None) -> Exchanged:
    """Carries out one exchange among M clients.

    Args:
      carry: takes messages to clients and brings their replies.
      config: which trust, and whether under masks.
      clients: M.
      groups: the true ones, for the oracle.

    Raises:
      UserError: where fewer than two clients answer.
    """
    offers = carry(OFFER, {i: {} for i in range(clients)})
    _check_enough(offers, clients)
    believed, offers = _trust(carry, config, clients, offers, groups)
    if config.trust == "alone":
        return Exchanged(believed, _lost(offers, clients))
    if config.trust == "average":
        mean = {name: np.mean([offer[name] for offer in offers.values()], axis=0) for name in ("weights", "bias")}
        settled = carry(SETTLE_HEAD, dict.fromkeys(offers, mean))
    else:
        totals = (_masked_totals if config.masks else _totals)(carry, believed, sorted(offers), clients)
        settled = carry(SETTLE, {i: {"total": total} for i, total in totals.items()})
    there = np.isin(np.arange(clients), list(settled))
    return Exchanged(np.where(np.outer(there, there), believed, 0.0), _lost(settled, clients))


def _trust(
    carry: Carry,
    config: ClientsConfig,
    clients: int,
    offers: dict[int, Message],
    groups: Sequence[int] | None,
) -> tuple[Float[np.ndarray, "M M"], dict[int, Message]]:
    """The trust matrix, and the offers of those who are still there."""
    if config.trust == "oracle":
        assert groups is not None
        return np.equal.outer(groups, groups).astype(float), offers
    if config.trust in ("pooled", "average"):
        return np.ones((clients, clients)), offers
    if config.trust == "alone":
        return np.eye(clients), offers
    if config.trust == "validation":
        there = sorted(offers)
        heads = {name: np.stack([offers[i][name] for i in there]) for name in ("weights", "bias", "held")}
        judged = carry(JUDGE, dict.fromkeys(there, heads))
        _check_enough(judged, clients)
        columns = [there.index(i) for i in sorted(judged)]
        rows = [[Match(*one) for one in judged[i]["matches"][columns]] for i in sorted(judged)]
        return _spread(trust.believe(rows), sorted(judged), clients), {i: offers[i] for i in judged}
    there = sorted(offers)
    return _spread(
        trust.believe([[_match(config, offers[i], offers[j]) for j in there] for i in there]), there, clients
    ), offers


def _match(config: ClientsConfig, mine: Message, theirs: Message) -> Match:
    if config.trust == "predictions":
        resemblance = trust.correlations(*(np.asarray(one["changes"], np.float64) for one in (mine, theirs)))
    else:
        resemblance = trust.cosines(mine["weights"].T, theirs["weights"].T)
    return trust.match(resemblance, mine["held"], theirs["held"])


def _totals(
    carry: Carry, believed: np.ndarray, there: Sequence[int], clients: int
) -> dict[int, Float[np.ndarray, " n"]]:
    """Each client's trust-weighted sum of what the clients have sent."""
    sent = carry(SEND, {i: {} for i in there})
    _check_enough(sent, clients)
    order = sorted(sent)
    return {i: sum(believed[i, j] * sent[j]["statistics"] for j in order) for i in order}


def _masked_totals(
    carry: Carry, believed: np.ndarray, there: Sequence[int], clients: int
) -> dict[int, Float[np.ndarray, " n"]]:
    """The same under masks: a sum for each receiver, of which its adder sees the sum alone.

    Where a client is lost between, its masks do not cancel, and those who are left send anew without it.
    """
    attempt = 0
    while True:
        partners = np.isin(np.arange(clients), list(there))
        receivers, which = np.unique(believed[np.ix_(there, there)], axis=0, return_inverse=True)
        messages = {
            j: {"trust": receivers[:, column], "partners": partners, "attempt": np.array(attempt)}
            for column, j in enumerate(there)
        }
        sent = carry(SEND, messages)
        _check_enough(sent, clients)
        if set(sent) == set(there):
            break
        there, attempt = sorted(sent), attempt + 1
    sums = [privacy.unmasked([sent[j][f"masked {r}"] for j in there]) for r in range(len(receivers))]
    return {i: sums[row] for i, row in zip(there, which.ravel(), strict=True)}


def _spread(believed: np.ndarray, there: Sequence[int], clients: int) -> Float[np.ndarray, "M M"]:
    whole = np.zeros((clients, clients))
    whole[np.ix_(there, there)] = believed
    return whole


def _lost(answered: dict[int, Message], clients: int) -> tuple[int, ...]:
    return tuple(i for i in range(clients) if i not in answered)


def _check_enough(answered: dict[int, Message], clients: int) -> None:
    if len(answered) < 2:
        raise UserError(f"{len(answered)} of {clients} clients answered; an exchange needs two at least")
