"""The text tower: equal to float64 at every precision as far as that goes; a query's and a step's time."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problem, reference, sizes
from benchmarks.on_gpu import clock, models
from benchmarks.on_gpu.models import Size
from benchmarks.on_gpu.record import Record
from craft_jax.config import Config
from craft_jax.precision import products
from craft_jax.training import from_settings

IMAGES, VIEWS = 1600, 8
_COMPARED = 100  # classes whose features the reference computes


class Scale(NamedTuple):
    """How large everything is: as published, or small enough to try the benchmark on a CPU."""

    base: Size
    large: Size
    few: int
    many: int
    side: int


FULL = Scale(models.B16, models.L14, few=100, many=1000, side=8192)
SMALL = Scale(models.TINY, models.TINY, few=5, many=20, side=256)


@functools.cache
def card_rate(precision: str, side: int) -> float:
    """FLOP/s of a large square product."""
    return clock.product_rate(precision, side, side, side)


def machine(record: Record, scale: Scale) -> None:
    """The device, its product rates by precision, square and of the tower's shape, and its memory's."""
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0) / 2**30
    record.add(device=device.device_kind, jax=jax.__version__, gigabytes=memory)
    for precision in clock.PRECISIONS:

        def rates(precision: str = precision) -> None:
            square = card_rate(precision, scale.side)
            d = scale.base.text.width
            of_tower = clock.product_rate(precision, 16 * scale.side // 8, d, 4 * d)
            record.add(product=precision, tflops=square / 1e12, tflops_of_the_towers_shape=of_tower / 1e12)

        record.each(f"products in {precision}", 5, rates)
    record.each("memory", 5, lambda: record.add(memory_gb_s=clock.copy_rate(scale.side**2 * 4) / 1e9))


def parity_and_queries(record: Record, size: Size, classes: int, precisions: tuple[str, ...], scale: Scale) -> None:
    """Features' largest distance from float64; ms a query, its share of the card's rate, memory, compile time."""
    for precision in precisions:
        record.each(f"{size.name}, {precision}", 12, functools.partial(_query, record, size, classes, precision, scale))


def by_class(record: Record, size: Size, scale: Scale) -> None:
    """The same where every class has a soft prompt of its own."""
    for precision in ("float32", "bfloat16"):

        def one(precision: str = precision) -> None:
            box, prompts = _asked(size, scale.few, precision)
            rng = np.random.default_rng(3)
            own = np.asarray(prompts)[:, None] + 0.3 * rng.standard_normal(
                (len(prompts), scale.few, *prompts.shape[1:]), np.float32
            )
            expected = _expected(size, own[0])
            program = clock.compiled(lambda box, own: _features(box, own, "class_features"), box, own)
            error = np.abs(np.asarray(program.run(box, own)[0]) - expected).max()
            own = jax.device_put(own)
            ms = 1e3 * clock.seconds(lambda: program.run(box, own)) / len(prompts)
            record.add(precision=precision, error=float(error), ms_a_query=ms, compile_s=program.seconds)

        record.each(f"by class, {precision}", 15, one)


def _query(record: Record, size: Size, classes: int, precision: str, scale: Scale) -> None:
    box, prompts = _asked(size, classes, precision)
    program = clock.compiled(lambda box, prompts: _features(box, prompts, "features"), box, prompts)
    found = np.asarray(program.run(box, prompts)[0, :_COMPARED])
    error = np.abs(found - _expected_shared(size, min(classes, _COMPARED))).max()
    took = clock.seconds(lambda: program.run(box, prompts)) / len(prompts)
    rate = models.useful_flops(size, classes) / took
    record.add(
        model=size.name,
        classes=classes,
        precision=precision,
        error=float(error),
        ms_a_query=1e3 * took,
        tflops=rate / 1e12,
        share=rate / card_rate(precision, scale.side),
        prompts_a_call=len(prompts),
        gigabytes=program.gigabytes,
        compile_s=program.seconds,
    )


def _asked(size: Size, classes: int, precision: str) -> tuple[Any, jax.Array]:
    """A black box, and as many soft prompts as a step's chunk has."""
    halves = precision in clock.HALVES
    params = _params(size)
    box = models.black_box(size, params, classes, *((precision, "float32") if halves else ("float32", precision)))
    chunk = 2 * from_settings.chunk_pairs(20, images=IMAGES, classes=classes)
    return box, jnp.asarray(_prompts(size, chunk))


def _features(box: Any, prompts: Any, door: str) -> Any:
    with products(box._precision, box._text.dtype):
        return getattr(box._text, door)(prompts)


@functools.lru_cache(maxsize=2)
def _params(size: Size) -> Any:
    return models.text_params(size)


def _prompts(size: Size, chunk: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    start = np.asarray(sizes.words(_params(size)))
    return start + 0.3 * rng.standard_normal((chunk, *start.shape), np.float32)


@functools.cache
def _expected_shared(size: Size, classes: int) -> np.ndarray:
    return _expected(size, np.broadcast_to(_prompts(size, 1)[0], (classes, *_prompts(size, 1).shape[1:])))


def _expected(size: Size, own: np.ndarray) -> np.ndarray:
    captions = models.embedded_captions(_params(size), len(own), own)
    return reference.text_features(_params(size), captions, heads=size.text.heads, epsilon=models.EPSILON)


SETTINGS = {
    "default (20 prompts by class, whole answers)": Config(),
    "published kind (40 prompts, antithetic)": problem.SETTINGS,
}


def steps(record: Record, size: Size, classes: int, precisions: tuple[str, ...]) -> None:
    """One whole collaborative step of 1,600 images in 8 views, by precision."""
    for name, settings in SETTINGS.items():
        for precision in precisions:
            part = functools.partial(_step, record, size, classes, precision, name, settings)
            record.each(f"a step, {size.name}, {precision}", 25, part)


def _step(record: Record, size: Size, classes: int, precision: str, name: str, settings: Config) -> None:
    dtype, of_products = (precision, "float32") if precision in clock.HALVES else ("float32", precision)
    box = models.black_box(size, _params(size), classes, dtype, of_products)
    images = IMAGES if classes >= _COMPARED else 4 * classes
    settings = dataclasses.replace(settings, query_budget=8000)
    whole = problem.around(box, size.projection, images, VIEWS, settings)
    go_on = problem.whole_step(whole, settings.search.population_size, settings=settings)
    first = _once(go_on)
    ms = 1e3 * clock.seconds(go_on, budget=1.0)
    record.add(
        model=size.name, classes=classes, settings=name, precision=precision, ms_a_step=ms,
        first_call_s=first,
    )  # fmt: skip


def _once(call: Any) -> float:
    from benchmarks import timing

    return timing.seconds(call)
