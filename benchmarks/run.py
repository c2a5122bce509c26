"""A step and a whole run at Caltech's size, split into parts, beside the published procedure's cost."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import baseline, problem, sizes, timing
from craft_jax import encoding
from craft_jax.blackbox.loaders import flax_clip
from craft_jax.blackbox.towers import vit
from craft_jax.method import collaborative, refinement
from craft_jax.training import from_settings

CLASSES, IMAGES, STEPS, PROMPTS = 100, 1600, 200, 40
VIEWS = (0, 1, 4, 8, 16, 32)
HEADLINE_VIEWS = 4
PARTS = ("text", "image", "head", "estimator")


def measure_step(clip: Any, params: Any) -> dict[str, float]:
    """Seconds of one whole step of 40 prompts and of its parts run alone, all taking turns."""
    whole = problem.of_size(clip, params, CLASSES, IMAGES, views=HEADLINE_VIEWS)
    method = from_settings.build_method(
        problem.SETTINGS, whole.generator, whole.views, HEADLINE_VIEWS, CLASSES, problem.SETTINGS.steps, devices=1
    )
    state = from_settings.initial_state(method, whole.generator, problem.SETTINGS, CLASSES)
    return timing.best({"step": problem.whole_step(whole), **_parts(whole, method, state)}, rounds=6)


def _parts(whole: collaborative.Problem, method: Any, state: Any) -> dict[str, timing.Call]:
    chunk, d = 2 * method.chunk_pairs, sizes.TEXT.hidden_size
    chunks = -(-PROMPTS // chunk)
    prompts = jnp.broadcast_to(whole.black_box.initial_prompt, (chunks, chunk, sizes.N_CTX, d))
    features = jax.random.normal(jax.random.key(2), (chunks, chunk, CLASSES, d)) / d**0.5
    logits = jax.random.normal(jax.random.key(1), (method.epochs, IMAGES, CLASSES))
    losses = jnp.arange(float(PROMPTS))[:, None]
    loss = collaborative.loss_of(method, state.head)

    @jax.jit
    def text(box: Any, prompts: Any) -> Any:
        with jax.default_matmul_precision("float32"):
            # The tuned prompt's features, for the head, come on top of the candidates'.
            return jax.lax.map(box._text.features, prompts), box._text.features(prompts[0, :1])

    @jax.jit
    def image(features: Any, images: Any) -> Any:
        def one_chunk(features: Any) -> Any:
            logits = 100.0 * jnp.einsum("np,kcp->knc", images, features, precision="highest")
            return jax.vmap(lambda one: loss(one, whole.labels))(logits)

        return jax.lax.map(one_chunk, features)

    @jax.jit
    def head(params: Any, logits: Any, labels: Any) -> Any:
        trained, mean = method.refinement.train(params, jax.random.key(0), logits, labels, 0.1)
        return trained, mean, refinement.apply(trained.params, logits[0])

    @jax.jit
    def estimator(search: Any, losses: Any) -> Any:
        return method.search.tell(search, losses + method.search.ask(search).sum())

    return {
        "text": lambda: text(whole.black_box, prompts),
        "image": lambda: image(features, whole.views[0]),
        "head": lambda: head(state.head, logits, whole.labels),
        "estimator": lambda: estimator(state.search, losses),
    }


def measure_images(clip: Any) -> tuple[float, float]:
    """Seconds an image through ViT-B/32, in the batches that the package encodes: ours and the published."""
    batch = encoding.batch_size(224)
    params, pixels = sizes.image_params(clip), jnp.zeros((batch, 224, 224, 3))
    encode, tower = jax.jit(vit.features), flax_clip.image_tower(params, sizes.VISION[32])
    contenders = {"ours": lambda: encode(tower, pixels), "published": baseline.image_batch(clip, 32, batch)}
    with jax.default_matmul_precision("float32"):
        times = timing.best(contenders, rounds=4)
    return times["ours"] / batch, times["published"] / batch


def shares(step: dict[str, float]) -> dict[str, float]:
    """Each part's share of the step; the overhead is what no part accounts for."""
    by_part = {name: step[name] / step["step"] for name in PARTS}
    return by_part | {"overhead": max(0.0, 1 - sum(by_part.values()))}


def speedups(step: float, image: float, published_query: float, published_image: float) -> dict[str, float]:
    """By views: a whole run's cost beside the published procedure's, which encodes all images at every step.

    Multiplied out from one step, one query and one image. The published procedure's decoding, its head and its
    CMA-ES are left out, and so is our decoding.
    """
    published = STEPS * (PROMPTS * published_query + IMAGES * published_image)
    return {str(views): published / (STEPS * step + max(views, 1) * IMAGES * image) for views in VIEWS}
