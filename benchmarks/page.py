"""The speed benchmark's figures as Markdown and as a plot."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import growth
from benchmarks.run import CLASSES, IMAGES, PROMPTS, STEPS

Figures = dict[str, Any]

BUSY = 0.5  # load average from which other jobs' share of the machine spoils ratios
_WARNING = (
    "**The machine was busy with other jobs, which slow the baseline and us unequally: every time, ratio and share of "
    "time below is provisional; memory, agreement and the amounts of work stand.** "
)


def markdown(figures: Figures) -> str:
    """All tables, with what bounds each figure."""
    parts = [_introduction, _queries, _step, _run, _memory, _pipeline, _precision, _growth]
    return "\n\n".join(part(figures) for part in parts) + "\n"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _introduction(figures: Figures) -> str:
    busy = figures["load"] > BUSY
    return (
        f"Measured on {figures['hardware']}, {figures['how']}, contenders taking turns, the best of their rounds; load "
        f"average when it began: {figures['load']:.1f}. {_WARNING if busy else ''}"
        f"Baseline: {figures['baseline']}, every class padded to 77 tokens, one prompt at a time. ViT-B/32 and "
        "ViT-B/16 share this text size. Class names are Caltech101's, over again beyond 100. Times faster hold for "
        "this machine alone, since they tell how well the baseline does on it too. The work, the agreement and the "
        "memory carry over to other machines, and our share of the GEMM rate nearly so."
    )


def _queries(figures: Figures) -> str:
    head = [
        "classes", "one query, times faster", "features differ by", "share of the GEMM rate", "baseline's share",
        "times less work", "bound: times faster at the full GEMM rate",
    ]  # fmt: skip
    rows = [
        [
            row["classes"],
            f"{row['baseline'] / row['ours']:.1f}",
            f"{row['error']:.1e}",
            f"{100 * row['share']:.0f} %",
            f"{100 * row['baseline_share']:.0f} %",
            f"{row['less_work']:.1f}",
            f"{row['bound']:.1f}",
        ]
        for row in figures["queries"]
    ]
    rate = max(row["gemm_gflops"] for row in figures["queries"])
    return (
        f"{table(head, rows)}\n\nThe GEMM rate is that of JAX's own square float32 products in the same turns, at best "
        f"{rate:.0f} GFLOP/s; shares are of useful multiplications and additions alone. Times faster = times less work "
        "x our share / the baseline's share."
    )


def _step(figures: Figures) -> str:
    rows = [[name, f"{100 * share:.1f} %"] for name, share in figures["step_share"].items()]
    return (
        f"A step of {PROMPTS} prompts on {CLASSES} classes x {IMAGES} images takes {figures['step_seconds']:.2f} s. "
        "Its parts run alone, the image part being logits and losses of encoded images, the overhead what no part "
        f"accounts for:\n\n{table(['part', 'share of the step'], rows)}"
    )


def _run(figures: Figures) -> str:
    rows = []
    for views, speedup in figures["run_speedup_by_views"].items():
        encoding = max(int(views), 1) * IMAGES * figures["image_seconds"]
        share = encoding / (STEPS * figures["step_seconds"] + encoding)
        rows.append(["0 (centre crop)" if views == "0" else views, f"{speedup:.1f}", f"{100 * share:.0f} %"])
    return (
        f"A whole run of {STEPS * PROMPTS:,} queries against the published procedure, which encodes all images at "
        "every step. Both are multiplied out from a measured step, query and batch of images (ViT-B/32: "
        f"{1000 * figures['image_seconds']:.0f} ms an image, the baseline "
        f"{1000 * figures['baseline_image_seconds']:.0f} ms); decoding is left out of both, the published head and "
        f"CMA-ES too. `run_speedup` is that of {figures['run_speedup_views']} views.\n\n"
        f"{table(['views of each image', 'times faster', 'of which encoding them takes'], rows)}"
    )


def _memory(figures: Figures) -> str:
    rows = [[size, f"{gigabytes:.2f} GB"] for size, gigabytes in figures["peak_memory_gb_by_size"].items()]
    return table(["in a process of its own", "peak memory"], rows)


def _pipeline(figures: Figures) -> str:
    measured = figures["pipeline"]
    return (
        f"Encoding large JPEGs: decoding and augmenting alone {measured['decode']:.1f} s, the tower alone "
        f"{measured['tower']:.1f} s, the pipeline {measured['pipeline']:.1f} s. On a CPU both want the same cores, so "
        "that the sum is what it can reach; beside an accelerator, the longer of the two."
    )


def _precision(figures: Figures) -> str:
    measured = figures["bfloat16"]
    rows = [
        ["text features differ by", f"{measured['text_features_error']:.1e}"],
        ["image features differ by", f"{measured['image_features_error']:.1e}"],
        ["zero-shot accuracy, float32", f"{measured['accuracy_float32']:.2f} %"],
        ["zero-shot accuracy, bfloat16", f"{measured['accuracy_bfloat16']:.2f} %"],
        ["photographs with the same prediction", f"{measured['same_predictions']:.1f} %"],
        ["a query at ViT-B size, times faster than float32", f"{measured['query_speedup']:.2f}"],
    ]
    return table(["bfloat16, the bundled model on its test photographs", ""], rows)


def _growth(figures: Figures) -> str:
    base = growth.BASE
    rows = [
        [axis, number, f"{seconds:.2f} s", f"{gigabytes:.2f} GB"]
        for axis, points in figures["growth"].items()
        for number, seconds, gigabytes in points
    ]
    return (
        f"A step of {base.candidates} candidates, {base.classes} classes, {base.images} images, {base.views} views on "
        f"{base.devices} device, one of them changed at a time; on a CPU the devices are simulated on the same cores:"
        f"\n\n{table(['what grows', 'to', 'a step', 'peak memory'], rows)}\n\n![time and memory over size](speed.png)"
    )


def draw(path: Path, figures: Figures) -> None:
    """A query by classes beside the baseline, and how a step's time and memory grow, all log-log."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    query, time, memory = figure.subplots(1, 3)
    rows = figures["queries"]
    classes = [row["classes"] for row in rows]
    query.loglog(classes, [row["baseline"] for row in rows], "s-", label=f"77 tokens, {figures['baseline']}")
    query.loglog(classes, [row["ours"] for row in rows], "o-", label="craft_jax")
    query.set(xlabel="classes", ylabel="seconds a query (text side, ViT-B)")
    for axis, points in figures["growth"].items():
        numbers, seconds, gigabytes = zip(*points, strict=True)
        time.loglog(numbers, seconds, "o-", label=axis)
        memory.loglog(numbers, gigabytes, "o-", label=axis)
    time.set(xlabel="number", ylabel="seconds a step")
    memory.set(xlabel="number", ylabel="peak memory, GB")
    for axes in (query, time, memory):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
