"""A black box behind its meter: the one thing that a run can query, each question with its cost, booked before it goes.

So a query that nobody counts cannot be written: outside this room and the traced step only `Metered` is at hand.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float

from craft_jax.blackbox.billing import sent_to
from craft_jax.blackbox.interface import BlackBox, Handle, check_finite
from craft_jax.blackbox.meter import Ledger, Meter
from craft_jax.blackbox.texts import fits
from craft_jax.data import pixels

_IMAGES_AT_ONCE = 1024

P = ParamSpec("P")
T = TypeVar("T")


class Metered:
    """Tells what the black box tells of itself, and asks it what the meter admits.

    Args:
      black_box: that is asked.
      budget: prompts that the search may query; None admits any number and only counts.
    """

    def __init__(self, black_box: BlackBox, budget: int | None) -> None:
        self._black_box = black_box
        self.meter = Meter(budget, sent=sent_to(black_box))

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        return self._black_box.identity

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the logits."""
        return self._black_box.class_names

    @property
    def image_size(self) -> int:
        """Side of the square images that it takes, in pixels."""
        return self._black_box.image_size

    @property
    def resizing(self) -> pixels.Resizing:
        """How a photograph is resized before that square is cut out of it."""
        return self._black_box.resizing

    @property
    def takes(self) -> frozenset[str]:
        """SOFT_PROMPTS, TEXTS, or both."""
        return self._black_box.takes

    @property
    def initial_prompt(self) -> Float[Array, "n_ctx d"]:
        """The unlearnt soft prompt."""
        return self._black_box.initial_prompt

    def fits(self, text: str) -> bool:
        """Whether a local model takes a text; True where nobody can tell before it is asked."""
        return fits(self._black_box, text)

    def handle_of(self, images: int) -> Handle:
        """The shapes and dtypes of N images' handle; asks nothing."""
        blank = jax.ShapeDtypeStruct((images, self.image_size, self.image_size, 3), np.uint8)
        return jax.eval_shape(self._black_box.encode_images, blank)

    def predict(
        self, prompts: Float[Array, "K n_ctx d"] | Float[Array, "K C n_ctx d"], handle: Handle, *, cost: Ledger
    ) -> Float[Array, "K N C"]:
        """`BlackBox.predict`, booked first.

        Raises:
          BudgetExceeded: where the budget does not cover `cost`; nothing is asked then.
        """
        self.meter.admit(cost)
        return self._black_box.predict(prompts, handle)

    def predict_texts(self, texts: Sequence[str], handle: Handle, *, cost: Ledger) -> Float[Array, "N T"]:
        """`BlackBox.predict_texts`, booked first.

        Raises:
          BudgetExceeded: where the budget does not cover `cost`; nothing is asked then.
        """
        self.meter.admit(cost)
        return self._black_box.predict_texts(texts, handle)

    def predict_texts_in_parts(self, texts: Sequence[str], handle: Handle, *, cost: Ledger) -> Float[np.ndarray, "N T"]:
        """`predict_texts` about any number of images, some at a time, which bounds memory.

        Raises:
          BudgetExceeded: as `predict_texts`.
          UserError: where an answer is not finite.
        """
        self.meter.admit(cost)
        parts = []
        for first in range(0, jax.tree.leaves(handle)[0].shape[0], _IMAGES_AT_ONCE):
            rows = jax.tree.map(lambda leaf, first=first: leaf[first : first + _IMAGES_AT_ONCE], handle)
            parts.append(np.asarray(self._black_box.predict_texts(texts, rows)))
        answers = np.concatenate(parts)
        check_finite(answers, self)
        return answers

    def program(self, build: Callable[[BlackBox], Callable[P, T]]) -> Callable[Concatenate[Ledger, P], T]:
        """A compiled program that asks the black box, each of its calls booked first.

        Args:
          build: from the black box, as the program is traced with, to the program.

        Returns:
          (cost, arguments of the program) -> what it returns. Raises BudgetExceeded as `predict` does.
        """
        asks = build(self._black_box)

        def call(cost: Ledger, *args: P.args, **kwargs: P.kwargs) -> T:
            self.meter.admit(cost)
            return asks(*args, **kwargs)

        return call
