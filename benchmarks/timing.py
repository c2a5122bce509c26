"""Wall-clock times on machines that other jobs share: contenders take turns, and each keeps its best round."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Call = Callable[[], Any]


def seconds(call: Call) -> float:
    """Of one call, its result waited for."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def best(contenders: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Each contender's shortest time over `rounds` in which all take turns, after one call each that compiles."""
    for call in contenders.values():
        jax.block_until_ready(call())
    times = [{name: seconds(call) for name, call in contenders.items()} for _ in range(rounds)]
    return {name: min(turn[name] for turn in times) for name in contenders}


GEMM_SIDES = (1024, 2048)


def gemm_contenders() -> dict[str, Call]:
    """Square float32 products, to take turns with what is compared to the machine's own matrix rate."""
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))

    def of_side(n: int) -> Call:
        a = jnp.ones((n, n))
        return lambda: product(a)

    return {f"gemm {n}": of_side(n) for n in GEMM_SIDES}


def gemm_rate(times: Mapping[str, float]) -> float:
    """FLOP/s of the fastest square product."""
    return max(2 * n**3 / times[f"gemm {n}"] for n in GEMM_SIDES)
