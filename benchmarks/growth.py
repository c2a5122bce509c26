"""How a step's time and memory grow with classes, candidates, views and devices, each point in its own process."""

import jax

from benchmarks.one_step import Cost, Size, measure

BASE = Size(classes=20, images=512, candidates=40, views=4)
AXES = {"classes": (5, 20, 80, 320), "candidates": (10, 40, 160), "views": (1, 4, 32, 256), "devices": (1, 2, 4)}

Points = list[tuple[int, float, float]]


def measure_all() -> dict[str, Points]:
    """For each axis (number, seconds, gigabytes), the others kept at `BASE`."""
    costs: dict[Size, Cost] = {}
    grown: dict[str, Points] = {}
    for axis, numbers in AXES.items():
        grown[axis] = []
        for number in numbers:
            if axis == "devices" and jax.default_backend() != "cpu" and number > jax.local_device_count():
                continue
            size = BASE._replace(**{axis: number})
            if size not in costs:
                costs[size] = measure(size)
                print(f"{size}: {costs[size].seconds:.2f} s, {costs[size].gigabytes:.2f} GB", flush=True)
            grown[axis].append((number, *costs[size]))
    return grown
