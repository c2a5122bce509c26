"""What a query, a step and a run cost, beside the published procedure, in one run on the machine at hand.

    python -m benchmarks.speed

Also `make bench`. About ten minutes on two cores; on an accelerator the same command uses it. Writes speed.md,
speed.png and latest.json in benchmarks/results. The work, the agreement and the memory carry over to other
machines, and our share of the GEMM rate nearly so; times faster also tell how well the baseline does there.
"""

import json
import os
import platform
import time
from pathlib import Path

import jax

from benchmarks import baseline, growth, one_step, page, pipeline, precision, query, run, sizes

RESULTS = Path(__file__).parent / "results"
CLASSES = (10, 100, 400, 1000)
LARGE = one_step.Size(classes=1000, images=16000)
CALTECH = one_step.Size(run.CLASSES, run.IMAGES, views=32)
PATIENCE = 240  # seconds to wait for a quiet machine


def measure() -> page.Figures:
    """Everything; the children that measure memory come first, while this process is small."""
    load = _quiet()
    memory, encoding = _memory(), pipeline.measure()
    grown = growth.measure_all()
    clip = sizes.model(32)
    params = sizes.text_params(clip)
    queries = []
    for classes in CLASSES:
        queries.append(query.measure(clip, params, classes))
        _say(f"{classes} classes: {queries[-1]['baseline'] / queries[-1]['ours']:.1f} times faster")
    step = run.measure_step(clip, params)
    _say(f"a step: {step['step']:.2f} s")
    image, baseline_image = run.measure_images(clip)
    caltech = queries[CLASSES.index(run.CLASSES)]
    shares = run.shares(step)
    by_views = run.speedups(step["step"], image, caltech["baseline"], baseline_image)
    return {
        "hardware": _hardware(),
        "how": "by `make bench`",
        "load": load,
        "baseline": baseline.NAME,
        "per_query_speedup": caltech["baseline"] / caltech["ours"],
        "features_max_error": max(row["error"] for row in queries),
        "gemm_share": caltech["share"],
        "overhead_share": shares["head"] + shares["estimator"] + shares["overhead"],
        "run_speedup": by_views[str(run.HEADLINE_VIEWS)],
        "run_speedup_views": run.HEADLINE_VIEWS,
        "run_speedup_by_views": by_views,
        "peak_memory_gb": max(memory[_name(CALTECH)], encoding["gigabytes"]),
        "peak_memory_gb_by_size": memory | {"encoding images with ViT-B/32": encoding["gigabytes"]},
        "step_seconds": step["step"],
        "step_share": shares,
        "image_seconds": image,
        "baseline_image_seconds": baseline_image,
        "queries": queries,
        "pipeline": encoding,
        "bfloat16": precision.measure(clip, params),
        "growth": grown,
    }


def _quiet() -> float:
    """The load average, once jobs that have just ended have left it, or once patience ends."""
    until = time.monotonic() + PATIENCE
    while (load := os.getloadavg()[0]) > page.BUSY and time.monotonic() < until:
        _say(f"waiting for a quiet machine (load average {load:.1f})")
        time.sleep(20)
    return load


def _memory() -> dict[str, float]:
    found = {}
    for size in (CALTECH, LARGE):
        found[_name(size)] = one_step.measure(size, rounds=0).gigabytes
        _say(f"{_name(size)}: {found[_name(size)]:.2f} GB")
    return found


def _name(size: one_step.Size) -> str:
    return f"a step of {size.classes:,} classes x {size.images:,} images x {size.candidates} candidates"


def _hardware() -> str:
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{device.device_kind} ({jax.default_backend()}; {cores} cores of {_processor()})"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _say(what: str) -> None:
    print(what, flush=True)


def main() -> None:
    """Measures everything and writes the results."""
    figures = measure()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "speed.md").write_text(page.markdown(figures), encoding="utf-8")
    page.draw(RESULTS / "speed.png", figures)
    print(page.markdown(figures))


if __name__ == "__main__":
    main()
