"""Images per second of the image towers: RN50 and ViT-B/32 in this package, and RN50 in PyTorch on the same weights.

    taskset -c 0 python -m benchmarks.image_towers

About two minutes. One core, so that neither library waits for a thread that another process holds up: on two shared
cores PyTorch, which deals its work out in equal shares, was measured slower than on one. Weights are random, images 224
pixels square, in float32; the contenders take turns. Writes benchmarks/results/image_towers.md. Without PyTorch (extra
`torch`) its rows are left out.
"""

import functools
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from craft_jax.blackbox.loaders import flax_clip, open_clip, openai_weights
from craft_jax.blackbox.towers import resnet_architecture

BATCH, ROUNDS = 16, 7
TABLE = Path(__file__).parent / "results" / "image_towers.md"
RN50, VIT = "RN50, this package", "ViT-B/32, this package"
TORCH = {"RN50, PyTorch": "contiguous_format", "RN50, PyTorch, channels last": "channels_last"}

Tower = Callable[[], Any]


def jax_tower(image_features: Callable[[Any, jax.Array], jax.Array], params: Any, pixels: np.ndarray) -> Tower:
    """One call encodes a batch of [N, size, size, 3], as the black box does."""
    encode, params, on_device = jax.jit(image_features), jax.device_put(params), jnp.asarray(pixels)

    def run() -> jax.Array:
        with jax.default_matmul_precision("float32"):
            return encode(params, on_device).block_until_ready()

    return run


def vit(pixels: np.ndarray) -> Tower:
    """ViT-B/32 as transformers has it, random weights; its text encoder is cut short, for it plays no part."""
    import transformers

    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    config = transformers.CLIPConfig(
        vision_config=vision | {"image_size": 224, "patch_size": 32},
        text_config={"num_hidden_layers": 1, "vocab_size": 100},
        projection_dim=512,
    )
    model = transformers.FlaxCLIPModel(config)
    return jax_tower(functools.partial(flax_clip.image_features, model.module), model.params, pixels)


def contenders(pixels: np.ndarray) -> dict[str, Tower]:
    """Each tower by its name in the table."""
    random_resnet = importlib.import_module("tests.random_resnet")
    architecture = resnet_architecture.OPENAI["RN50"]
    weights = random_resnet.weights(architecture, of=resnet_architecture.image_layout)
    tower = open_clip.image_tower(architecture)
    params = openai_weights.image_params(weights, architecture)
    found = {RN50: jax_tower(functools.partial(open_clip.image_features, tower), params, pixels), VIT: vit(pixels)}
    if importlib.util.find_spec("torch"):
        found |= {name: torch_tower(architecture, weights, pixels, layout) for name, layout in TORCH.items()}
    return found


def torch_tower(architecture: resnet_architecture.Architecture, weights: Any, pixels: np.ndarray, layout: str) -> Tower:
    """The tests' comparison module; a call encodes the same batch."""
    import torch

    yardstick = importlib.import_module("tests.torch_resnet_clip")
    model = yardstick.ModifiedResNet(architecture).eval()
    state = {name.removeprefix("visual."): torch.from_numpy(value) for name, value in weights.items()}
    model.load_state_dict(state, strict=False)
    memory_format = getattr(torch, layout)
    model = model.to(memory_format=memory_format)
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(memory_format=memory_format)
    return torch.inference_mode()(lambda: model(tensor))


def measure(towers: dict[str, Tower]) -> dict[str, list[float]]:
    """Images per second of each tower in each round, after a round that compiles."""
    for run in towers.values():
        run()
    speeds: dict[str, list[float]] = {name: [] for name in towers}
    for _ in range(ROUNDS):
        for name, run in towers.items():
            began = time.perf_counter()
            run()
            speeds[name].append(BATCH / (time.perf_counter() - began))
    return speeds


def table(speeds: dict[str, list[float]]) -> str:
    """The measurements as Markdown, each speed beside the others."""
    median = {name: statistics.median(row) for name, row in speeds.items()}
    lines = [
        f"# Image towers: images per second\n\nMedian of {ROUNDS} rounds (lowest to highest) of {BATCH} images of 224 "
        f"pixels, float32, random weights, taking turns; {len(os.sched_getaffinity(0))} of "
        f"{os.cpu_count()} {platform.machine()} cores, which other jobs share; JAX {jax.__version__} on "
        f"{jax.default_backend()}{_torch_version()}. `taskset -c 0 python -m benchmarks.image_towers`.\n",
        "| tower | images / s | range | x " + " | x ".join(median) + " |",
        "|---" * (3 + len(median)) + "|",
    ]
    for name, row in speeds.items():
        ratios = " | ".join(f"{median[name] / other:.2f}" for other in median.values())
        lines.append(f"| {name} | {median[name]:.1f} | {min(row):.1f} to {max(row):.1f} | {ratios} |")
    return "\n".join(lines) + "\n"


def _torch_version() -> str:
    if not importlib.util.find_spec("torch"):
        return ""
    import torch

    return f", PyTorch {torch.__version__}"


def main() -> None:
    """Measures, prints and writes the table."""
    pixels = np.random.default_rng(0).standard_normal((BATCH, 224, 224, 3)).astype(np.float32)
    text = table(measure(contenders(pixels)))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
