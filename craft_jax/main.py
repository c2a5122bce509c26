"""The main job: python -m craft_jax.main --config=configs/demo.py --workdir=runs/demo

Tunes, or resumes, and leaves checkpoints, metrics.jsonl, result.json, predictions.csv, report.html, report.md and
curve.png in the workdir.
"""

import contextlib
import dataclasses
import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from craft_jax import config as settings
from craft_jax import folders
from craft_jax.cli import RESUMES, called, exit_on_user_error, inside_settings_file, last_line, parse
from craft_jax.distributed import preemption
from craft_jax.errors import Interrupted, UserError, on_command_line
from craft_jax.files import one_line, shown, write_atomically

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.data import FewShotSet

_USAGE = "usage: {} --config=demo [--workdir=runs/demo] [--config.NAME=VALUE ...]"


def _flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        help_string="Settings by name, such as demo, or a file; override any with --config.data.shots=4.",
        flag_values=values,
        sys_argv=argv,
    )
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, resumed where it stopped; by default runs/<config>-<variant>.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Says what was read, shows it on a page, says what the run will ask and cost, and stops.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "watch", None, "Shows the run while it goes on a page at this port of 127.0.0.1; 0 takes a free one.",
        lower_bound=0, upper_bound=65535, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "coordinator", None, "On several hosts: HOST:PORT of host 0. Cloud TPU and SLURM need no such flag.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("process_count", None, "On several hosts: how many processes.", flag_values=values)
    flags.DEFINE_integer("process_index", None, "On several hosts: which of them this is.", flag_values=values)
    flags.DEFINE_integer(
        "host_timeout", 300, "On several hosts: seconds to wait for one that is missing.", flag_values=values
    )
    return values


@on_command_line()
def main(argv: list[str]) -> None:
    """Runs the job that the command line describes."""
    argv = settings.packaged.in_arguments(argv)
    given, rest = parse(_flags(argv), argv, usage=_USAGE.format(called(argv, "craft_jax.main")), settings=_settings())
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; settings are given as --config.NAME=VALUE")
    config = settings.from_config_dict(settings_file(given))
    own = f"runs/{label_of(config_flags.get_config_filename(given['config']))}"
    workdir = folders.named(given.workdir or own, "--workdir")

    stop = preemption.Notice()
    stop.listen()

    # Imported here, so that --help and bad settings answer at once.
    from craft_jax import data, training
    from craft_jax.distributed import devices, hosts
    from craft_jax.training import report

    _meet(given)
    devices.check_found()
    with hosts.watched():
        hosts.first_alone(lambda: folders.check_writable(workdir))
        dataset, black_box = hosts.together(lambda: _load(config))
    if hosts.is_first():
        for note in data.notes_of(dataset, config.held_out):
            print(f"note: {one_line(note)}", flush=True)
        if given.dry_run or config.black_box.api or config.learn == "texts":
            print("\n".join(training.estimate(black_box, dataset, config)), flush=True)
        if given.dry_run:
            _show_reading(dataset, config, workdir)
    if given.dry_run:
        return
    try:
        with contextlib.ExitStack() as watching:
            if given.watch is not None:
                hosts.first_alone(lambda: _watch(watching, workdir / training.METRICS, config.budget, given.watch))
            result = training.train(black_box, dataset, config, workdir, stop=stop).result
    except Interrupted:
        if stop.by_hand:
            raise KeyboardInterrupt from None
        raise
    if hosts.is_first():
        table = report.table(dataclasses.asdict(result))
        left = one_line(str(workdir))
        print(f"\n{table}\n\nreport: {left}/{training.PAGE}\ncheckpoint: {left}/checkpoints\n")
        print("\n".join(["next:", *(f"  {line}" for line in report.next_commands(dataset, workdir))]), flush=True)


def _show_reading(dataset: "FewShotSet", config: settings.Config, workdir: Path) -> None:
    """The classes with their counts, and a contact sheet beside the workdir, which a run would have to itself."""
    from craft_jax import data, reporting

    kept, held_out = data.hold_out(dataset, config.held_out, config.seed)
    print("\n".join(["", *reporting.class_lines(kept, held_out)]), flush=True)
    sheet = workdir.with_name(f"{workdir.name}-photographs.html")
    sheet.parent.mkdir(parents=True, exist_ok=True)
    notes = data.notes_of(dataset, config.held_out)
    write_atomically(sheet, reporting.contact_sheet(kept, held_out, notes))
    print(f"\ncontact sheet: {one_line(shown(sheet))}", flush=True)


def _watch(until: contextlib.ExitStack, log: Path, budget: int, port: int) -> None:
    """Shows the run on a page until the stack is left, where there is a person to look."""
    from craft_jax import watch
    from craft_jax.progress import is_terminal

    if not is_terminal(sys.stdout):
        print(f"note: the output is no terminal, so --watch={port} shows nothing", flush=True)
        return
    print(f"watch: {until.enter_context(watch.watched(log, budget, port))}", flush=True)


def _settings() -> list[str]:
    """The full names of all settings."""
    return list(settings.flat_settings(dataclasses.asdict(settings.Config())))


def _meet(given: flags.FlagValues) -> None:
    """Joins the other hosts, where the command line or the environment says that there are any."""
    from craft_jax.distributed import hosts, initialize

    if given.host_timeout < 1:
        raise UserError(f"--host_timeout={given.host_timeout} must be at least 1")
    planned = initialize.plan(
        os.environ,
        coordinator=given.coordinator,
        process_count=given.process_count,
        process_index=given.process_index,
        on_tpu_vm=initialize.on_tpu_vm(),
    )
    if planned:
        initialize.meet(planned, given.host_timeout)
        if hosts.several():
            sys.excepthook = hosts.end_on_unexpected
        initialize.check_machines()


def _load(config: settings.Config) -> tuple["FewShotSet", "BlackBox"]:
    from craft_jax import blackbox, data

    dataset = data.load(config.data, config.seed)
    return dataset, blackbox.from_settings(config.black_box, dataset.class_names, config.api)


def label_of(file: str) -> str:
    """What runs of a settings file and its variants are called: configs/pets.py:paper,tfds are pets-paper-tfds."""
    path, _, variant = file.partition(":")
    return "-".join([Path(path).stem, *filter(None, variant.split(","))])


def settings_file(given: flags.FlagValues) -> dict[str, Any]:
    """What the file of the parsed flag --config holds; raises UserError where it is missing or holds something else."""
    if given.config is None:
        raise UserError("--config is missing, or its get_config returns nothing; try --config=demo")
    try:
        return given.config.to_dict()
    except OSError as error:  # ml_collections reports a missing file at its first use
        near = _near(config_flags.get_config_filename(given["config"]))
        raise inside_settings_file(error) or UserError(
            f"--config could not be loaded: {last_line(error)}{near}"
        ) from error
    except AttributeError as error:
        file, found = config_flags.get_config_filename(given["config"]), type(given.config).__name__
        raise UserError(
            f"{file}: get_config returns {found}, not a ConfigDict; return config_dict(config, variant) of "
            "craft_jax.config"
        ) from error


def _near(file: str) -> str:
    """What else a settings file that is not there may be called."""
    path = Path(file.partition(":")[0])
    if not path.parent.is_dir() and path.stem in settings.packaged.names():
        return f"; the one that comes with the package is --config={path.stem}"
    others = sorted(other.name for other in path.parent.glob("*.py")) if not path.exists() else []
    if not others:
        return ""
    nearest = difflib.get_close_matches(path.name, others, n=1)
    return f"; did you mean {path.parent / nearest[0]}?" if nearest else f"; there are {', '.join(others)}"


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv, interrupted=RESUMES)
