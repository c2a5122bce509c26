"""The query meter: counts what an owner would bill, and refuses what the budget does not cover.

It counts prompts (the paper's queries) and predictions (prompts x images), by what they were asked for.
"""

import dataclasses
import operator
from collections.abc import Callable

from craft_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What a run has asked of its black box so far.

    Attributes:
      prompts: candidate prompts that the search queried, and texts (below); the budget counts these.
      search_predictions: predictions (prompts x images) asked for the search.
      centre_predictions: predictions of the present prompt, which train the refinement head and centre the search.
      evaluation_predictions: predictions asked to measure accuracy and to choose.
      images_encoded: images taken in, each view once.
      texts: captions asked before the search; C of them are counted as one of the prompts.
      probe_predictions: predictions asked of training views by these.
      requests: sent over HTTP by this process, attempts that failed among them; what was stored is not asked.
      texts_sent, bytes_sent: in these requests.
      tokens: that their answers say they took, or were expected to where they do not say.
      money: what these cost at the prices set.
      proposal_calls: of a language model, asked to propose texts; replies that were kept are counted too.
      proposal_tokens, proposal_money: that these took, kept ones left out.
    """

    prompts: int = 0
    search_predictions: int = 0
    centre_predictions: int = 0
    evaluation_predictions: int = 0
    images_encoded: int = 0
    texts: int = 0
    probe_predictions: int = 0
    requests: int = 0
    texts_sent: int = 0
    bytes_sent: int = 0
    tokens: int = 0
    money: float = 0.0
    proposal_calls: int = 0
    proposal_tokens: int = 0
    proposal_money: float = 0.0

    def __add__(self, other: "Ledger") -> "Ledger":
        """Entry by entry."""
        return Ledger(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __sub__(self, other: "Ledger") -> "Ledger":
        """Entry by entry."""
        return Ledger(*map(operator.sub, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __mul__(self, times: int) -> "Ledger":
        """The same queries, `times` over."""
        return Ledger(*(entry * times for entry in dataclasses.astuple(self)))


def prompts_for(texts: int, classes: int) -> int:
    """How many prompts T texts are counted as: the captions of the C classes make one."""
    return -(-texts // classes)


class BudgetExceeded(UserError):
    """A query was refused, unsent, because the budget does not cover it."""


class Meter:
    """Stands before every query of a black box.

    Args:
      budget: prompts that the search may query; None admits any number and only counts.
      ledger: what was spent before.
      sent: tells what a remote black box has sent so far, whose growth is added to the ledger.
    """

    def __init__(self, budget: int | None, ledger: Ledger = Ledger(), sent: Callable[[], Ledger] | None = None) -> None:
        self.budget = budget
        self._booked = ledger
        self._sent = sent or Ledger
        self._before = self._sent()

    @property
    def ledger(self) -> Ledger:
        """What was asked so far."""
        return self._booked + self.sent

    @ledger.setter
    def ledger(self, spent: Ledger) -> None:
        self._booked, self._before = spent, self._sent()

    @property
    def sent(self) -> Ledger:
        """What was sent since the ledger was last set, and is part of it."""
        return self._sent() - self._before

    def admit(self, cost: Ledger) -> None:
        """Books `cost`; call it before the query is sent.

        Raises:
          BudgetExceeded: where the budget does not cover it; nothing is booked then.
        """
        spent = self._booked + cost
        if self.budget is not None and spent.prompts > self.budget:
            raise BudgetExceeded(
                f"the query budget of {self.budget} prompts does not cover {cost.prompts} more "
                f"after {self._booked.prompts}; the query was not sent"
            )
        self._booked = spent
