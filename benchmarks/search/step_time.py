"""What a step of every recipe asks for and how long it takes, on caltech24 at 16 shots.

    python -m benchmarks.search.step_time

About ten minutes on two cores. Writes benchmarks/results/search_steps.md. Only the ratios of the times carry
over to other machines.
"""

from pathlib import Path

from benchmarks import problem, timing
from benchmarks.search import study, tasks
from craft_jax import blackbox
from craft_jax.method import collaborative
from craft_jax.training import assembly

TABLE = Path(__file__).parent.parent / "results" / "search_steps.md"
TASK, SHOTS, SEED, QUERIES = "caltech24", 16, 1, 2000
STEPS, ROUNDS = 10, 5


def steps_of(run: assembly.Run, black_box: blackbox.BlackBox) -> timing.Call:
    """A function that makes `STEPS` collaborative steps in one call, as the loop does."""
    placed, axes = assembly.place(run, black_box)
    several = run.spread.compile(collaborative.run_steps(collaborative.build_step(run.method), STEPS), axes)
    return problem.carrying(several, placed, run.spread.mapped(run.state))


def main() -> None:
    """Measures all recipes, taking turns, and writes the table."""
    dataset = tasks.draw(TASK, SHOTS, SEED)
    black_box = blackbox.load("bundled", dataset.class_names)
    cells = [study.Cell(recipe, TASK, SHOTS, SEED, QUERIES) for recipe in study.TUNED]
    assembled = {cell.recipe: assembly.assemble(black_box, dataset, study.settings(cell)) for cell in cells}
    times = timing.best({recipe: steps_of(run, black_box) for recipe, run in assembled.items()}, ROUNDS)
    lines = [
        f"{TASK} at {SHOTS} shots, {len(dataset.train)} training photographs; times beside that of `craft`'s step, "
        f"the best of {ROUNDS} rounds in which all take turns. `python -m benchmarks.search.step_time`.",
        "",
        "| recipe | prompts a step | predictions a prompt | predictions of the present prompt a step "
        "| time of a step | time of a prompt |",
        "|---|---|---|---|---|---|",
    ]
    for recipe, run in assembled.items():
        cost, relative = run.cost_of_step, times[recipe] / times["craft"]
        each = f"{cost.search_predictions // cost.prompts} " if cost.prompts else ""
        a_prompt = f"{relative / cost.prompts * assembled['craft'].cost_of_step.prompts:.2f} " if cost.prompts else ""
        lines.append(f"| {recipe} | {cost.prompts} | {each}| {cost.centre_predictions} | {relative:.2f} | {a_prompt}|")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
