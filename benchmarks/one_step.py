"""Seconds and peak memory of one step of a given size, in a process of its own, so that no other peak is counted.

    python -m benchmarks.one_step CLASSES IMAGES CANDIDATES VIEWS DEVICES ROUNDS

Seconds for small sizes, on any machine; `benchmarks.speed` calls it. Prints JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Size(NamedTuple):
    """Of a step."""

    classes: int
    images: int
    candidates: int = 40
    views: int = 2
    devices: int = 1


class Cost(NamedTuple):
    """Of a step: its best round's time; the whole process's peak memory, on an accelerator the device's."""

    seconds: float
    gigabytes: float


def measure(size: Size, rounds: int = 2) -> Cost:
    """Makes one step and then `rounds` timed ones in a new process; a CPU's devices are simulated on the same cores."""
    command = [sys.executable, "-m", "benchmarks.one_step", *map(str, (*size, rounds))]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={size.devices}"
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": flags})
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def peak_gigabytes() -> float:
    """This process's peak resident memory, or the accelerator's where there is one.

    Not getrusage's ru_maxrss: Linux hands that of a forking parent down through exec.
    """
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 2**30
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def main() -> None:
    """Measures the size on the command line and prints it as JSON."""
    from benchmarks import problem, sizes, timing

    *numbers, rounds = map(int, sys.argv[1:])
    size = Size(*numbers)
    clip = sizes.model(32)
    whole = problem.of_size(clip, sizes.text_params(clip), size.classes, size.images, size.views)
    step = problem.whole_step(whole, size.candidates, size.devices)
    first = timing.seconds(step)
    seconds = min((timing.seconds(step) for _ in range(rounds)), default=first)
    print(json.dumps([seconds, peak_gigabytes()]))


if __name__ == "__main__":
    main()
