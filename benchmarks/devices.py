"""What spreading a step over devices costs and brings: time, bytes that cross devices, balance; and a v5e-256 on paper.

    python -m benchmarks.devices

A few minutes on two cores. Simulated devices share the processor, so the times show what spreading costs, not what it
saves; the bytes are read from the compiled program and hold for real devices. Writes benchmarks/results/devices.md.
"""

import math
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import sizes
from craft_jax import data
from craft_jax.blackbox import load
from craft_jax.config import Config, DataConfig, ProbeConfig, PromptConfig, RunConfig, SearchConfig
from craft_jax.method import collaborative
from craft_jax.training import assembly

RESULTS = Path(__file__).parent / "results"
DEVICES = (1, 2, 4, 8)
PAIRS, REPEATS = 20, 5

_SIZES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
_COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


def collective_bytes(program: str, devices: int) -> dict[str, int]:
    """Bytes that each device receives from others, by kind of collective, in a compiled program's text (HLO)."""
    found: dict[str, int] = {}
    for match in _COLLECTIVE.finditer(program):
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", match["result"])
        total = sum(_SIZES[kind] * math.prod(map(int, filter(None, shape.split(",")))) for kind, shape in shapes)
        found[match["kind"]] = found.get(match["kind"], 0) + total * (devices - 1) // devices
    return found


class Measured(NamedTuple):
    """Of one step: seconds, and bytes that each device receives with images on every device and with images split."""

    seconds: float
    bytes_whole: int
    bytes_split: int


def measure(black_box: Any, dataset: Any, devices: int) -> Measured:
    """One step of 40 prompts on that many simulated devices."""
    received = []
    for shard_images in ("yes", "no"):
        run = assembly.assemble(black_box, dataset, config(devices, shard_images))
        placed, axes = assembly.place(run, black_box)
        step: Any = run.spread.compile(collaborative.run_steps(collaborative.build_step(run.method), 1), axes)
        state = run.spread.mapped(run.state)
        received.append(collective_bytes(step.lower(placed, state).compile().as_text(), devices))
        print(f"{devices} devices, images split: {shard_images}: {received[-1]}", flush=True)
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        state, metrics = step(placed, state)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    split, whole = (sum(kinds.values()) for kinds in received)
    return Measured(min(times[1:]), whole, split)


def config(devices: int, shard_images: str) -> Config:
    """A small run on the bundled set: 24 classes, 96 images in 2 views, 40 prompts a step, each for all classes."""
    return Config(
        data=DataConfig(shots=4, views=2),
        probe=ProbeConfig(texts=0),
        prompt=PromptConfig(context="unified", intrinsic_dim=512, std=0.02),
        search=SearchConfig(estimator="antithetic", sigma=1.0, population_size=40),
        run=RunConfig(devices=devices, shard_images=shard_images, chunk_pairs=1),
    )


def balance(pairs: int, chunk_pairs: int, devices: int) -> tuple[int, float]:
    """Pairs of the busiest device, and which share of all devices' places is not padding."""
    chunks = -(-pairs // (chunk_pairs * devices))
    return chunks * chunk_pairs, pairs / (chunks * chunk_pairs * devices)


# A v5e on paper

PEAK, USED, MEMORY_RATE = 197e12, 0.4, 819e9  # bfloat16 FLOP/s, the share assumed to be reached, bytes/s
PASSES = 6  # of the bfloat16 units for a float32 product
MINIBATCH = 50e-6  # seconds that a minibatch of the head takes however small it is; assumed
HIDDEN, BATCH, EPOCHS, FEATURES = 256, 256, 3, 512


class OnPaper(NamedTuple):
    """Seconds of a step's parts on a v5e chip.

    Attributes:
      candidate: a candidate's text features, logits and losses.
      serial: what every chip does alike: the new prompt's predictions and the head's training.
    """

    candidate: float
    serial: float


def on_paper(classes: int, images: int) -> OnPaper:
    """A ViT-B/16 text tower in bfloat16, everything after it in float32."""
    rate = PEAK * USED
    text = sizes.useful_flops(classes) / rate
    logits = PASSES * 2 * images * classes * FEATURES / rate
    head = PASSES * 2 * images * 2 * classes * HIDDEN / rate
    traffic = 8 * images * classes * 4 / MEMORY_RATE  # logits, refined logits and their softmaxes, written and read
    minibatches = EPOCHS * math.ceil(images / BATCH)
    training = max(minibatches * MINIBATCH, 3 * EPOCHS * head)
    return OnPaper(text + logits + head + traffic, text + EPOCHS * logits + training)


def step_on_paper(parts: OnPaper, chips: int, pairs: int = PAIRS) -> float:
    """Seconds of a step on that many chips, one pair at a time."""
    return 2 * balance(pairs, 1, chips)[0] * parts.candidate + parts.serial


def page(rows: dict[int, Measured]) -> str:
    """The results as Markdown."""
    lines = [
        "Measured by `python -m benchmarks.devices` on simulated CPU devices that share one processor: the bundled "
        "CLIP, 24 classes, 96 images in 2 views, 20 pairs of candidates, one pair at a time. Bytes are what each "
        "device receives from the others in one step, read from the compiled program.",
        "",
        "| devices | ms a step | bytes, images on every device | bytes, images split | pairs of the busiest | "
        "places not padding |",
        "|---|---|---|---|---|---|",
    ]
    for devices, row in rows.items():
        busiest, share = balance(PAIRS, 1, devices)
        lines.append(
            f"| {devices} | {1e3 * row.seconds:.0f} | {row.bytes_whole:,} | {row.bytes_split:,} | {busiest} | "
            f"{100 * share:.0f} % |"
        )
    lines += [
        "",
        f"On paper, a v5e at {100 * USED:.0f} % of its peak (see docs/devices.md for what is assumed), 20 pairs:",
        "",
        "| chips | 100 classes, 1,600 images: ms a step | times faster | 1,000 classes, 16,000 images: ms a step | "
        "times faster |",
        "|---|---|---|---|---|",
    ]
    small, large = on_paper(100, 1600), on_paper(1000, 16000)
    for chips in (1, 4, 8, 16, 20, 256):
        cells = [str(chips)]
        for parts in (small, large):
            seconds = step_on_paper(parts, chips)
            cells += [f"{1e3 * seconds:.1f}", f"{step_on_paper(parts, 1) / seconds:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"A candidate takes {1e3 * small.candidate:.2f} ms and {1e3 * large.candidate:.2f} ms, what every chip does "
        f"alike {1e3 * small.serial:.1f} ms and {1e3 * large.serial:.1f} ms.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures and writes the page."""
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    dataset = data.load(config(1, "no").data, seed=1)
    black_box = load("bundled", dataset.class_names)
    rows = {devices: measure(black_box, dataset, devices) for devices in DEVICES}
    text = page(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "devices.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
