"""The demo's run in a process of its own: where its time goes, what it finds and its bits, stopped and resumed too.

    python -m benchmarks.on_gpu.demo FOLDER TIMES

Half a minute on a GPU, minutes on two cores; `benchmarks.gpu` calls it. Runs what configs/demo.py says, TIMES times,
then once more with a stop and a second call that goes on. Prints a line of JSON for each.
"""

import collections
import dataclasses
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

QUERIES = 500  # as configs/demo.py asks
TINY = "TINY"  # in the environment: fewer queries and photographs


def main() -> None:
    """Runs, and prints."""
    began = time.perf_counter()
    folder, times = Path(sys.argv[1]), int(sys.argv[2])
    seconds: dict[str, float] = collections.defaultdict(float)

    import jax

    longest: list[tuple[float, str]] = []

    def took(event: str, duration_secs: float, **about: Any) -> None:
        name = event.rpartition("/")[2]
        seconds[name] += duration_secs
        seconds[f"{name} count"] += 1
        if name == "backend_compile_duration":
            longest.append((round(duration_secs, 2), str(about.get("fun_name", ""))))

    jax.monitoring.register_event_duration_secs_listener(took)

    from craft_jax import blackbox, data, training
    from craft_jax.config import Config, DataConfig, ProbeConfig, RunConfig
    from craft_jax.errors import Interrupted

    config = Config(query_budget=QUERIES, run=RunConfig(reuse_features=False))
    if os.environ.get(TINY):
        config = dataclasses.replace(
            config, query_budget=240, data=DataConfig(shots=1, views=2), probe=ProbeConfig(texts=30)
        )
    imported = time.perf_counter() - began
    _print("imports", imported)

    def run(name: str, stop_after: int = 0) -> None:
        seconds.clear()
        longest.clear()
        at_start, parts, screen = time.perf_counter(), {}, _Timed()
        few = data.load(config.data, config.seed)
        box = blackbox.from_settings(config.black_box, few.class_names)
        parts["loading"] = time.perf_counter() - at_start
        calls = iter(range(1000))
        stop = (lambda: next(calls) >= stop_after) if stop_after else (lambda: False)
        try:
            outcome = training.train(box, few, config, folder / name, stream=screen, stop=stop)
        except Interrupted as interrupted:
            _print(f"{name} stopped", time.perf_counter() - at_start, said=str(interrupted))
            return
        result = {k: getattr(outcome.result, k) for k in ("zero_shot", "prompt_only", "refined", "accuracy", "probes")}
        compiled = {k: round(v, 2) for k, v in seconds.items() if "compil" in k or "cache" in k or "trace" in k}
        total = time.perf_counter() - at_start
        bits = _digest(outcome.tuned, folder / name)
        most = sorted(longest, reverse=True)[:12]
        _print(name, total, **parts, **result, bits=bits, spent=compiled, longest=most, screen=screen.lines)

    for i in range(times):
        run(f"run {i}")
    run("resumed", stop_after=2)
    run("resumed")


class _Timed(io.StringIO):
    """What a run shows, each piece with the second at which it came."""

    def __init__(self) -> None:
        super().__init__()
        self._began, self.lines = time.perf_counter(), []  # type: tuple[float, list[str]]

    def write(self, text: str) -> int:
        if text.strip():
            self.lines.append(f"{time.perf_counter() - self._began:.2f} {text.strip()[:90]}")
        return len(text)


def _digest(model: Any, workdir: Path) -> str:
    """Of what was tuned, and of every step's losses and accuracies."""
    import jax
    import numpy as np

    digest = hashlib.sha256((workdir / "metrics.jsonl").read_bytes())
    for leaf in jax.tree.leaves((model.prompt, model.head, model.stacked)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _print(name: str, seconds: float, **more: Any) -> None:
    print(json.dumps({"name": name, "seconds": round(seconds, 2), **more}), flush=True)


if __name__ == "__main__":
    main()
