"""Ten clients that search by 200 queries each and exchange z and head: accuracy by trust.

    python -m benchmarks.searching_clients [SPLIT ...] [time]

`time` is how long they take beside one client with as many queries. An hour on two cores for all; what is done under
runs/clients is kept, so that a second call goes on from there: delete it where the code has changed. Writes
benchmarks/results/searching_clients.md once every split is done. Seed 1, 8 views.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.clients import CLIENTS, COLUMNS, PUBLIC, RUNS, TABLE, of_clients
from craft_jax import blackbox, data
from craft_jax.clients import report, searching, splits
from craft_jax.clients.report import Found
from craft_jax.clients.settings import ClientsConfig, parse_split
from craft_jax.clients.splits import Federation
from craft_jax.config import CALIBRATION_PROMPTS, Config, recipes
from craft_jax.files import json_text, write_atomically

WAYS = ("alone", "average", "predictions")
SPLITS = {"dirichlet:0.1": WAYS, "disjoint": WAYS, "permuted:2": (*WAYS, "oracle")}
STEPS, POPULATION, EVERY = 20, 10, 4


def config(steps: int) -> Config:
    """The recipe by-class, with so many steps."""
    plain = recipes.apply(Config(seed=1), "by-class")
    settings = dataclasses.replace(plain.data, views=8)
    return dataclasses.replace(plain, query_budget=CALIBRATION_PROMPTS + steps * POPULATION, data=settings)


def dealt(split: str) -> Federation:
    """The bundled photographs at ten clients."""
    settings = config(STEPS).data
    whole = data.read(settings)
    drawn = data.draw(whole, settings, 1)
    return splits.split(drawn, splits.unused(whole, drawn, PUBLIC, 1), parse_split(split), CLIENTS, 1)


def simulated(federation: Federation, how: ClientsConfig, steps: int, workdir: Path | None = None) -> Found:
    """One simulation, the compilation of its programs included."""
    black_box = blackbox.from_settings(Config().black_box, federation.class_names)
    return searching.simulate(black_box, federation, config(steps), how, workdir)


def measured(split: str, federation: Federation, way: str) -> dict[str, Any]:
    """Accuracies of one simulation by row; what is done is read back."""
    folder = RUNS / f"search-{split.replace(':', '-')}-{way}-{CLIENTS}"
    kept = folder / "figures.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    print(f"{split}: {way}", flush=True)
    how = ClientsConfig(split=parse_split(split), trust=way, exchange="both", every=EVERY)
    folder.mkdir(parents=True, exist_ok=True)
    result = report.as_result(simulated(federation, how, STEPS, folder), federation, how, {})
    rows = {name: row | {"inside": 100 * result["trust_inside_group"]} for name, row in result["accuracy"].items()}
    write_atomically(kept, json_text(rows))
    return rows


def table(split: str) -> list[str]:
    """A split's rows."""
    federation = dealt(split)
    found = {way: measured(split, federation, way) for way in SPLITS[split]}
    rows = {"zero-shot": found["alone"]["zero-shot"] | {"inside": None}} | {way: one[way] for way, one in found.items()}
    lines = [f"| {split} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, row in rows.items():
        means = of_clients(row, range(CLIENTS))
        lines.append(f"| {name} | " + " | ".join("–" if m is None else f"{m:.1f}" for m in means) + " |")
    return [*lines, ""]


def timed() -> str:
    """Seconds of ten clients, and of one with as many queries."""
    ten = dealt("dirichlet:0.1")
    one = dataclasses.replace(ten, holdings=ten.holdings[:1])
    how = ClientsConfig(trust="predictions", exchange="both", every=EVERY)
    seconds = []
    for federation, steps in ((ten, STEPS), (one, STEPS * CLIENTS)):
        began = time.monotonic()
        simulated(federation, how, steps)
        seconds.append(time.monotonic() - began)
    return f"{seconds[0]:.0f} s for ten clients, {seconds[1]:.0f} s for one with as many queries."


def main(chosen: Sequence[str]) -> None:
    """Measures what is chosen, or every split, and prints the tables."""
    wanted = [split for split in chosen if split != "time"] or ([] if chosen else list(SPLITS))
    for split in wanted:
        if split not in SPLITS:
            command.refuse(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if "time" in chosen:
        print(timed())
    found = {split: table(split) for split in wanted}
    page = ["# Clients that search", "", __doc__.splitlines()[0], "", "`python -m benchmarks.searching_clients`", ""]
    page += ["Test accuracy in percent of the mean client and of the worst one.", ""]
    page += [line for lines in found.values() for line in lines]
    print("\n".join(page))
    if set(found) == set(SPLITS):
        write_atomically(TABLE.with_name("searching_clients.md"), "\n".join(page))


if __name__ == "__main__":
    main(sys.argv[1:])
