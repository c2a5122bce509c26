"""The query meter: counts what an owner would bill, and refuses what the budget does not cover.

It counts prompts (the paper's queries) and predictions (prompts x images), by what they were asked for.
"""

import dataclasses
import operator

from craft_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What a run has asked of its black box so far.

    Attributes:
      prompts: candidate prompts that the search queried; the budget counts these.
      search_predictions: predictions (prompts x images) asked for the search.
      centre_predictions: predictions of the present prompt, which train the refinement head and centre the search.
      evaluation_predictions: predictions asked to measure accuracy and to choose.
      images_encoded: images taken in, each view once.
    """

    prompts: int = 0
    search_predictions: int = 0
    centre_predictions: int = 0
    evaluation_predictions: int = 0
    images_encoded: int = 0

    def __add__(self, other: "Ledger") -> "Ledger":
        """Entry by entry."""
        return Ledger(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __mul__(self, times: int) -> "Ledger":
        """The same queries, `times` over."""
        return Ledger(*(entry * times for entry in dataclasses.astuple(self)))


class BudgetExceeded(UserError):
    """A query was refused, unsent, because the budget does not cover it."""


class Meter:
    """Stands before every query of a black box.

    Args:
      budget: prompts that the search may query; None admits any number and only counts.
      ledger: what was spent before, on a resumed run.
    """

    def __init__(self, budget: int | None, ledger: Ledger = Ledger()) -> None:
        self.budget = budget
        self.ledger = ledger

    def admit(self, cost: Ledger) -> None:
        """Books `cost`; call it before the query is sent.

        Raises:
          BudgetExceeded: where the budget does not cover it; nothing is booked then.
        """
        spent = self.ledger + cost
        if self.budget is not None and spent.prompts > self.budget:
            raise BudgetExceeded(
                f"the query budget of {self.budget} prompts does not cover {cost.prompts} more "
                f"after {self.ledger.prompts}; the query was not sent"
            )
        self.ledger = spent
