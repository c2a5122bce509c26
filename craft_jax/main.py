"""The main job: python -m craft_jax.main --config=configs/demo.py --workdir=runs/demo

Tunes, or resumes, and leaves checkpoints, metrics.jsonl, result.json, report.md and curve.png in the workdir.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from craft_jax import config as settings
from craft_jax.entry import exit_on_user_error, last_line, parse
from craft_jax.errors import UserError

_USAGE = "usage: python -m craft_jax.main --config=configs/demo.py [--workdir=runs/demo] [--config.NAME=VALUE ...]"


def _flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        help_string="Settings file, such as configs/demo.py; override any with --config.data.shots=4.",
        flag_values=values,
        sys_argv=argv,
    )
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, resumed where it stopped; by default runs/<config>.", flag_values=values
    )
    return values


def main(argv: list[str]) -> None:
    """Runs the job that the command line describes."""
    given, rest = parse(_flags(argv), argv, usage=_USAGE)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; settings are given as --config.NAME=VALUE")
    config = settings.from_config_dict(settings_file(given))
    name = Path(config_flags.get_config_filename(given["config"])).stem
    workdir = Path(given.workdir or f"runs/{name}")

    # Imported here, so that --help and bad settings answer at once.
    from craft_jax import blackbox, data, report, training

    training.check_workdir(workdir)
    photographs = data.load(config.data, config.seed)
    for note in photographs.notes:
        print(f"note: {note}", flush=True)
    owner = config.black_box
    black_box = blackbox.load(owner.model, photographs.class_names, owner.template, owner.dtype)
    result = training.train(black_box, photographs, config, workdir).result
    print(f"\n{report.table(result)}\n\nreport: {workdir / training.REPORT}\ncheckpoint: {workdir / 'checkpoints'}")


def settings_file(given: flags.FlagValues) -> dict[str, Any]:
    """What the file of the parsed flag --config holds; raises UserError where it is missing."""
    if given.config is None:
        raise UserError("--config is missing; try --config=configs/demo.py")
    try:
        return given.config.to_dict()
    except OSError as error:  # ml_collections reports a missing file at its first use
        raise UserError(f"--config could not be loaded: {last_line(error)}") from error


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv)
