"""The choice on held-out photographs among zero-shot, the tuned prompt without and with its head, and the probes' head.

Where few shots mislead, tuning can end below zero-shot; held-out photographs (never the test's) can tell. They are few,
so that what needs no search is believed until they say otherwise.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from craft_jax import evaluation, language
from craft_jax.blackbox import Handle, Metered
from craft_jax.method import objectives
from craft_jax.tuned_model import TunedModel

ZERO_SHOT, PROMPT, REFINED, PROBES = "zero-shot", "prompt", "prompt + refinement", language.PROBES
_TEMPERATURES = 2.0 ** np.arange(-4, 2.5, 0.5)
_HEAD_START = 3.0  # of the probes, in nats over all held-out images

Models = dict[str, TunedModel]
"""What a run may deploy, by name."""


def losses(answers: Mapping[str, Float[Array, "N C"]], labels: Int[Array, " N"]) -> dict[str, float]:
    """Each candidate model's cross-entropy on held-out photographs, at its own best temperature.

    Args:
      answers: their logits, by name.
      labels: of the photographs.
    """
    return {name: float(_best_cross_entropy(logits, labels)) for name, logits in answers.items()}


def answers(black_box: Metered, models: Models, handle: Handle, images: int) -> dict[str, Float[Array, "N C"]]:
    """Each model's refined logits of N images; what two models ask alike is asked once."""
    found: dict[str, Float[Array, "N C"]] = {}
    for name, model in models.items():
        if name == PROMPT and REFINED in models:
            found[PROMPT], found[REFINED] = evaluation.logits(black_box, models[REFINED], handle, images)
        elif name not in found:
            found[name] = evaluation.logits(black_box, model, handle, images)[1]
    return found


def choose(models: Models, losses: Mapping[str, float], images: int, prompts_per_image: int) -> str:
    """The name of the model to deploy.

    Args:
      models: to choose from.
      losses: on held-out images; empty where there are none, so that nothing tells but what the models are.
      images: how many were held out.
      prompts_per_image: that a labelled image may cost; 0 sets no limit.
    """
    admitted = [
        name for name, model in models.items() if not prompts_per_image or model.prompts_per_image <= prompts_per_image
    ]
    if not losses:
        order = (PROBES, language.COMBINED, language.BEST, REFINED, PROMPT, ZERO_SHOT)
        return next(name for name in order if name in admitted)
    return min(admitted, key=lambda name: losses[name] - (_HEAD_START / images if name == PROBES else 0.0))


def _best_cross_entropy(logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    return jax.vmap(lambda t: objectives.cross_entropy(t * logits, labels))(jnp.asarray(_TEMPERATURES)).min()
