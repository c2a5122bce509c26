"""What a query, a step and a run cost, beside the published procedure, in one run on the machine at hand.

    make bench

About fifteen minutes on two cores; on an accelerator the same command uses it. Writes benchmarks/results/speed.md,
speed.png and latest.json. Times are the best of several runs, and only their ratios carry over to other machines.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import baseline, sizes
from craft_jax import assembly, collaborative, devices, refinement
from craft_jax.config import Config

RESULTS = Path(__file__).parent / "results"
SHOTS_IMAGES, CLASSES, STEPS, PROMPTS = 1600, 100, 200, 40


def seconds(call: Callable[..., Any], *arguments: Any, repeats: int = 5) -> float:
    """The shortest of several timed calls, after one that compiles."""
    jax.block_until_ready(call(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        times.append(time.perf_counter() - began)
    return min(times)


def gemm_flops() -> float:
    """The machine's own float32 matrix rate: the best of square products of three sizes, FLOP/s."""
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    rates = []
    for n in (1024, 2048, 4096):
        a = jnp.ones((n, n))
        rates.append(2 * n**3 / seconds(product, a, a))
    return max(rates)


def measure_queries(clip: Any, params: Any) -> list[dict[str, float]]:
    """One query's text side by number of classes: ours against the baseline, and how far their features differ."""
    rows = []
    for classes in (10, 100, 400, 1000):
        black_box = sizes.black_box(clip, params, classes)
        features = jax.jit(lambda black_box, prompts: black_box._text.features(prompts))
        pair = jnp.stack([sizes.words(params)] * 2)
        ours = seconds(features, black_box, pair) / 2
        reference = baseline.text_query(params, sizes.captions(classes))
        published = seconds(reference, repeats=3 if classes <= 100 else 1)
        error = np.abs(np.asarray(features(black_box, pair)[0]) - baseline.normalised(reference())).max()
        # The machine's rate is taken next to the timing that it is compared with: shared machines drift.
        rate = sizes.useful_flops(classes) / ours
        rows.append(
            {
                "classes": classes,
                "ours": ours,
                "baseline": published,
                "error": float(error),
                "share": rate / gemm_flops(),
            }
        )
        print(f"{classes} classes: {published / ours:.1f} x, features differ by {error:.1e}", flush=True)
    return rows


def problem_of_size(clip: Any, params: Any, classes: int, images: int, views: int) -> collaborative.Problem:
    """A problem of that size on a random ViT-B text tower and random image features."""
    features = jax.random.normal(jax.random.key(0), (views, images, 512))
    black_box = sizes.black_box(clip, params, classes)
    return collaborative.Problem(
        black_box=black_box,
        generator=assembly.build_generator(black_box, Config()),
        views=features / jnp.linalg.norm(features, axis=-1, keepdims=True),
        labels=jnp.arange(images) % classes,
        seed_key=jax.random.key(0),
    )


def step_seconds(problem: collaborative.Problem) -> float:
    """Seconds of one whole step of 40 prompts on one device."""
    classes, images = len(problem.black_box.class_names), problem.labels.size
    method = assembly.build_method(Config(), images, classes, devices=1)
    spread = devices.Spread(jax.local_devices()[:1])
    step = spread.compile(collaborative.run_steps(collaborative.build_step(method), 1))
    everywhere = spread.replicate(problem)
    carried = [spread.mapped(assembly.initial_state(method, Config(), classes))]

    def whole() -> Any:
        carried[0], metrics = step(everywhere, carried[0])
        return metrics

    return seconds(whole)


def measure_step(problem: collaborative.Problem) -> dict[str, float]:
    """Seconds of one whole step of 40 prompts, and of its parts run alone."""
    classes, images = len(problem.black_box.class_names), problem.labels.size
    method = assembly.build_method(Config(), images, classes, devices=1)
    state = assembly.initial_state(method, Config(), classes)
    chunk = 2 * method.chunk_pairs
    prompts = jnp.broadcast_to(problem.black_box.initial_prompt, (PROMPTS // chunk, chunk, sizes.N_CTX, 512))
    text = jax.jit(lambda box, prompts: jax.lax.map(box._text.features, prompts))
    one_text = jax.jit(lambda box, prompts: box._text.features(prompts))
    logits = jax.random.normal(jax.random.key(1), (method.epochs, images, classes))

    def head(params: Any, logits: Any, labels: Any) -> Any:
        trained, loss = method.refinement.train(params, jax.random.key(0), logits, labels, 0.1)
        return trained, loss, refinement.apply(trained.params, logits[0])

    def estimate(search: Any, losses: Any) -> Any:
        return method.search.tell(search, losses + method.search.ask(search).sum())

    head, estimate = jax.jit(head), jax.jit(estimate)
    losses = jnp.arange(float(PROMPTS))
    return {
        "step": step_seconds(problem),
        "text": seconds(text, problem.black_box, prompts) + seconds(one_text, problem.black_box, prompts[0, :1]),
        "head": seconds(head, state.head, logits, problem.labels),
        "estimator": seconds(estimate, state.search, losses),
        "predictions": _seconds_of_predictions(method, problem, state, PROMPTS // chunk, chunk),
    }


def _seconds_of_predictions(method: Any, problem: Any, state: Any, chunks: int, chunk: int) -> float:
    """Logits and losses of all candidates, their text features given: the image side of a query."""
    text = jax.random.normal(jax.random.key(2), (chunks, chunk, len(problem.black_box.class_names), 512)) / 512**0.5
    collaborative_loss = collaborative.candidate_loss(method, problem, state)

    def evaluate(text: Any, images: Any) -> Any:
        def one_chunk(features: Any) -> Any:
            return jax.vmap(collaborative_loss)(100.0 * jnp.einsum("np,kcp->knc", images, features))

        return jax.lax.map(one_chunk, text)

    return seconds(jax.jit(evaluate), text, problem.views[0])


def measure_images(clip: Any, params: Any) -> tuple[float, float | None]:
    """Seconds an image through ViT-B/32: ours, and PyTorch's where it is installed."""
    batch = 32
    pixels = jnp.zeros((batch, 3, 224, 224))
    encode = jax.jit(lambda params, pixels: clip.get_image_features(pixels, params=params))
    theirs = baseline.image_batch(32, batch)
    return seconds(encode, params, pixels, repeats=3) / batch, theirs and seconds(theirs, repeats=3) / batch


def peak_memory(classes: int, images: int) -> float:
    """Peak resident memory of a process that makes one step of that size, in GB."""
    command = [sys.executable, "-m", "benchmarks.memory", str(classes), str(images)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def growth(clip: Any, params: Any) -> dict[str, list[tuple[int, float]]]:
    """Seconds of a step as classes, candidates' images and views grow from a small size."""
    by_classes = [(c, step_seconds(problem_of_size(clip, params, c, 256, 2))) for c in (5, 20, 80)]
    by_images = [(n, step_seconds(problem_of_size(clip, params, 20, n, 2))) for n in (256, 1024, 4096)]
    by_views = [(v, step_seconds(problem_of_size(clip, params, 20, 256, v))) for v in (1, 8, 64)]
    return {"classes (256 images)": by_classes, "images (20 classes)": by_images, "views (20 classes)": by_views}


def draw(path: Path, queries: list[dict[str, float]], grown: dict[str, list[tuple[int, float]]]) -> None:
    """A query by classes beside the baseline, and how a step grows, both log-log."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    classes = [row["classes"] for row in queries]
    left.loglog(classes, [row["baseline"] for row in queries], "s-", label=f"77 tokens, one prompt, {baseline.NAME}")
    left.loglog(classes, [row["ours"] for row in queries], "o-", label="craft_jax")
    left.set(xlabel="classes", ylabel="seconds a query (text side, ViT-B)")
    for name, points in grown.items():
        right.loglog(*zip(*points, strict=True), "o-", label=name)
    right.set(xlabel="number", ylabel="seconds a step of 40 prompts")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measures everything and writes the results."""
    clip = sizes.model(32)
    params = sizes.random_params(clip)
    queries = measure_queries(clip, params)
    step = measure_step(problem_of_size(clip, params, CLASSES, SHOTS_IMAGES, 2))
    image, published_image = measure_images(clip, params)
    caltech = next(row for row in queries if row["classes"] == CLASSES)
    parts = step["text"] + step["predictions"] + step["head"] + step["estimator"]
    overhead = max(0.0, step["step"] - parts)
    published_run = STEPS * (PROMPTS * caltech["baseline"] + SHOTS_IMAGES * (published_image or image))
    runs = {views: STEPS * step["step"] + max(views, 1) * SHOTS_IMAGES * image for views in (0, 4, 16, 32)}
    memory = {f"{c} classes x {n} images": peak_memory(c, n) for c, n in ((CLASSES, SHOTS_IMAGES), (1000, 16000))}
    grown = growth(clip, params)
    figures = {
        "hardware": f"{jax.devices()[0].device_kind} ({jax.default_backend()}), {platform.machine()}",
        "baseline": baseline.NAME,
        "per_query_speedup": caltech["baseline"] / caltech["ours"],
        "features_max_error": max(row["error"] for row in queries),
        "gemm_share": caltech["share"],
        "overhead_share": (step["head"] + step["estimator"] + overhead) / step["step"],
        "run_speedup": published_run / runs[0],
        "run_speedup_by_views": {views: published_run / run for views, run in runs.items()},
        "peak_memory_gb": memory[f"{CLASSES} classes x {SHOTS_IMAGES} images"],
        "peak_memory_gb_by_size": memory,
        "step_share": {name: value / step["step"] for name, value in step.items()} | {"rest": overhead / step["step"]},
        "queries": queries,
        "growth": grown,
    }
    RESULTS.mkdir(exist_ok=True)
    draw(RESULTS / "speed.png", queries, grown)
    (RESULTS / "speed.md").write_text(page(figures), encoding="utf-8")
    (RESULTS / "latest.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(page(figures))


def page(figures: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Measured on {figures['hardware']}, by `make bench`. Baseline: {figures['baseline']}, 77 tokens, one prompt "
        "at a time. ViT-B/32 and ViT-B/16 share this text size. Names are as long as Caltech101's.",
        "",
        "| classes | one query, times faster | features differ by | share of the machine's GEMM rate |",
        "|---|---|---|---|",
        *(
            f"| {row['classes']} | {row['baseline'] / row['ours']:.1f} | {row['error']:.1e} "
            f"| {100 * row['share']:.0f} % |"
            for row in figures["queries"]
        ),
        "",
        f"A step of {PROMPTS} prompts on {CLASSES} classes x {SHOTS_IMAGES} images, its parts run alone:",
        "",
        "| part | share of the step |",
        "|---|---|",
        *(f"| {name} | {100 * share:.1f} % |" for name, share in figures["step_share"].items() if name != "step"),
        "",
        f"A whole run of {STEPS * PROMPTS:,} queries, against the published procedure (its cost measured on one query "
        "and one batch of images, and multiplied out: it encodes all images at every step):",
        "",
        "| views of each image, encoded once | times faster |",
        "|---|---|",
        *(
            f"| {views or 'centre crop alone'} | {speedup:.1f} |"
            for views, speedup in figures["run_speedup_by_views"].items()
        ),
        "",
        "| one step of | peak resident memory |",
        "|---|---|",
        *(f"| {size} | {gigabytes:.1f} GB |" for size, gigabytes in figures["peak_memory_gb_by_size"].items()),
        "",
        "![time over size](speed.png)",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
