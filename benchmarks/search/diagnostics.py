"""How good the estimates are: cosine to the true gradient and spread over draws, against pairs, sigma and directions.

    python -m benchmarks.search.diagnostics

On caltech24 at 16 shots, at the unlearnt prompt and untrained head, past the interface for the true gradient.
Writes benchmarks/results/search_diagnostics.md. Five minutes on two cores.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.search import tasks
from craft_jax import blackbox
from craft_jax.config import Config, PromptConfig, SearchConfig
from craft_jax.method import candidates, collaborative, estimators
from craft_jax.method.candidates import Centre
from craft_jax.training import assembly
from craft_jax.training.assembly import Run

DRAWS = 12
TABLE = Path(__file__).parent.parent / "results" / "search_diagnostics.md"
CONTEXTS = {
    "one prompt for all classes, 512 numbers": PromptConfig(context="unified", intrinsic_dim=512),
    "a prompt a class, 256 numbers each": PromptConfig(context="class"),
}


class Quality(NamedTuple):
    """Of an estimate over draws.

    Attributes:
      cosine: mean, to the true gradient.
      spread: root mean square distance of a draw from the draws' mean, over the true gradient's length.
      expected: cosine of the estimate for a linear function: sqrt(P / dim) of orthogonal directions, else
        sqrt(P / (P + dim + 1)).
    """

    cosine: float
    spread: float
    expected: float


def centre_of(run: Run, problem: collaborative.Problem) -> Centre:
    """The first view of all images, under the unlearnt prompt."""
    handle = jax.tree.map(lambda leaf: leaf[0], problem.views)
    present = problem.generator(run.state.search.z)
    return Centre(handle, problem.labels, problem.black_box.predict(present[None], handle)[0])


def quality(run: Run, problem: collaborative.Problem, settings: SearchConfig) -> Quality:
    """Of estimates by `settings`, each from directions of its own."""
    loss, centre = collaborative.loss_of(run.method, run.state.head), centre_of(run, problem)
    z = run.state.search.z
    truth = collaborative.white_box_gradient(problem, loss, z, centre).ravel()
    fitness_of = candidates.by_class if problem.generator.per_class else candidates.by_candidate
    # Plain descent at rate 1 moves z by minus the estimate.
    plain = dataclasses.replace(settings, optimizer="sgd", schedule="constant", learning_rate=1.0)

    @jax.jit
    def estimate(problem: collaborative.Problem, key: jax.Array) -> jax.Array:
        search = estimators.build(plain, key, z, steps=1)
        assert isinstance(search, estimators.Search)
        state = search.init(z)

        def ask(candidate: jax.Array) -> jax.Array:
            answer = problem.black_box.predict(problem.generator(candidate[None]), centre.handle)[0]
            return fitness_of(loss, centre)(answer)

        return (z - search.tell(state, jax.lax.map(ask, search.ask(state))).z).ravel()

    draws = np.stack([estimate(problem, jax.random.key(i)) for i in range(DRAWS)])
    cosines = draws @ np.asarray(truth) / np.linalg.norm(draws, axis=1) / np.linalg.norm(truth)
    mean = draws.mean(axis=0)
    # The draws' own mean takes up a share of their variance.
    spread = np.sqrt(np.sum((draws - mean) ** 2) / (DRAWS - 1)) / np.linalg.norm(truth)
    pairs, dim = settings.population_size // 2, z.shape[1]
    expected = pairs / dim if settings.directions == "orthogonal" else pairs / (pairs + dim + 1)
    return Quality(float(cosines.mean()), float(spread), expected**0.5)


def rows(run: Run, problem: collaborative.Problem, name: str) -> Iterator[str]:
    """A line of the table for each setting."""
    for pairs in (5, 20, 80):
        yield _row(run, problem, name, SearchConfig(estimator="antithetic", sigma=1.0, population_size=2 * pairs))
    for sigma in (0.1, 0.3, 3.0):
        yield _row(run, problem, name, SearchConfig(estimator="antithetic", population_size=40, sigma=sigma))
    for directions in ("gaussian", "rademacher"):
        yield _row(
            run,
            problem,
            name,
            SearchConfig(estimator="antithetic", sigma=1.0, population_size=40, directions=directions),
        )


def _row(run: Run, problem: collaborative.Problem, name: str, settings: SearchConfig) -> str:
    found = quality(run, problem, settings)
    line = (
        f"| {name} | {settings.population_size // 2} | {settings.sigma} | {settings.directions} "
        f"| {found.cosine:.2f} | {found.expected:.2f} | {found.spread:.1f} |"
    )
    print(line, flush=True)
    return line


def main() -> None:
    """Measures and writes the table."""
    dataset = tasks.draw("caltech24", 16, seed=1)
    black_box = blackbox.load("bundled", dataset.class_names)
    lines = [
        "Antithetic estimates at the unlearnt prompt, caltech24 at 16 shots; sigma in units of the measured scale. "
        f"Means over {DRAWS} draws. `python -m benchmarks.search.diagnostics`.",
        "",
        "| prompt | pairs | sigma | directions | cosine to the true gradient | of a linear loss | spread of draws |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, prompt in CONTEXTS.items():
        run = assembly.assemble(black_box, dataset, Config(prompt=prompt))
        lines += rows(run, run.problem.replace(black_box=black_box), name)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
