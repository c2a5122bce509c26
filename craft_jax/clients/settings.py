"""What the command line says of clients beside the settings of a run, checked and frozen."""

import dataclasses
from typing import NamedTuple

from craft_jax.errors import UserError

SPLITS = ("iid", "dirichlet", "disjoint", "domains", "permuted", "noisy", "folders")
LEARNT = ("weights", "validation", "predictions")
EXCHANGES = ("statistics", "prompt", "head", "both")
BASELINES = ("alone", "average", "pooled", "oracle")


class Split(NamedTuple):
    """How photographs come to clients.

    Attributes:
      kind: one of `SPLITS`.
      number: Dirichlet's alpha, how many domains or groups; 0 where the kind takes none.
    """

    kind: str
    number: float


class Noise(NamedTuple):
    """Gaussian noise on what a client sends: (epsilon, delta)-differential privacy for each of its photographs."""

    epsilon: float
    delta: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientsConfig:
    """Who trusts whom with what.

    Attributes:
      clients: how many, M; of `folders` 0 takes all there are.
      split: how photographs come to them.
      trust: one of `LEARNT`, or of `BASELINES`.
      exchange: `statistics`, once; or what clients that search have learnt, the `prompt` (z), the `head`, or `both`.
      every: steps between two exchanges of these.
      public: unlabelled photographs that all see, drawn from those that are nobody's.
      least_count: photographs of a class below which a client sends nothing of it.
      noise: on what is sent; None adds none.
      masks: sends sums under masks that cancel in the sum of all clients.
    """

    clients: int = 10
    split: Split = Split("dirichlet", 0.1)
    trust: str = "predictions"
    exchange: str = "statistics"
    every: int = 5
    public: int = 128
    least_count: int = 1
    noise: Noise | None = None
    masks: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where a value is out of range, or at odds with another."""
        if self.split.kind != "folders" and self.clients < 2:
            raise UserError(f"--clients={self.clients} must be at least 2")
        for name, least in (("clients", 0), ("public", 0), ("least_count", 1), ("every", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}={getattr(self, name)} must be at least {least}")
        if self.trust not in LEARNT + BASELINES:
            raise UserError(f"--trust={self.trust} must be one of {', '.join(LEARNT + BASELINES)}")
        if self.exchange not in EXCHANGES:
            raise UserError(f"--exchange={self.exchange} must be one of {', '.join(EXCHANGES)}")
        if self.exchange != "statistics" and (self.noise or self.masks or self.least_count > 1):
            raise UserError(
                f"--noise, --masks and --least_count are of sums; --exchange={self.exchange} sends none, leave them out"
            )
        if self.trust == "predictions" and not self.public:
            raise UserError("--trust=predictions compares clients on public photographs; raise --public")
        if self.noise and not self.public:
            raise UserError("--noise is measured in units of public photographs' answers; raise --public")
        if self.noise and self.trust == "validation":
            raise UserError(
                "--trust=validation looks at photographs without noise; with --noise choose predictions or weights"
            )
        if self.masks and self.trust in ("alone", "average"):
            raise UserError(f"--masks hides statistics, of which --trust={self.trust} sends none; leave it out")


def parse_split(text: str) -> Split:
    """The split that `--split` names: `dirichlet:0.1`, `disjoint`, `domains:3`, `permuted:2`, `noisy`, `folders`.

    Raises:
      UserError: for an unknown kind, or a number that is none or out of range.
    """
    kind, _, number = text.partition(":")
    if kind not in SPLITS:
        raise UserError(f"--split={text} must be one of {', '.join(SPLITS)}, such as dirichlet:0.1")
    defaults = {"dirichlet": 0.1, "domains": 2.0, "permuted": 2.0}
    if number and kind not in defaults:
        raise UserError(f"--split={text}: {kind} takes no number; write --split={kind}")
    try:
        value = float(number) if number else defaults.get(kind, 0.0)
    except ValueError as error:
        raise UserError(f"--split={text}: {number!r} is no number; write such as {kind}:{defaults[kind]:g}") from error
    allowed = {"dirichlet": 1e-3 <= value <= 1e6, "domains": value in (2, 3), "permuted": value in range(2, 101)}
    if not allowed.get(kind, True):
        ranges = {"dirichlet": "between 0.001 and 1e6", "domains": "2 or 3", "permuted": "a whole number from 2 to 100"}
        raise UserError(f"--split={text}: the number must be {ranges[kind]}")
    return Split(kind, value)


def parse_noise(text: str) -> Noise | None:
    """`EPSILON:DELTA` of `--noise`; None where it is empty.

    Raises:
      UserError: where it is written otherwise or out of range.
    """
    if not text:
        return None
    try:
        epsilon, delta = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise UserError(f"--noise={text} must be EPSILON:DELTA, such as 8:1e-5") from error
    if not (0 < epsilon <= 100 and 0 < delta < 1):
        raise UserError(f"--noise={text}: epsilon must be above 0 and at most 100, delta between 0 and 1")
    return Noise(epsilon, delta)
