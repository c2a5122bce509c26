"""What each precision does: to a zeroth-order estimate, to the head in closed form, and to accuracy."""

import dataclasses
import functools
import io
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import reference
from benchmarks.on_gpu import clock
from benchmarks.on_gpu.record import Record
from craft_jax import blackbox, data, training
from craft_jax.blackbox import Metered
from craft_jax.config import BUNDLED, Config, RunConfig
from craft_jax.encoding import Encoder

PAIRS = 20
SIGMAS = (0.02, 1.0)  # of the soft prompt's root mean square
Answers = dict[float, np.ndarray]


def load(precision: str, class_names: tuple[str, ...]) -> Any:
    """The bundled model at a precision."""
    dtype = precision if precision in clock.HALVES else "float32"
    box: Any = blackbox.load(BUNDLED, class_names, dtype=dtype)
    return box.replace(_precision="float32" if precision in clock.HALVES else precision)


def estimates(record: Record, precisions: tuple[str, ...]) -> None:
    """How far antithetic differences of losses are from float64's, for the bundled model and photographs."""
    few = data.load(Config().data, seed=1)
    images = [item.image for item in few.train]
    labels = np.array([item.label for item in few.train])
    exact_box = load("float32", few.class_names)
    handle = Encoder(Metered(exact_box, budget=None)).centre_crops(images)
    prompts = _pairs(np.asarray(exact_box.initial_prompt))
    exact = _exact(few.class_names, prompts, np.asarray(handle, np.float64), labels)
    for precision in precisions:

        def one(precision: str = precision) -> None:
            box = load(precision, few.class_names)
            for sigma, asked in prompts.items():
                logits = np.asarray(box.predict(jnp.asarray(asked), handle), np.float64)
                found, wanted = _differences(logits, labels), exact[sigma]
                error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
                cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
                record.add(precision=precision, sigma=sigma, relative_error=float(error), cosine=float(cosine))

        record.each(f"estimates in {precision}", 10, one)


def _pairs(start: np.ndarray) -> dict[float, np.ndarray]:
    """p0 + e and p0 - e for `PAIRS` directions, by sigma; [2 PAIRS, n_ctx, d]."""
    e = np.random.default_rng(0).standard_normal((PAIRS, *start.shape), np.float32)
    e *= np.sqrt(np.mean(start**2))
    return {sigma: np.concatenate([start + sigma * e, start - sigma * e]).astype(np.float32) for sigma in SIGMAS}


def _differences(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the cross-entropy between the two of each pair."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[None, :, None], axis=-1)[..., 0]
    losses = (np.log(np.exp(shifted).sum(axis=-1)) - chosen).mean(axis=-1)
    return losses[:PAIRS] - losses[PAIRS:]


def _exact(class_names: tuple[str, ...], prompts: Answers, images: np.ndarray, labels: np.ndarray) -> Answers:
    """The differences in float64, from the image features that all precisions are given."""
    from craft_jax.blackbox.loading import _read

    parts = _read(BUNDLED, "float32")
    params = jax.tree.map(np.asarray, parts.text_params)
    tokens = params["text_model"]["embeddings"]["token_embedding"]["embedding"]
    captions = [parts.tokenizer(f"a photo of a {name}.")["input_ids"] for name in class_names]
    x = np.linspace(-4, 4, 9)
    encoder: Any = parts.text
    quick = np.allclose(np.asarray(encoder.activation(jnp.asarray(x))), reference.quick_gelu(x), atol=1e-5)
    if not quick:
        raise ValueError("the bundled model's activation is not quick_gelu; compare with its own")
    encode = functools.partial(reference.text_features, params, heads=encoder.heads, epsilon=encoder.epsilon)

    def differences(asked: np.ndarray) -> np.ndarray:
        n_ctx = asked.shape[1]
        logits = []
        for prompt in asked:
            embedded = [np.concatenate([tokens[ids[:1]], prompt, tokens[ids[n_ctx + 1 :]]]) for ids in captions]
            logits.append(np.exp(np.float64(params["logit_scale"])) * images @ encode(embedded).T)
        return _differences(np.stack(logits), labels)

    return {sigma: differences(asked) for sigma, asked in prompts.items()}


def accuracy(record: Record, precisions: tuple[str, ...], queries: int) -> None:
    """Test accuracy of the head in closed form (queries 0), or of a run of so many queries."""
    few = data.load(Config().data, seed=1)
    for precision in precisions:

        def one(precision: str = precision) -> None:
            run = RunConfig(reuse_features=False, devices=1)
            config = Config(query_budget=queries or 500, learn="both" if queries else "probes", run=run)
            with tempfile.TemporaryDirectory() as folder:
                box = load(precision, few.class_names)
                outcome = training.train(box, few, dataclasses.replace(config), Path(folder) / "run", io.StringIO())
            found = {name: getattr(outcome.result, name) for name in ("zero_shot", "probes", "prompt_only", "refined")}
            record.add(precision=precision, queries=queries, **found)

        record.each(f"accuracy in {precision}", 25, one)
