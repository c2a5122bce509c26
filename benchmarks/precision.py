"""What bfloat16 costs in accuracy and gains in time: the bundled model on the bundled test photographs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sizes, timing
from craft_jax import blackbox, data
from craft_jax.blackbox import Metered
from craft_jax.config import BUNDLED, Config
from craft_jax.encoding import Encoder

_TIMED_CLASSES = 100


def measure(clip: Any, params: Any) -> dict[str, float]:
    """Zero-shot accuracy in both dtypes, how far features differ, and how many times faster a query is."""
    dataset = data.load(Config().data, seed=1)
    images = [item.image for item in dataset.test]
    labels = np.array([item.label for item in dataset.test])

    def answers(dtype: str) -> tuple[Any, Any, Any]:
        box: Any = blackbox.load(BUNDLED, dataset.class_names, dtype=dtype)
        handle = Encoder(Metered(box, budget=None)).centre_crops(images)
        logits = np.asarray(box.predict(box.initial_prompt[None], handle)[0])
        return np.asarray(box._text.features(box.initial_prompt[None])[0]), np.asarray(handle), logits.argmax(axis=-1)

    text, image, guesses = answers("float32")
    half_text, half_image, half_guesses = answers("bfloat16")
    return {
        "text_features_error": float(np.abs(text - half_text).max()),
        "image_features_error": float(np.abs(image - half_image).max()),
        "accuracy_float32": 100 * float((guesses == labels).mean()),
        "accuracy_bfloat16": 100 * float((half_guesses == labels).mean()),
        "same_predictions": 100 * float((guesses == half_guesses).mean()),
        "query_speedup": _speedup(clip, params),
    }


def _speedup(clip: Any, params: Any) -> float:
    features = jax.jit(lambda box, prompts: box._text.features(prompts))
    prompts = jnp.stack([sizes.words(params)] * 2)

    def query(dtype: str) -> timing.Call:
        box = sizes.black_box(clip, params, _TIMED_CLASSES, dtype=dtype)
        return lambda: features(box, prompts)

    with jax.default_matmul_precision("float32"):
        times = timing.best({dtype: query(dtype) for dtype in ("float32", "bfloat16")}, rounds=5)
    return times["float32"] / times["bfloat16"]
