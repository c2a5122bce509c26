"""Images a second of the image towers, and their share of the machine's own rate of matrix products.

    python -m benchmarks.image_towers

ViT-B/32, ViT-B/16 and RN50 in this package, beside them in the same turns FlaxCLIPModel, PyTorch where it is installed
(extra `torch`), and square products of JAX. Weights are random, images 224 pixels square, in float32, in the batches
that the package encodes. On cores that other jobs share, take one (`taskset -c 0 ...`): PyTorch, which deals its work
out in equal shares, waits for the core that is held up. Writes benchmarks/results/image_towers.md. Five minutes.
"""

import functools
import importlib
import importlib.util
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import baseline, page, sizes, timing
from benchmarks.on_gpu import models
from craft_jax import encoding
from craft_jax.blackbox.loaders import flax_clip, open_clip, openai_weights
from craft_jax.blackbox.towers import resnet_architecture, vit

ROUNDS = 3
TABLE = Path(__file__).parent / "results" / "image_towers.md"
PATCHES = (32, 16)
LAYOUTS = {"PyTorch": "contiguous_format", "PyTorch, channels last": "channels_last"}


class Tower(NamedTuple):
    """Encodes a batch; `flops` of an image are those that have to be done, 0 where they were not counted."""

    run: timing.Call
    flops: float


def jitted(image_features: Callable[[Any, jax.Array], jax.Array], params: Any, pixels: np.ndarray) -> timing.Call:
    """Encodes a batch of [N, size, size, 3], as the black box does."""
    encode, params, on_device = jax.jit(image_features), jax.device_put(params), jnp.asarray(pixels)

    def run() -> jax.Array:
        with jax.default_matmul_precision("float32"):
            return encode(params, on_device)

    return run


def vits(patch: int, pixels: np.ndarray) -> dict[str, Tower]:
    """ViT-B with this patch: ours, the public class, and PyTorch's."""
    clip, size = sizes.model(patch), models.B16._replace(patch=patch)
    params, flops = sizes.image_params(clip), models.image_flops(size)
    public = functools.partial(flax_clip.image_features, clip.module)
    name = f"ViT-B/{patch}"
    found = {
        f"{name}, this package": jitted(vit.features, flax_clip.image_tower(params, sizes.VISION[patch]), pixels),
        f"{name}, FlaxCLIPModel": jitted(public, params, pixels),
    }
    if baseline.NAME.startswith("PyTorch"):
        found[f"{name}, PyTorch"] = baseline.image_batch(clip, patch, len(pixels))
    return {name: Tower(run, flops) for name, run in found.items()}


def resnets(pixels: np.ndarray) -> dict[str, Tower]:
    """RN50: ours, and PyTorch's on the same weights."""
    random_resnet = importlib.import_module("tests.random_resnet")
    architecture = resnet_architecture.OPENAI["RN50"]
    weights = random_resnet.weights(architecture, of=resnet_architecture.image_layout)
    tower, params = open_clip.image_tower(architecture), openai_weights.image_params(weights, architecture)
    found = {"RN50, this package": jitted(functools.partial(open_clip.image_features, tower), params, pixels)}
    if importlib.util.find_spec("torch"):
        found |= {f"RN50, {name}": torch_resnet(architecture, weights, pixels, of) for name, of in LAYOUTS.items()}
    return {name: Tower(run, 0.0) for name, run in found.items()}


def torch_resnet(
    architecture: resnet_architecture.Architecture, weights: Any, pixels: np.ndarray, layout: str
) -> timing.Call:
    """The tests' comparison module; a call encodes the same batch."""
    import torch

    yardstick = importlib.import_module("tests.torch_resnet_clip")
    model = yardstick.ModifiedResNet(architecture).eval()
    state = {name.removeprefix("visual."): torch.from_numpy(value) for name, value in weights.items()}
    model.load_state_dict(state, strict=False)
    memory_format = getattr(torch, layout)
    model = model.to(memory_format=memory_format)
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(memory_format=memory_format)
    return torch.inference_mode()(lambda: model(tensor).numpy())


def measure(towers: dict[str, Tower]) -> dict[str, list[float]]:
    """Seconds a call of each tower and of the square products, in rounds in which all take turns."""
    calls = {name: tower.run for name, tower in towers.items()} | timing.gemm_contenders()
    for call in calls.values():
        jax.block_until_ready(call())
    rounds = [{name: timing.seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: [turn[name] for turn in rounds] for name in calls}


def markdown(towers: dict[str, Tower], seconds: dict[str, list[float]], batch: int) -> str:
    """The page."""
    rate = timing.gemm_rate({name: statistics.median(times) for name, times in seconds.items()})
    rows = []
    for name, tower in towers.items():
        median, ours = (statistics.median(seconds[one]) for one in (name, f"{name.partition(',')[0]}, this package"))
        images = [batch / took for took in seconds[name]]
        share = f"{100 * tower.flops * batch / median / rate:.0f} %" if tower.flops else ""
        spread = f"{min(images):.1f} to {max(images):.1f}"
        rows.append([name, f"{batch / median:.1f}", spread, f"{median / ours:.2f}", share])
    head = ["tower", "images a second", "lowest to highest", "takes as long as ours, times", "share of the GEMM rate"]
    return (
        f"Median of {ROUNDS} rounds of {batch} images of 224 pixels, float32, random weights, taking turns; "
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} {platform.machine()} cores, load average when it ended "
        f"{os.getloadavg()[0]:.1f}; JAX {jax.__version__} on {jax.default_backend()}, {baseline.NAME}. The GEMM rate "
        f"is that of square float32 products, {rate / 1e9:.0f} GFLOP/s; shares count the work that has to be done, "
        f"the last layer's at the class token alone. `python -m benchmarks.image_towers`.\n\n{page.table(head, rows)}\n"
    )


def main() -> None:
    """Measures, prints and writes the table."""
    batch = encoding.batch_size(224)
    pixels = np.random.default_rng(0).standard_normal((batch, 224, 224, 3)).astype(np.float32)
    towers = {**vits(PATCHES[0], pixels), **vits(PATCHES[1], pixels), **resnets(pixels)}
    text = markdown(towers, measure(towers), batch)
    TABLE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
