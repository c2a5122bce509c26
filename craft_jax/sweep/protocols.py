"""The field's protocols beyond a run's own test: base to new classes, other data sets, shifted images of the same ones.

The prompt goes with the black box to any classes; the refinement head knows the logits of its own classes alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax import evaluation, tuned_model
from craft_jax.blackbox import BlackBox, Metered
from craft_jax.data import FewShotSet, Labelled
from craft_jax.encoding import Encoder
from craft_jax.method import objectives
from craft_jax.tuned_model import TunedModel

Row = dict[str, Any]


def on_other_classes(tuned: TunedModel, black_box: BlackBox, dataset: FewShotSet, cache: Path | None = None) -> Row:
    """Test accuracy in percent of a deployed model, by its prompt alone, on classes that it was not tuned for.

    Args:
      tuned: what a run on any classes chose to deploy.
      black_box: the one that it was tuned for, set up for the classes of `dataset`.
      dataset: the new classes' or the other set's; only the test part is looked at.
      cache: folder of encoded images.

    Raises:
      UserError: where the black box is another than the one that the prompt was tuned for.
    """
    tuned_model.check_owner(tuned, black_box)
    metered = Metered(black_box, budget=0)  # a test takes predictions, and never a prompt of the search's
    images = [item.image for item in dataset.test]
    handle = Encoder(metered, cache, opened_first=images).centre_crops(images)
    labels = evaluation.labels_of(dataset.test)
    unlearnt, learnt = (
        100 * float(objectives.accuracy(evaluation.ask(metered, prompt, handle, labels.size), labels))
        for prompt in (black_box.initial_prompt, tuned.prompt)
    )
    return {
        "zero_shot": unlearnt,
        "accuracy": learnt,
        "classes": len(dataset.class_names),
        "test_images": len(dataset.test),
        "split": dataset.split,
        "ledger": dataclasses.asdict(metered.meter.ledger),
    }


def on_shifted_images(
    tuned: TunedModel, black_box: BlackBox, images: Sequence[Labelled], cache: Path | None = None
) -> Row:
    """Test accuracy in percent of a deployed model on other images of its classes, or of some of them.

    Only the classes that `images` show are scored: predictions are made, and refined, over all classes, and then
    compared among these.

    Raises:
      UserError: where the model was tuned for another black box or other classes.
    """
    metered = Metered(black_box, budget=0)
    lazy = [item.image for item in images]
    handle = Encoder(metered, cache, opened_first=lazy).centre_crops(lazy)
    labels = evaluation.labels_of(images)
    _, deployed = evaluation.logits(metered, tuned, handle, len(images))
    unlearnt = evaluation.ask(metered, black_box.initial_prompt, handle, len(images))
    return {
        "zero_shot": accuracy_among_shown(unlearnt, labels),
        "accuracy": accuracy_among_shown(deployed, labels),
        "classes": len(np.unique(labels)),
        "test_images": len(images),
        "ledger": dataclasses.asdict(metered.meter.ledger),
    }


def accuracy_among_shown(logits: Float[Array, "N C"], labels: Array) -> float:
    """Accuracy in percent among the classes that occur in `labels`."""
    shown = np.unique(labels)
    return 100 * float(objectives.accuracy(logits[:, shown], jnp.asarray(np.searchsorted(shown, labels))))


def harmonic_mean(base: float, new: float) -> float:
    """Of the accuracies on base and on new classes; 0 where either is."""
    return 2 * base * new / (base + new) if base and new else 0.0
