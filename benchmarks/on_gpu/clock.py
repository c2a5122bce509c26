"""Times of calls that take milliseconds, on a device that works while the host goes on; and the device's own rates."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from craft_jax.precision import PRODUCTS

HALVES = ("bfloat16", "float16")
PRECISIONS = (*PRODUCTS, *HALVES)


def seconds(call: Callable[[], Any], budget: float = 0.4) -> float:
    """Of one call, in the best of three rows of calls, each row waited for at its end; after one that warms up."""
    jax.block_until_ready(call())
    began = time.perf_counter()
    jax.block_until_ready(call())
    once = time.perf_counter() - began
    many = max(1, min(200, round(budget / 3 / once)))
    best = once
    for _ in range(3):
        began = time.perf_counter()
        results = [call() for _ in range(many)][-1]
        jax.block_until_ready(results)
        best = min(best, (time.perf_counter() - began) / many)
    return best


class Compiled(NamedTuple):
    """A program, what compiling it took, and the device memory that it needs beside its arguments."""

    run: Any
    seconds: float
    gigabytes: float


def compiled(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """Traces and compiles; from the cache where it is there."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - began
    memory = program.memory_analysis()
    return Compiled(program, took, (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**30 if memory else 0.0)


def product_rate(precision: str, rows: int, inner: int, columns: int) -> float:
    """FLOP/s of a matrix product of random numbers."""
    dtype = precision if precision in HALVES else "float32"
    how = PRODUCTS.get(precision, "float32") if jax.default_backend() != "cpu" else "float32"
    a = jax.random.normal(jax.random.key(0), (rows, inner)).astype(dtype)
    b = jax.random.normal(jax.random.key(1), (inner, columns)).astype(dtype)

    def product(a: Any, b: Any) -> Any:
        with jax.default_matmul_precision(how):
            return jnp.matmul(a, b)

    run = jax.jit(product)
    return 2.0 * rows * inner * columns / seconds(lambda: run(a, b), budget=0.3)


def copy_rate(numbers: int) -> float:
    """Bytes/s, read and written, of adding one to a long float32 array."""
    x = jnp.ones(numbers, jnp.float32)
    run = jax.jit(lambda x: x + 1)
    return 8.0 * numbers / seconds(lambda: run(x), budget=0.2)
