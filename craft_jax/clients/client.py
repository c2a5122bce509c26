"""One client of the closed form: what it asks of the black box, what it lets out, what it makes of what comes back.

The same object answers in a simulation and behind a network (`strategy`): it takes and gives named arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from craft_jax.blackbox import Handle, Ledger, Metered, prompts_for
from craft_jax.clients import measures, privacy, trust
from craft_jax.clients.privacy import Basis
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Holding
from craft_jax.data import LazyImage
from craft_jax.encoding import Encoder
from craft_jax.method import StackedHead, stacked

Message = dict[str, np.ndarray]
OFFER, JUDGE, SEND, SETTLE, SETTLE_HEAD = "offer", "judge", "send", "settle", "settle_head"


class Answers(NamedTuple):
    """What the black box answers about a client's photographs, and about those that all see.

    Attributes:
      train: logits of each of V views of N photographs for T texts.
      labels: of the N.
      held_out, held_out_labels: of H photographs to adjust by.
      public: of P photographs.
    """

    train: Float[np.ndarray, "V N T"]
    labels: Int[np.ndarray, " N"]
    held_out: Float[np.ndarray, "H T"]
    held_out_labels: Int[np.ndarray, " H"]
    public: Float[np.ndarray, "P T"]


class Personal(NamedTuple):
    """What a client ends with.

    Attributes:
      head: for photographs of any class.
      own_mix: the same with the client's own mix of classes as prior.
    """

    head: StackedHead
    own_mix: StackedHead


class Item(NamedTuple):
    """An array that has left a client or come to it."""

    direction: str
    step: str
    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclasses.dataclass(frozen=True)
class Client:
    """A client with its photographs asked about.

    Attributes:
      index: among the M clients.
      classes: C.
      answers: about its photographs; never sent.
      config: what may be sent.
      rng: of the noise.
      secrets: shared with each other client, for masks; None at its own index.
      ledger: what it asked.
      log: what has left it and come to it, in order.
    """

    index: int
    classes: int
    answers: Answers
    config: ClientsConfig
    rng: np.random.Generator
    secrets: tuple[bytes | None, ...] = ()
    ledger: Ledger = Ledger()
    log: list[Item] = dataclasses.field(default_factory=list)
    settled: list[Personal] = dataclasses.field(default_factory=list)

    def reply(self, step: str, message: Message) -> Message:
        """What a step of the exchange (`strategy`) gets from this client; both ways are logged."""
        steps: dict[str, Callable[[Message], Message]] = {
            OFFER: self._offer,
            JUDGE: self._judge,
            SEND: self._send,
            SETTLE: self._settle,
            SETTLE_HEAD: self._settle_head,
        }
        self._note("in", step, message)
        reply = steps[step](message)
        self._note("out", step, reply)
        return reply

    @functools.cached_property
    def own(self) -> stacked.Statistics:
        """The statistics of all its photographs."""
        return of_views(self.answers.train, self.answers.labels, self.classes)

    @functools.cached_property
    def shown(self) -> stacked.Statistics:
        """What it lets out of them: classes with the least count, and noise where it is asked for. Drawn once."""
        answers, rows = self.answers, privacy.enough(self.answers.labels, self.config.least_count)
        train, labels = answers.train[:, rows], answers.labels[rows]
        if self.config.noise is None:
            return of_views(train, labels, self.classes)
        return privacy.noised(train, labels, self.classes, self.config.noise, self._basis, self.rng)

    @functools.cached_property
    def shown_head(self) -> StackedHead:
        """By what it lets out alone, so that predictions of it tell no more."""
        whole = self.config.least_count == 1 and self.config.noise is None
        return self.head_alone if whole else head_of(self.shown, self.views)

    @functools.cached_property
    def head_alone(self) -> StackedHead:
        """By its own photographs."""
        return head_of(self.own, self.views)

    @functools.cached_property
    def _basis(self) -> Basis:
        return privacy.basis(self.answers.public)

    @property
    def views(self) -> int:
        """V."""
        return len(self.answers.train)

    def personal(self, head: StackedHead) -> Personal:
        """The head, and the same with this client's own mix of classes as prior."""
        images = self.own.counts / self.views
        return Personal(head, of_own_mix(head, self.answers.held_out, self.answers.held_out_labels, images))

    def personal_sums(self, total: stacked.Statistics) -> Personal:
        """From trust-weighted sums of what clients showed; what this one held back of its own is added here."""
        head = head_of(_sum(total, self.own, self.shown), self.views)
        if self.config.noise is None:
            return self.personal(head)
        held_out, labels = self.answers.held_out, self.answers.held_out_labels
        share = measures.believable(lambda s: stacked.apply(_times(head, s), held_out), labels)
        return self.personal(_times(head, share))

    def _offer(self, message: Message) -> Message:
        held = {"held": self.shown.counts > 0}
        if self.config.trust == "predictions":
            return held | {"changes": change(self.shown_head, self.answers.public).astype(np.float32)}
        if self.config.trust in ("weights", "validation", "average"):
            return held | self.shown_head._asdict()
        return held

    def _judge(self, message: Message) -> Message:
        """How each client's head sees this one's photographs, summed over all of them (`trust.Match`)."""
        rows = np.concatenate(list(self.answers.train))
        labels = np.tile(self.answers.labels, self.views)
        held = self.own.counts > 0
        matches = []
        for weights, bias, theirs in zip(message["weights"], message["bias"], message["held"], strict=True):
            moved = change(StackedHead(weights, bias), rows)
            matches.append(trust.match(trust.by_images(moved, labels, held), held, theirs))
        return {"matches": np.array(matches, np.float64)}

    def _send(self, message: Message) -> Message:
        """The statistics; or, under masks, times the weight that each receiver of a sum gives them."""
        numbers = privacy.flat(self.shown)
        if not self.config.masks:
            return {"statistics": numbers}
        partners = message["partners"]
        secrets = [secret if there else None for secret, there in zip(self.secrets, partners, strict=True)]
        attempt = int(message["attempt"])
        return {
            f"masked {receiver}": privacy.masked(numbers, float(weight), self.index, secrets, f"{attempt}/{receiver}")
            for receiver, weight in enumerate(message["trust"])
        }

    def _settle(self, message: Message) -> Message:
        texts = self.answers.train.shape[-1]
        self.settled.append(self.personal_sums(privacy.unflat(message["total"], self.classes, texts)))
        return {}

    def _settle_head(self, message: Message) -> Message:
        self.settled.append(self.personal(StackedHead(message["weights"], message["bias"])))
        return {}

    def _note(self, direction: str, step: str, message: Message) -> None:
        self.log.extend(Item(direction, step, name, array.shape, array.nbytes) for name, array in message.items())


def of_views(answers: Float[np.ndarray, "V N T"], labels: Int[np.ndarray, " N"], classes: int) -> stacked.Statistics:
    """The statistics of N photographs in all their views."""
    return functools.reduce(stacked.add, (stacked.statistics(view, labels, classes) for view in answers))


def head_of(of: stacked.Statistics, views: int) -> StackedHead:
    """The head that statistics of photographs in V views each give, by the rule."""
    images = of.counts / views
    held = int(np.sum(images >= 0.5))
    if not held:
        return stacked.nothing(len(of.scatter), len(of.counts))
    return stacked.fit(of, max(images.sum() / held, 1.0))


def of_own_mix(
    head: StackedHead,
    held_out: Float[np.ndarray, "H T"],
    labels: Int[np.ndarray, " H"],
    images: Float[np.ndarray, " C"],
) -> StackedHead:
    """The head with a client's own mix of classes as prior, by its held-out photographs (`measures.own_mix_bias`)."""
    bias = measures.own_mix_bias(stacked.apply(head, held_out), labels, images)
    return StackedHead(head.weights, (head.bias + bias).astype(np.float32))


def change(head: StackedHead, answers: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N C"]:
    """By how much a head moves the logits."""
    return stacked.centred(np.asarray(answers, np.float64)) @ head.weights + head.bias


def ask(
    holding: Holding,
    public: Sequence[LazyImage],
    texts: Sequence[str],
    encoder: Encoder,
    *,
    views: int,
    seed: int,
) -> Answers:
    """Asks the black box for the texts about a client's photographs, in V views, and about those that all see.

    Raises:
      UserError: where a photograph cannot be read, or an answer is not finite.
    """

    def crops(images: Sequence[LazyImage]) -> np.ndarray:
        if not images:
            return np.zeros((0, len(texts)), np.float32)
        return about(encoder.black_box, encoder.centre_crops(images), texts, probing=False)

    train = [item.image for item in holding.train]
    handle = encoder.fixed_views(train, views=views, pieces=0, seed=seed)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), handle)
    return Answers(
        train=about(encoder.black_box, flat, texts, probing=True).reshape(views, len(train), len(texts)),
        labels=np.array([item.label for item in holding.train]),
        held_out=crops([item.image for item in holding.held_out]),
        held_out_labels=np.array([item.label for item in holding.held_out], int),
        public=crops(public),
    )


def about(black_box: Metered, handle: Handle, texts: Sequence[str], *, probing: bool) -> Float[np.ndarray, "N T"]:
    """The logits of N encoded images for T texts, booked before they are asked for."""
    images = jax.tree.leaves(handle)[0].shape[0]
    prompts = prompts_for(len(texts), len(black_box.class_names))
    cost = Ledger(evaluation_predictions=prompts * images)
    if probing:
        cost = Ledger(prompts=prompts, texts=len(texts), probe_predictions=prompts * images)
    return black_box.predict_texts_in_parts(texts, handle, cost=cost)


def _times(head: StackedHead, share: float) -> StackedHead:
    return StackedHead(head.weights * np.float32(share), head.bias * np.float32(share))


def _sum(total: stacked.Statistics, own: stacked.Statistics, shown: stacked.Statistics) -> stacked.Statistics:
    """The total with a client's own statistics in the place of what it showed."""
    return stacked.Statistics(*(a + (b - c) for a, b, c in zip(total, own, shown, strict=True)))
