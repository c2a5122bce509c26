"""One run of the study, kept in its own folder: a finished one is read back, a killed one resumes.

One that was made with other settings is made anew.
"""

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import jax

from benchmarks.search import tasks
from craft_jax import blackbox, training
from craft_jax.config import Config, RunConfig, identity, recipes
from craft_jax.data import FewShotSet

TEST_EVERY = 160  # prompts
FINISHED = "finished.json"


def settings(recipe: str, task: str, shots: int, seed: int, queries: int, changes: dict[str, Any]) -> Config:
    """A recipe's settings for a task; `changes` are settings by full name, such as `search.sigma`."""
    config = recipes.apply(Config(), recipe)
    config = dataclasses.replace(config, data=tasks.settings(task, shots), seed=seed, query_budget=queries)
    for name, value in changes.items():
        group, _, field = name.rpartition(".")
        part = {field: value}
        config = dataclasses.replace(
            config, **({group: dataclasses.replace(getattr(config, group), **part)} if group else part)
        )
    steps = max(1, config.steps)
    every = min(max(1, TEST_EVERY // config.search.population_size), steps)
    run = RunConfig(steps_per_call=every, eval_every=every, checkpoint_every=every * (steps // every), devices=1)
    return dataclasses.replace(config, run=run)


def finished(config: Config, folder: Path) -> dict[str, Any] | None:
    """What `result` has found before with these settings; None where it has not."""
    file = folder / FINISHED
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found if found.get("settings") == identity.digest(config) else None


def result(config: Config, dataset: FewShotSet, folder: Path) -> dict[str, Any]:
    """What result.json says of the run, and under `curve` its tested steps, [prompts, predictions, accuracy]."""
    known = finished(config, folder)
    if known:
        return known
    if (folder / training.RESULT).exists():
        shutil.rmtree(folder)  # of other settings
    black_box = blackbox.from_settings(config.black_box, dataset.class_names)
    found = dataclasses.asdict(training.train(black_box, dataset, config, folder, stream=io.StringIO()).result)
    jax.clear_caches()  # hundreds of runs' programs would exceed the pieces of memory that Linux lets a process map
    rows = [json.loads(line) for line in (folder / training.METRICS).read_text().splitlines()]
    found["curve"] = [
        [row["prompts"], row["predictions"], row["test_refined"]] for row in rows if "test_refined" in row
    ]
    found["steps"] = len(rows)
    found["settings"] = identity.digest(config)
    (folder / FINISHED).write_text(json.dumps(found), encoding="utf-8")
    return found
