"""What each part of the method is worth, views of each photograph, and logits: 16 shots, 2,000 queries, three seeds.

    python -m benchmarks.accuracy

Ten minutes on two cores; finished runs under runs/accuracy are kept, so that a second call only prints. Writes
benchmarks/results/accuracy.md. The settings under test are the defaults, which were chosen without test photographs.
"""

import dataclasses
import io
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from craft_jax import blackbox, data, training
from craft_jax.blackbox.remote import logits_of
from craft_jax.config import Config, ConsistencyConfig, DataConfig

SEEDS, QUERIES = (1, 2, 3), 2000
AS_PROBABILITIES = "all, answers as probabilities"
ABLATIONS: dict[str, dict[str, Any]] = {
    "prompt + refinement + consistency": {},
    "without consistency": {"consistency": ConsistencyConfig(weight=0.0)},
    "refinement alone": {"learn": "refinement"},
    "prompt alone": {"learn": "prompt"},
    "all, 4 views of each photograph": {"data": DataConfig(views=4)},
    "all, the centre crop alone": {"data": DataConfig(views=0)},
    AS_PROBABILITIES: {},
}
RUNS = Path("runs/accuracy")
TABLE = Path(__file__).parent / "results" / "accuracy.md"


class Probabilities(struct.PyTreeNode):
    """A local black box as an API shows it: what its probabilities tell of its logits, as `connect` takes them."""

    _local: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._local, name)

    def predict(self, prompts: Array, handle: Any) -> Array:
        """Logits from the softmax, [K, N, C]."""
        return logits_of(jax.nn.softmax(self._local.predict(prompts, handle)), jnp)


def run(name: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The result of one run; a finished one is read back."""
    config = dataclasses.replace(Config(seed=seed, query_budget=QUERIES), **changes)
    dataset = data.load(config.data, seed)
    black_box: Any = blackbox.from_settings(config.black_box, dataset.class_names)
    if name == AS_PROBABILITIES:
        black_box = Probabilities(black_box)
    workdir = RUNS / f"{name.replace(' ', '-')}-seed-{seed}"
    result = dataclasses.asdict(training.train(black_box, dataset, config, workdir, stream=io.StringIO()).result)
    jax.clear_caches()  # every run compiles its own, and Linux admits a process only so many mapped pieces of memory
    print(f"{workdir.name}: {result['refined']:.1f} %", flush=True)
    return result


def line(name: str, results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of the refined accuracy, and by seed, and the prompt's."""
    refined = [result["refined"] for result in results]
    prompt = statistics.mean(result["prompt_only"] for result in results)
    by_seed = " / ".join(f"{accuracy:.1f}" for accuracy in refined)
    return f"| {name} | {statistics.mean(refined):.1f} ± {statistics.stdev(refined):.1f} | {by_seed} | {prompt:.1f} |"


def main() -> None:
    """Runs what is missing and writes the table."""
    found = {name: [run(name, seed, changes) for seed in SEEDS] for name, changes in ABLATIONS.items()}
    one = next(iter(found.values()))[0]
    lines = [
        f"{one['classes']} classes of Caltech101 at 64 px, {one['test_images']} test photographs, zero-shot "
        f"{one['zero_shot']:.1f} %. Test accuracy in percent, mean ± standard deviation over seeds 1, 2, 3.",
        "",
        f"| 16 shots, {QUERIES:,} queries | accuracy | by seed | its prompt without the head |",
        "|---|---|---|---|",
        *(line(name, results) for name, results in found.items()),
        "",
    ]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
