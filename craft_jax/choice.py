"""The choice on held-out photographs among zero-shot, the tuned prompt, and the tuned prompt with the refinement head.

Where few shots mislead, tuning can end below zero-shot; held-out photographs (never the test's) can tell.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from craft_jax import evaluation, objectives
from craft_jax.blackbox.meter import Meter
from craft_jax.blackbox.wall import BlackBox, Handle
from craft_jax.checkpoints import TunedModel
from craft_jax.data.fewshot import FewShotSet, Labelled
from craft_jax.errors import UserError
from craft_jax.randomness import Stream, host_generator

ZERO_SHOT, PROMPT, REFINED = "zero-shot", "prompt", "prompt + refinement"
_TEMPERATURES = 2.0 ** np.arange(-4, 2.5, 0.5)


def contender(name: str, tuned: TunedModel, unlearnt: TunedModel) -> TunedModel:
    """The model that goes by one of the three names; the unlearnt one's head changes nothing."""
    return {ZERO_SHOT: unlearnt, PROMPT: tuned._replace(head=unlearnt.head), REFINED: tuned}[name]


def losses(
    black_box: BlackBox, tuned: TunedModel, unlearnt: TunedModel, handle: Handle, labels: Int[Array, " N"], meter: Meter
) -> dict[str, float]:
    """Each contender's cross-entropy on held-out photographs, at its own best temperature.

    Args:
      black_box: that they were tuned for.
      tuned: after the last step.
      unlearnt: as the run began.
      handle: of the held-out photographs.
      labels: theirs.
      meter: stands before the two queries.
    """
    plain, refined = evaluation.logits(black_box, tuned, handle, labels.size, meter)
    start, _ = evaluation.logits(black_box, unlearnt, handle, labels.size, meter)
    answers = {ZERO_SHOT: start, PROMPT: plain, REFINED: refined}
    return {name: float(_best_cross_entropy(logits, labels)) for name, logits in answers.items()}


def _best_cross_entropy(logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    return jax.vmap(lambda t: objectives.cross_entropy(t * logits, labels))(jnp.asarray(_TEMPERATURES)).min()


def hold_out(photographs: FewShotSet, held_out: str, seed: int) -> tuple[FewShotSet, tuple[Labelled, ...]]:
    """The set to train on, and the photographs to choose by: its validation part, or a quarter of each class's shots.

    Args:
      photographs: with the shots drawn.
      held_out: `validation`, `shots` or `none`.
      seed: of the run.

    Raises:
      UserError: where shots are to be held out of a class that has one alone.
    """
    if held_out == "none":
        return photographs, ()
    if held_out == "validation":
        return photographs, photographs.val
    held = _quarter_of_each_class(photographs, seed)
    kept = tuple(item for i, item in enumerate(photographs.train) if i not in held)
    return dataclasses.replace(photographs, train=kept), tuple(photographs.train[i] for i in sorted(held))


def _quarter_of_each_class(photographs: FewShotSet, seed: int) -> set[int]:
    rng = host_generator(seed, Stream.HELD_OUT)
    held: set[int] = set()
    for label, name in enumerate(photographs.class_names):
        rows = _rows_of(photographs.train, label)
        if len(rows) < 2:
            raise UserError(
                f"held_out=shots leaves class {name!r} without a training photograph; raise data.shots to 2 or more, "
                "or use held_out=validation or none"
            )
        held |= {rows[i] for i in rng.permutation(len(rows))[: max(1, len(rows) // 4)]}
    return held


def _rows_of(items: Sequence[Labelled], label: int) -> list[int]:
    return [i for i, item in enumerate(items) if item.label == label]
