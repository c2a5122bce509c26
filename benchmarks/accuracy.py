"""Accuracy on the bundled photographs: ablations at 16 shots, and 1 to 16 shots, over three seeds.

    python -m benchmarks.accuracy

About half an hour on two cores; finished runs under runs/accuracy are kept, so that a second call only prints. Writes
benchmarks/results/accuracy.md. The settings under test are the defaults, which were chosen on validation photographs.
"""

import dataclasses
import io
import statistics
from pathlib import Path
from typing import Any

from craft_jax import blackbox, data, training
from craft_jax.config import Config, ConsistencyConfig, DataConfig
from craft_jax.entry import pay_compilation_once

SEEDS = (1, 2, 3)
BUDGETS = {1: 2000, 2: 4000, 4: 4000, 8: 8000, 16: 8000}
ABLATIONS: dict[str, dict[str, Any]] = {
    "prompt + refinement + consistency": {},
    "without consistency": {"consistency": ConsistencyConfig(weight=0.0)},
    "refinement alone": {"learn": "refinement"},
    "prompt alone": {"learn": "prompt"},
}
RUNS = Path("runs/accuracy")
TABLE = Path(__file__).parent / "results" / "accuracy.md"


def run(name: str, shots: int, seed: int, **changes: Any) -> dict:
    """The result of one run; a finished one is read back."""
    config = dataclasses.replace(
        Config(data=DataConfig(shots=shots), seed=seed, query_budget=BUDGETS[shots]), **changes
    )
    photographs = data.load(config.data, seed)
    black_box = blackbox.load(config.black_box.model, photographs.class_names, config.black_box.template)
    workdir = RUNS / f"{name.replace(' ', '-')}-{shots}-shots-seed-{seed}"
    result = training.train(black_box, photographs, config, workdir, stream=io.StringIO()).result
    print(f"{workdir.name}: {result['refined']:.1f} %", flush=True)
    return result


def cells(results: list[dict]) -> str:
    """Mean and standard deviation of the refined and the prompt's accuracy, and the refined by seed."""
    refined = [result["refined"] for result in results]
    prompt = [result["prompt_only"] for result in results]
    by_seed = " / ".join(f"{accuracy:.1f}" for accuracy in refined)
    return " | ".join(
        [f"{statistics.mean(refined):.1f} ± {statistics.stdev(refined):.1f}", by_seed, f"{statistics.mean(prompt):.1f}"]
    )


def main() -> None:
    """Runs what is missing and writes the table."""
    ablations = {name: [run(name, 16, seed, **changes) for seed in SEEDS] for name, changes in ABLATIONS.items()}
    full = next(iter(ABLATIONS))
    by_shots = {shots: [run(full, shots, seed) for seed in SEEDS] for shots in BUDGETS}
    one = ablations[full][0]
    lines = [
        f"{one['classes']} classes of Caltech101 at 64 px, {one['test_images']} test photographs, zero-shot "
        f"{one['zero_shot']:.1f} %. Test accuracy in percent, mean ± standard deviation over seeds 1, 2, 3.",
        "",
        "| 16 shots, 8,000 queries | accuracy | by seed | its prompt without the head |",
        "|---|---|---|---|",
        *(f"| {name} | {cells(results)} |" for name, results in ablations.items()),
        "",
        "| shots | queries | accuracy | by seed | its prompt without the head |",
        "|---|---|---|---|---|",
        *(f"| {shots} | {BUDGETS[shots]:,} | {cells(results)} |" for shots, results in by_shots.items()),
        "",
    ]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    pay_compilation_once()
    main()
