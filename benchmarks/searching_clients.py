"""Ten clients that search by 200 queries each and exchange z and head: accuracy by trust, and time beside one client's.

    python -m benchmarks.searching_clients [SPLIT ...]

Half an hour on two cores; finished parts under runs/clients are kept, so that a second call only prints. Writes
benchmarks/results/searching_clients.md once dirichlet:0.1 and permuted:2 are done. Seed 1, 8 views.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.clients import CLIENTS, COLUMNS, PUBLIC, RUNS, TABLE, of_clients
from craft_jax import blackbox, data
from craft_jax.clients import report, searching, splits
from craft_jax.clients.settings import ClientsConfig, parse_split
from craft_jax.clients.splits import Federation
from craft_jax.config import CALIBRATION_PROMPTS, Config, recipes
from craft_jax.files import json_text, write_atomically

SPLITS, WAYS = ("dirichlet:0.1", "permuted:2"), ("alone", "average", "predictions", "oracle")
STEPS, POPULATION, EVERY = 20, 10, 4


def config(steps: int) -> Config:
    """The recipe by-class, with so many steps."""
    plain = recipes.apply(Config(seed=1), "by-class")
    settings = dataclasses.replace(plain.data, views=8)
    return dataclasses.replace(plain, query_budget=CALIBRATION_PROMPTS + steps * POPULATION, data=settings)


def one_holding(federation: Federation) -> Federation:
    """The first client alone."""
    return dataclasses.replace(federation, holdings=federation.holdings[:1])


def measured(split: str, federation: Federation, way: str, steps: int) -> dict[str, Any]:
    """Accuracies and seconds of one simulation, the compilation of its programs included; what is done is read back."""
    kept = RUNS / f"search-{split.replace(':', '-')}-{way}-{len(federation.holdings)}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    print(f"{split}: {len(federation.holdings)} clients, {way}", flush=True)
    how = ClientsConfig(split=parse_split(split), trust=way, exchange="both", every=EVERY)
    black_box = blackbox.from_settings(Config().black_box, federation.class_names)
    began = time.monotonic()
    found = searching.simulate(black_box, federation, config(steps), how)
    result = report.as_result(found, federation, how, {})
    rows = {name: row | {"inside": 100 * result["trust_inside_group"]} for name, row in result["accuracy"].items()}
    done = {"rows": rows, "seconds": time.monotonic() - began}
    RUNS.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, json_text(done))
    return done


def lines(split: str) -> list[str]:
    """A split's table, and where it is label skew the time."""
    settings = config(STEPS)
    whole = data.read(settings.data)
    drawn = data.draw(whole, settings.data, 1)
    federation = splits.split(drawn, splits.unused(whole, drawn, PUBLIC, 1), parse_split(split), CLIENTS, 1)
    found = {way: measured(split, federation, way, STEPS) for way in WAYS}
    rows = {"zero-shot": found["alone"]["rows"]["zero-shot"]} | {way: one["rows"][way] for way, one in found.items()}
    table = [f"| {split} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, row in rows.items():
        means = of_clients(row | ({} if name != "zero-shot" else {"inside": None}), range(CLIENTS))
        table.append(f"| {name} | " + " | ".join("–" if m is None else f"{m:.1f}" for m in means) + " |")
    if not split.startswith("dirichlet"):
        return [*table, ""]
    single = measured(split, one_holding(federation), "alone", STEPS * CLIENTS)["seconds"]
    ten = found["predictions"]["seconds"]
    return [
        *table,
        "",
        f"{ten:.0f} s for ten clients, {single:.0f} s for one with as many queries: {ten / single:.2f}.",
        "",
    ]


def main(chosen: Sequence[str]) -> None:
    """Measures the chosen splits, or both, and prints their tables."""
    found = {split: lines(split) for split in chosen or SPLITS}
    page = ["# Clients that search", "", __doc__.splitlines()[0], "", "`python -m benchmarks.searching_clients`", ""]
    page += [line for table in found.values() for line in table]
    print("\n".join(page))
    if all(split in found for split in SPLITS):
        write_atomically(TABLE.with_name("searching_clients.md"), "\n".join(page))


if __name__ == "__main__":
    main(sys.argv[1:])
