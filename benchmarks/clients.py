"""Ten clients that share no photograph: who is served how well, by split and by whom they trust; three seeds.

    python -m benchmarks.clients [SPLIT ...]

Forty minutes on two cores for all; finished parts under runs/clients are kept, so that a second call only prints.
Writes benchmarks/results/clients.md once all are done. 16 shots of the bundled set, dealt to ten clients.
"""

import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft_jax import blackbox, data
from craft_jax.blackbox import BlackBox
from craft_jax.clients import closed_form, report, splits
from craft_jax.clients.settings import ClientsConfig, Noise, parse_split
from craft_jax.config import Config
from craft_jax.files import json_text, write_atomically

SEEDS, CLIENTS, PUBLIC = (1, 2, 3), 10, 128
SPLITS = ("dirichlet:0.1", "disjoint", "permuted:2", "noisy", "domains:2")
WAYS: dict[str, dict[str, Any]] = {way: {"trust": way} for way in ("weights", "validation", "predictions")}
PRIVATE: dict[str, dict[str, Any]] = {
    "pooled, masks": {"trust": "pooled", "masks": True},
    "pooled, least count 3": {"trust": "pooled", "least_count": 3},
    "pooled, noise 20, 1e-5": {"trust": "pooled", "noise": Noise(20.0, 1e-5)},
    "pooled, noise 8, 1e-5": {"trust": "pooled", "noise": Noise(8.0, 1e-5)},
    "pooled, noise 2, 1e-5": {"trust": "pooled", "noise": Noise(2.0, 1e-5)},
}
BASELINES = ("zero-shot", "alone", "average", "pooled", "oracle")
RUNS = Path("runs/clients")
TABLE = Path(__file__).parent / "results" / "clients.md"
COLUMNS = ("own mix: mean", "own mix: worst", "all alike: mean", "all alike: worst", "unseen: mean", "trust in group")


def figures(split: str, seed: int) -> dict[str, Any]:
    """Every row's accuracies, client by client; what is finished is read back."""
    folder = RUNS / f"{split.replace(':', '-')}-seed-{seed}"
    kept, ways = folder / "figures.json", WAYS | (PRIVATE if split.startswith("dirichlet") else {})
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"rows": {}}
    missing = {name: changes for name, changes in ways.items() if name not in found["rows"]}
    if not missing:
        return dict(found)
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(seed=seed)
    whole = data.read(config.data)
    drawn = data.draw(whole, config.data, seed)
    public = splits.unused(whole, drawn, PUBLIC, seed)
    federation = splits.split(drawn, public, parse_split(split), CLIENTS, seed)
    rows: dict[str, Any] = found["rows"]
    for name, changes in missing.items():
        print(f"{split}, seed {seed}: {name}", flush=True)
        how = dataclasses.replace(ClientsConfig(clients=CLIENTS, split=parse_split(split)), **changes)
        outcome = closed_form.simulate(_black_box(federation.class_names), federation, config, how, folder)
        result = report.as_result(outcome, federation, how, {})
        accuracy = result["accuracy"]
        rows |= {baseline: accuracy[baseline] for baseline in BASELINES} if not rows else {}
        about = {"inside": 100 * result["trust_inside_group"], "clients": result["clients"]}
        rows[name] = accuracy[changes["trust"]] | about
    found = {"groups": [holding.group for holding in federation.holdings], "rows": rows}
    write_atomically(kept, json_text(found))
    return found


@functools.cache
def _black_box(class_names: tuple[str, ...]) -> BlackBox:
    return blackbox.from_settings(Config().black_box, class_names)


def table(split: str, found: Sequence[dict[str, Any]]) -> list[str]:
    """A split's rows, means over seeds of the mean and worst client; of `noisy` without the noisy one."""
    lines = [f"| {split} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name in found[0]["rows"]:
        seeds = [of_clients(one["rows"][name], _shown(split, one["groups"])) for one in found]
        means = [statistics.mean(column) if None not in column else None for column in zip(*seeds, strict=True)]
        lines.append(f"| {name} | " + " | ".join("–" if m is None else f"{m:.1f}" for m in means) + " |")
    return lines


def _shown(split: str, groups: Sequence[int]) -> list[int]:
    return [i for i, group in enumerate(groups) if split != "noisy" or not group]


def of_clients(row: dict[str, Any], shown: Sequence[int]) -> list[float | None]:
    """A row's figures, of the clients shown."""
    own, alike = ([row[measure][i] for i in shown] for measure in ("own_mix", "uniform"))
    unseen = [row["unseen"][i] for i in shown if row["unseen"][i] is not None]
    means = [statistics.mean(own), min(own), statistics.mean(alike), min(alike)]
    return [*means, statistics.mean(unseen) if unseen else None, row.get("inside")]


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """All tables, and what a client sends."""
    lines = ["# Clients", "", __doc__.splitlines()[0] + " `python -m benchmarks.clients`.", ""]
    lines += ["Test accuracy in percent; the mean over seeds of the mean client and of the worst one.", ""]
    for split, seeds in found.items():
        lines += [*table(split, seeds), ""]
    first = found["dirichlet:0.1"][0]["rows"]
    lines += ["What the first client sends and receives (`dirichlet:0.1`, seed 1):", ""]
    for name, row in first.items():
        if "clients" in row:
            one = row["clients"][0]
            lines.append(f"- {name}: {one['bytes_sent'] / 1e6:.2f} and {one['bytes_received'] / 1e6:.2f} MB")
    return "\n".join([*lines, ""])


def main(chosen: Sequence[str]) -> None:
    """Measures the chosen splits, or all, and prints their tables."""
    found = {split: [figures(split, seed) for seed in SEEDS] for split in chosen or SPLITS}
    for split, seeds in found.items():
        print("\n".join(table(split, seeds)), end="\n\n")
    if all(split in found for split in SPLITS):
        write_atomically(TABLE, page(found))


if __name__ == "__main__":
    main(sys.argv[1:])
