"""The choice on held-out photographs among zero-shot, the tuned prompt, and the tuned prompt with the refinement head.

Where few shots mislead, tuning can end below zero-shot; held-out photographs (never the test's) can tell.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from craft_jax import evaluation
from craft_jax.blackbox import BlackBox, Handle, Meter
from craft_jax.method import objectives
from craft_jax.tuned_model import TunedModel

ZERO_SHOT, PROMPT, REFINED = "zero-shot", "prompt", "prompt + refinement"
_TEMPERATURES = 2.0 ** np.arange(-4, 2.5, 0.5)


def candidate_model(name: str, tuned: TunedModel, unlearnt: TunedModel) -> TunedModel:
    """The model that goes by one of the three names; the unlearnt one's head changes nothing."""
    return {ZERO_SHOT: unlearnt, PROMPT: tuned._replace(head=unlearnt.head), REFINED: tuned}[name]


def losses(
    black_box: BlackBox, tuned: TunedModel, unlearnt: TunedModel, handle: Handle, labels: Int[Array, " N"], meter: Meter
) -> dict[str, float]:
    """Each candidate model's cross-entropy on held-out photographs, at its own best temperature.

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
