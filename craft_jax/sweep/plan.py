"""The runs of a sweep: settings files times shots times seeds, each with its own workdir, and what it is tested on.

Nothing is loaded here but the settings files.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from craft_jax import config as settings
from craft_jax import folders
from craft_jax.cli import parse
from craft_jax.config import BUNDLED, Config, identity, packaged, query_budget
from craft_jax.data import SHIFTS
from craft_jax.errors import UserError
from craft_jax.main import label_of, settings_file

PROTOCOLS = ("few_shot", "base_to_new", "cross", "shift")
NEW = "new"
SETTINGS, FAILED = "settings.json", "failed.txt"
_OWN_FLAGS = {"seed": "--seeds", "data.shots": "--shots", "data.classes": "--protocol=base_to_new"}


class PlannedRun(NamedTuple):
    """A run of a sweep.

    Attributes:
      label: its settings file and variant, such as caltech-paper: the row of the table.
      method: its variant, such as paper; empty for the file's own.
      config: its settings.
      workdir: its own.
      protocol: one of PROTOCOLS.
      transfers: what the tuned model is tested on beside the run's own test photographs; settings by name.
    """

    label: str
    method: str
    config: Config
    workdir: Path
    protocol: str
    transfers: dict[str, Config]


def plan(
    files: str,
    overrides: Sequence[str],
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    protocol: str,
    targets: str,
    workdir: Path,
) -> list[PlannedRun]:
    """Every run of a sweep, set by set, from few shots to many.

    Args:
      files: settings files with their variants, joined by commas.
      overrides: `--config.NAME=VALUE`, for all of them.
      shots: numbers of shots.
      seeds: of the runs.
      protocol: one of PROTOCOLS.
      targets: settings files of the sets that `cross` tests on.
      workdir: folder of the sweep.

    Raises:
      UserError: where a file cannot be read, two would share a workdir, or the protocol does not fit them.
    """
    for name, flag in _OWN_FLAGS.items():
        if any(override.startswith(f"--config.{name}=") for override in overrides):
            raise UserError(f"--config.{name} is the sweep's own: use {flag}")
    configs = read_settings(files, overrides)
    methods = {label_of(file): file.partition(":")[2] for file in packaged.parted(files)}
    others = read_settings(targets, overrides) if protocol == "cross" else {}
    if protocol == "cross" and not others:
        raise UserError("--protocol=cross needs --targets, the settings files of the sets to test on")
    runs = []
    for label, config in configs.items():
        if protocol in ("base_to_new", "cross") and config.prompt.context == "class":
            raise UserError(
                f"--protocol={protocol} takes the tuned prompt of {label} to other classes, and prompt.context=class "
                "tunes one for each class; use the variant unified, as in --config=configs/pets.py:unified"
            )
        if protocol == "base_to_new":
            config = _with_data(config, classes="base")
        folder = "base-" if protocol == "base_to_new" else ""
        for k in shots:
            for seed in seeds:
                run = dataclasses.replace(_with_data(config, shots=k), seed=seed)
                run = dataclasses.replace(run, query_budget=config.query_budget or query_budget(k))
                transfers = _transfers(label, run, protocol, others)
                own = workdir / label / f"{folder}{k}-shots-seed-{seed}"
                runs.append(PlannedRun(label, methods[label], run, own, protocol, transfers))
    return runs


def read_settings(files: str, overrides: Sequence[str]) -> dict[str, Config]:
    """Validated settings by label, of files joined by commas; a variant's own commas do not part files."""
    configs: dict[str, Config] = {}
    for file in packaged.parted(files):
        label = label_of(file)
        if label in configs:
            raise UserError(f"two settings files are called {label}; rename one of them")
        argv = ["sweep", f"--config={packaged.found(file)}", *overrides]
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        given, _ = parse(values, argv, usage="")
        configs[label] = settings.from_config_dict(settings_file(given))
    return configs


def _with_data(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))  # type: ignore[arg-type]


def _transfers(label: str, run: Config, protocol: str, others: dict[str, Config]) -> dict[str, Config]:
    if protocol == "base_to_new":
        return {NEW: _with_data(run, classes="new")}
    if protocol == "cross":
        # Only their test photographs are looked at; one shot is there in every set.
        return {name: _with_data(other, shots=1) for name, other in others.items() if name != label}
    if protocol == "shift":
        return _shifts(run)
    return {}


def _shifts(run: Config) -> dict[str, Config]:
    if run.data.source != "imagenet":
        raise UserError(f"--protocol=shift needs data.source=imagenet, not {run.data.source}; use configs/imagenet.py")
    root = folders.expanded("" if run.data.root == BUNDLED else run.data.root, "data.root")
    found = {name: run for name, folder in SHIFTS.items() if (root / folder).is_dir()}
    if not found:
        raise UserError(f"{root}: none of {', '.join(SHIFTS.values())} is there; lay them out as CoOp does")
    return found


def is_trained(run: PlannedRun) -> bool:
    """Whether the run's training is finished, with the settings that are now planned.

    Where the photographs or the model lie elsewhere now, only training itself can tell.

    Raises:
      UserError: where its workdir holds a finished run with other settings.
    """
    made = _whole(run.workdir / SETTINGS)
    if made is None or _whole(run.workdir / "result.json") is None:
        return False
    asked = identity.learnt_by(run.config)
    identity.check_settings(made, asked, run.workdir)
    return not identity.moved(made, asked)


def is_done(run: PlannedRun) -> bool:
    """Whether the run is trained and tested on everything."""
    return is_trained(run) and all(is_tested(run, name) for name in run.transfers)


def failure(run: PlannedRun) -> str:
    """What stopped the run when it was last tried; empty where nothing did."""
    file = run.workdir / FAILED
    return file.read_text(encoding="utf-8").strip() if file.exists() and not is_done(run) else ""


def is_tested(run: PlannedRun, name: str) -> bool:
    """Whether the run is tested on `name`, with the data settings that are now planned for it."""
    made = _whole(transfer_file(run, name))
    return made is not None and made.get("data") == identity.tested_on(run.transfers[name])


def _whole(file: Path) -> dict[str, Any] | None:
    """What a file of JSON holds; None where it is not there or damaged, and so to be made again."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def transfer_file(run: PlannedRun, name: str) -> Path:
    """Where the test on `name` is kept."""
    return run.workdir / f"on-{name}.json"
