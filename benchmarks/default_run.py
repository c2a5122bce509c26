"""Whole runs of today's recipes at Caltech's size on ViT-B/32, encoding included, beside the published procedure.

    python -m benchmarks.default_run

The published procedure answers 8,000 queries and encodes all 1,600 images at each of its 200 steps. Runs are
multiplied out from one measured query, step and batch of images, which take turns; decoding is left out of both, and
so are the published head and CMA-ES. PyTorch stands for the published way where it is installed. Writes
benchmarks/results/default_run.md. Three minutes on two quiet cores.
"""

import os
from pathlib import Path
from typing import NamedTuple

from benchmarks import baseline, page, problem, query, run, sizes, timing
from craft_jax.blackbox import prompts_for
from craft_jax.config import Config, recipes
from craft_jax.training import assembly

TABLE = Path(__file__).parent / "results" / "default_run.md"
BUDGETS = (25, 100, 500, 2000, 8000)


class Measured(NamedTuple):
    """Seconds of a query, a step of the default, and an image: ours, and those of the published way."""

    query: float
    step: float
    image: float
    published_query: float
    published_image: float


def measure() -> Measured:
    """Measures all of it."""
    clip = sizes.model(32)
    params = sizes.text_params(clip)
    one = query.measure(clip, params, run.CLASSES)
    views, pieces = assembly.views_of(Config(), run.IMAGES)
    whole = problem.of_size(clip, params, run.CLASSES, run.IMAGES, views + pieces, Config())
    step = problem.whole_step(whole, Config().search.population_size, settings=Config(), labelled_views=views)
    seconds = timing.best({"step": step}, rounds=3)["step"]
    image, published_image = run.measure_images(clip)
    return Measured(one["ours"], seconds, image, one["baseline"], published_image)


def ours(recipe: str, budget: int, measured: Measured) -> tuple[int, float, float]:
    """Views of each image, and the seconds that encoding them and everything else takes."""
    config = recipes.apply(Config(query_budget=budget), recipe)
    shown = sum(assembly.views_of(config, run.IMAGES))
    by_texts = prompts_for(config.probe.texts, run.CLASSES)
    steps = assembly.steps_after(config, by_texts)
    return shown, run.IMAGES * shown * measured.image, by_texts * measured.query + steps * measured.step


def markdown(measured: Measured) -> str:
    """The page."""
    published = run.STEPS * (run.PROMPTS * measured.published_query + run.IMAGES * measured.published_image)
    rows = []
    for recipe, budget in [("api", 25), ("probe", 25), *(("craft", budget) for budget in BUDGETS)]:
        views, encoding, rest = ours(recipe, budget, measured)
        name = f"`{recipe}`, {budget:,} queries" if recipe == "craft" else f"`{recipe}`, texts alone"
        rows.append([name, views, f"{encoding + rest:,.0f} s", f"{100 * encoding / (encoding + rest):.0f} %"])
        rows[-1].append(f"{published / (encoding + rest):.0f}")
    head = ["run", "views of an image", "takes", "of which encoding", "times faster than published"]
    return (
        f"{run.CLASSES} classes, {run.IMAGES:,} images, ViT-B/32, float32, {len(os.sched_getaffinity(0))} cores; load "
        f"average when it ended: {os.getloadavg()[0]:.1f}. The published procedure, by {baseline.NAME}, takes "
        f"{published:,.0f} s: {run.STEPS} steps of {run.PROMPTS} queries of {measured.published_query:.2f} s, and all "
        f"images anew at {1000 * measured.published_image:.0f} ms. Ours: {measured.query:.3f} s a query, "
        f"{measured.step:.2f} s a step of {Config().search.population_size}, {1000 * measured.image:.0f} ms an image. "
        f"`python -m benchmarks.default_run`.\n\n{page.table(head, rows)}\n"
    )


def main() -> None:
    """Measures, and writes the page."""
    text = markdown(measure())
    TABLE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
