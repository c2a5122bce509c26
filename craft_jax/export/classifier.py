"""A tuned model as a linear classifier on a CLIP's image features, with the refinement head where there is one.

The head on probes is linear in the answers, and these in the feature, so that it is class weights itself:
f + (F - mean F) W + b with F = scale h X^T is scale h V^T + b with V = X_C + W^T (X - mean X).
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.blackbox import Features
from craft_jax.files import json_text, replacing
from craft_jax.tuned_model import TunedModel

LINEAR = "logits = scale * features @ weights.T + bias; scores = softmax(logits)"
REFINED = (
    "f = scale * features @ weights.T + bias; c = f - mean(f); "
    "logits = f + relu(c @ hidden_kernel + hidden_bias) @ out_kernel + out_bias [+ c @ linear_kernel]; "
    "scores = softmax(logits)"
)


class Classifier(NamedTuple):
    """C classes on normalised image features of length p.

    Attributes:
      weights: [C, p].
      bias: [C].
      scale: of the products with features.
      head: arrays of the refinement head by name, as `REFINED` uses them; none where it changes nothing.
    """

    weights: Float[Any, "C p"]
    bias: Float[Any, " C"]
    scale: float
    head: dict[str, Any]

    @property
    def formula(self) -> str:
        """How scores come of features."""
        return REFINED if self.head else LINEAR

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, float32."""
        whole = {"weights": self.weights, "bias": self.bias, "scale": self.scale, **self.head}
        return {name: np.ascontiguousarray(value, np.float32) for name, value in whole.items()}


def classifier_of(tuned: TunedModel, inside: Features) -> Classifier:
    """The classifier that a tuned model is on its CLIP's image features."""
    if tuned.stacked is None:
        weights = np.asarray(inside.class_features(tuned.prompt))
        return Classifier(weights, np.zeros(len(weights)), inside.scale, _head(tuned.head))
    texts = np.asarray(inside.text_features(tuned.texts), np.float64)
    classes = len(tuned.class_names)
    weights = texts[:classes] + np.asarray(tuned.stacked.weights, np.float64).T @ (texts - texts.mean(axis=0))
    return Classifier(weights.astype(np.float32), np.asarray(tuned.stacked.bias), inside.scale, {})


def _head(params: Any) -> dict[str, Any]:
    """A refinement head's arrays; none of one that adds nothing, as where the prompt alone or zero-shot is deployed."""
    layers = params["params"]
    adds = {
        "hidden_kernel": layers["Dense_0"]["kernel"],
        "hidden_bias": layers["Dense_0"]["bias"],
        "out_kernel": layers["Dense_1"]["kernel"],
        "out_bias": layers["Dense_1"]["bias"],
    }
    if "linear" in layers:
        adds["linear_kernel"] = layers["linear"]["kernel"]
    last = [adds[name] for name in ("out_kernel", "out_bias", "linear_kernel") if name in adds]
    return adds if any(np.any(np.asarray(one)) for one in last) else {}


def scores(classifier: Classifier, features: Float[Array, "N p"]) -> Float[Array, "N C"]:
    """Probabilities of the classes, from normalised image features."""
    with jax.default_matmul_precision("float32"):
        logits = classifier.scale * (features @ jnp.asarray(classifier.weights).T) + jnp.asarray(classifier.bias)
        head = classifier.head
        if head:
            centred = logits - logits.mean(axis=-1, keepdims=True)
            hidden = jax.nn.relu(centred @ head["hidden_kernel"] + head["hidden_bias"])
            logits = logits + hidden @ head["out_kernel"] + head["out_bias"]
            if "linear_kernel" in head:
                logits = logits + centred @ head["linear_kernel"]
        return jax.nn.softmax(logits)


def write_npz(path: Path, classifier: Classifier, about: dict[str, Any]) -> None:
    """Arrays, and `about` as a JSON string; no pickles."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, about=np.array(json_text(about)), **classifier.arrays())  # type: ignore[arg-type]


def write_safetensors(path: Path, classifier: Classifier, about: dict[str, Any]) -> None:
    """The same arrays, and `about` as JSON in the file's metadata."""
    from safetensors.numpy import save_file

    with replacing(path) as partial:
        save_file(classifier.arrays(), partial, metadata={"about": json_text(about)})
