"""The image tower: equal to float64 as far as a precision goes; images a second and share of the card's rate."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import reference, sizes
from benchmarks.on_gpu import clock, models, queries
from benchmarks.on_gpu.models import Size
from benchmarks.on_gpu.record import Record, Skip
from craft_jax.precision import products

BATCH, COMPARED = 256, 2


def rates(record: Record, size: Size, precisions: tuple[str, ...], scale: queries.Scale) -> None:
    """Batches of images on the device, by precision."""
    params = models.image_params(size)
    pixels = np.random.default_rng(4).standard_normal((BATCH, size.side, size.side, 3), np.float32)
    heads, epsilon = size.image.heads, models.EPSILON
    expected = reference.image_features(params, pixels[:COMPARED], heads=heads, epsilon=epsilon)
    for precision in precisions:
        part = functools.partial(_rate, record, size, params, pixels, expected, precision, scale)
        record.each(f"images, {size.name}, {precision}", 15, part)


def _rate(
    record: Record, size: Size, params: Any, pixels: np.ndarray, expected: np.ndarray, precision: str,
    scale: queries.Scale,
) -> None:  # fmt: skip
    try:
        vit = importlib.import_module("craft_jax.blackbox.towers.vit")
    except ImportError as missing:
        raise Skip("no image tower of our own for ViTs") from missing
    dtype = precision if precision in clock.HALVES else "float32"
    tower = vit.build(
        jax.tree.map(jnp.asarray, params), patch=size.patch, heads=size.image.heads, epsilon=models.EPSILON,
        activation=sizes.quick_gelu, dtype=dtype,
    )  # fmt: skip

    def encode(tower: Any, pixels: Any) -> Any:
        with products(precision if dtype == "float32" else "float32", jnp.dtype(dtype)):
            features = vit.features(tower, pixels).astype(jnp.float32)
            return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    on_device = jnp.asarray(pixels)
    program = clock.compiled(encode, tower, on_device)
    error = np.abs(np.asarray(program.run(tower, on_device)[:COMPARED]) - expected).max()
    took = clock.seconds(lambda: program.run(tower, on_device), budget=1.0) / BATCH
    rate = models.image_flops(size) / took
    record.add(
        model=size.name, precision=precision, error=float(error), images_a_second=1 / took, tflops=rate / 1e12,
        share=rate / queries.card_rate(precision, scale.side), gigabytes=program.gigabytes, compile_s=program.seconds,
    )  # fmt: skip
