"""Accuracy of a tuned model, with and without its refinement head, beside zero-shot."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from craft_jax import tuned_model
from craft_jax.blackbox import (
    SOFT_PROMPTS,
    BlackBox,
    Handle,
    Ledger,
    Metered,
    captions,
    check_finite,
    prompts_for,
)
from craft_jax.data import Labelled
from craft_jax.encoding import Encoder
from craft_jax.method import objectives, refinement, stacked
from craft_jax.precision import in_32_bits
from craft_jax.tuned_model import TunedModel


class Accuracy(NamedTuple):
    """Accuracies in percent.

    Attributes:
      prompt_only: of the model's soft prompt without its head.
      deployed: of the model as it is; where a run chose the prompt alone or zero-shot, its head changes nothing.
    """

    prompt_only: float
    deployed: float


def ask(black_box: Metered, soft_prompt: Array, handle: Handle, images: int) -> Float[Array, "N C"]:
    """One prompt's logits of N images, to measure by; booked before they are asked for.

    Raises:
      UserError: where they are not finite.
    """
    cost = Ledger(evaluation_predictions=images)
    answer = black_box.predict(jnp.asarray(soft_prompt)[None], handle, cost=cost)[0]
    check_finite(answer, black_box)
    return answer


def ask_texts(black_box: Metered, texts: Sequence[str], handle: Handle, images: int) -> Float[Array, "N T"]:
    """The logits of N images for T texts, the classes' captions first, to measure by; booked before they are asked for.

    Raises:
      UserError: where they are not finite.
    """
    cost = Ledger(evaluation_predictions=prompts_for(len(texts), len(black_box.class_names)) * images)
    answer = jnp.asarray(black_box.predict_texts(texts, handle, cost=cost))
    check_finite(answer, black_box)
    return answer


def ask_unlearnt(black_box: Metered, handle: Handle, images: int) -> Float[Array, "N C"]:
    """Zero-shot logits of N images: under the unlearnt prompt, or by the captions where texts alone are taken."""
    if SOFT_PROMPTS in black_box.takes:
        return ask(black_box, black_box.initial_prompt, handle, images)
    return ask_texts(black_box, captions(black_box, black_box.class_names), handle, images)


def logits(
    black_box: Metered, tuned: TunedModel, handle: Handle, images: int
) -> tuple[Float[Array, "N C"], Float[Array, "N C"]]:
    """The logits of the tuned prompt, or of the captions where the model asks texts; and the same refined.

    Raises:
      UserError: where the model was tuned for another black box or other classes.
    """
    tuned_model.check_fit(tuned, black_box)
    if tuned.stacked is not None:
        answers = ask_texts(black_box, tuned.texts, handle, images)
        return answers[:, : len(tuned.class_names)], stacked.apply(tuned.stacked, answers)
    if SOFT_PROMPTS not in black_box.takes:
        plain = ask_unlearnt(black_box, handle, images)
        return plain, plain
    plain = ask(black_box, tuned.prompt, handle, images)
    return plain, refinement.apply(tuned.head, plain)


def measure(black_box: Metered, tuned: TunedModel, handle: Handle, labels: Array) -> Accuracy:
    """Accuracy on encoded images."""
    plain, refined = logits(black_box, tuned, handle, labels.size)
    return Accuracy(
        prompt_only=100 * float(objectives.accuracy(plain, labels)),
        deployed=100 * float(objectives.accuracy(refined, labels)),
    )


def zero_shot(black_box: Metered, handle: Handle, labels: Array) -> float:
    """Zero-shot accuracy in percent."""
    return 100 * float(objectives.accuracy(ask_unlearnt(black_box, handle, labels.size), labels))


@in_32_bits
def evaluate(tuned: TunedModel, black_box: BlackBox, images: Sequence[Labelled]) -> Accuracy:
    """Accuracy in percent of a tuned model on labelled photographs."""
    metered = Metered(black_box, budget=None)
    lazy = [item.image for item in images]
    handle = Encoder(metered, opened_first=lazy).centre_crops(lazy)
    return measure(metered, tuned, handle, labels_of(images))


def labels_of(images: Sequence[Labelled]) -> Array:
    """The labels of N photographs, int32."""
    return jnp.array([item.label for item in images], jnp.int32)
