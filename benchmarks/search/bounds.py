"""What the study's methods stand between: a small network on raw pixels below, the same head on true features above.

    python -m benchmarks.search.bounds

The floor knows no model at all: three convolutions trained on the shots alone, mirrored and shifted at random. The
bound is the head in closed form on the features that a black box does not give away, with the study's views and
held-out photographs. Writes benchmarks/results/search_bounds.md. A quarter of an hour on two cores.
"""

import functools
import math
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from benchmarks.search import draws, study, tasks
from craft_jax import blackbox, config
from craft_jax.data import FewShotSet
from craft_jax.method import stacked

TABLE = Path(__file__).parent.parent / "results" / "search_bounds.md"
SIDE, STEPS, BATCH, RATE, SHIFT = 32, 400, 32, 3e-3, 4  # of the network on raw pixels


class Network(nn.Module):
    """Three convolutions, a mean over places, and a layer for the classes."""

    classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "N side side 3"]) -> Float[Array, "N C"]:
        """The logits of images in [0, 1]."""
        hidden = images
        for width in (16, 32, 64):
            hidden = nn.relu(nn.GroupNorm(8)(nn.Conv(width, (3, 3))(hidden)))
            hidden = nn.max_pool(hidden, (2, 2), (2, 2))
        return nn.Dense(self.classes)(hidden.mean(axis=(1, 2)))


def floor(few: FewShotSet, seed: int) -> float:
    """Test accuracy in percent of the network trained on the shots' pixels alone."""
    train, test = (_pixels([item.image for item in items]) for items in (few.train, few.test))
    labels, truth = (np.array([item.label for item in items]) for items in (few.train, few.test))
    network = Network(len(few.class_names))
    key = jax.random.key(seed)
    optimizer = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), weight_decay=1e-2)
    parameters = network.init(key, train[:1])

    def loss(parameters: Any, images: Array, labels: Array) -> Array:
        logits = network.apply(parameters, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit  # a call a step: inside a scan XLA convolves some thirty times slower on CPUs
    def step(parameters: Any, moments: Any, images: Array, labels: Array, number: Array) -> Any:
        drawn, shift, mirror = jax.random.split(jax.random.fold_in(key, number), 3)
        rows = jax.random.randint(drawn, (BATCH,), 0, len(images))
        batch = jax.vmap(_moved)(images[rows], jax.random.randint(shift, (BATCH, 2), 0, 2 * SHIFT + 1))
        batch = jnp.where(jax.random.bernoulli(mirror, shape=(BATCH, 1, 1, 1)), batch[:, :, ::-1], batch)
        updates, moments = optimizer.update(jax.grad(loss)(parameters, batch, labels[rows]), moments, parameters)
        return optax.apply_updates(parameters, updates), moments

    moments, shown = optimizer.init(parameters), (jnp.asarray(train), jnp.asarray(labels))
    for number in range(STEPS):
        parameters, moments = step(parameters, moments, *shown, number)
    found = np.argmax(np.asarray(network.apply(parameters, test)), axis=1)
    return 100 * float(np.mean(found == truth))


def _moved(image: Float[Array, "side side 3"], shift: Int[Array, "2"]) -> Float[Array, "side side 3"]:
    padded = jnp.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (*shift, 0), image.shape)


def _pixels(images: list[Any]) -> Float[np.ndarray, "N side side 3"]:
    opened = (image.open().convert("RGB").resize((SIDE, SIDE)) for image in images)
    return np.stack([np.asarray(image, np.float32) / 255 for image in opened])


def bound(few: FewShotSet, seed: int) -> float:
    """Test accuracy in percent of the closed-form head on true features, by the default's views and held-out images."""
    views = config.Config().data.views
    draw = draws.encode(few, seed, views)
    box, (train, labels), held_out = draw.black_box, draw.train, draw.held_out
    classes = len(few.class_names)
    of = functools.reduce(
        stacked.add, (stacked.statistics(_answers(box, view), labels, classes) for view in np.asarray(train))
    )
    own = () if held_out.handle is None else (_answers(box, held_out.handle), held_out.labels)
    head = stacked.fit(of, len(labels) / classes, *own)
    return draws.accuracy(stacked.apply(head, _answers(box, draw.test.handle)), draw.test)


def _answers(box: Any, handle: Any) -> Float[np.ndarray, "N T"]:
    """Answers that hold the features themselves: to the class names, and along both directions of every axis."""
    features = np.asarray(handle)
    scale = math.exp(box._logit_scale)
    captions = blackbox.captions(box, box.class_names)
    return np.concatenate([box.predict_texts(captions, handle), scale * features, -scale * features], axis=1)


def main() -> None:
    """Runs both on every draw, and writes the table."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for task in tasks.TASKS:
        for shots in study.SHOTS:
            for seed in study.SEEDS:
                few = tasks.draw(task, shots, seed)
                found.setdefault((task, shots), []).append((floor(few, seed), bound(few, seed)))
                print(task, shots, seed, *(f"{value:.1f}" for value in found[task, shots][-1]), flush=True)
                jax.clear_caches()
    header = ["", *(f"{task}, {shots} shots" for task, shots in found), "mean"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for place, name in enumerate(("a small network on raw pixels", "the closed-form head on true features")):
        means = [statistics.mean(pair[place] for pair in pairs) for pairs in found.values()]
        lines.append(f"| {name} | {' | '.join(f'{mean:.1f}' for mean in [*means, statistics.mean(means)])} |")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
