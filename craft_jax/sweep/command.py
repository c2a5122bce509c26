"""Many runs and one table: python -m craft_jax.sweep --config=A.py,B.py --shots=1,2,4,8,16 --seeds=1,2,3

Each run has its own workdir, so what is done is skipped and what was killed resumes. Leaves table.md, table.csv and,
for few shots, table.png in the sweep's workdir.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from craft_jax import folders
from craft_jax.cli import called, parse
from craft_jax.distributed import preemption
from craft_jax.errors import Interrupted, UserError, first_line, on_command_line
from craft_jax.files import one_line, write_atomically
from craft_jax.sweep import plan
from craft_jax.sweep.plan import PlannedRun

if TYPE_CHECKING:
    from craft_jax.sweep.engines import Engine
    from craft_jax.sweep.runner import Shared

_USAGE = """\
usage: {command} --config=A[:VARIANT],B [--shots=1,2,4,8,16] [--seeds=1,2,3]
       [--protocol=few_shot|base_to_new|cross|shift] [--targets=C] [--workdir=runs/sweep] [--parallel=N]
       [--engine=submitit|ray --engine_option=NAME=VALUE ...] [--array=I/N] [--config.NAME=VALUE ...]

A, B and C are settings by name, such as demo, or files. Runs each at every number of shots with every seed, and
writes one table. The same command again skips what is done and resumes what was killed. The query budget is the
published one for the number of shots (2,000 at 1, 4,000 at 2 and 4, 8,000 from 8) where neither the settings nor
--config.query_budget say another.

On Slurm or a Ray cluster, each run a job that is started again where its machine is lost (docs/launch.md):

  {command} --config=caltech --workdir=/shared/runs --engine=submitit --engine_option=timeout_min=120 \\
       --engine_option=gpus_per_node=1 --engine_option=slurm_partition=gpu
  {command} --config=caltech --workdir=/shared/runs --engine=ray --engine_option=num_gpus=1

By any other launcher, 15 runs in 15 tasks: --array=$TASK/15 in each; the last to end writes the table.
"""

_LOCAL = "local"
_PASSED_ON = ("config", "shots", "seeds", "protocol", "targets", "workdir")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()

    def text(name: str, default: str, help_text: str) -> None:
        flags.DEFINE_string(name, default, help_text, flag_values=values)

    text(
        "config",
        "",
        "Settings, by name or file, with their variants, joined by commas; override all with --config.NAME=VALUE.",
    )
    text("shots", "1,2,4,8,16", "Numbers of shots.")
    text("seeds", "1,2,3", "Seeds of the runs.")
    text(
        "protocol",
        "few_shot",
        "few_shot; base_to_new classes; cross: the prompt on --targets; shift: ImageNet's variants.",
    )
    text("targets", "", "Settings of the sets that --protocol=cross tests on.")
    text("workdir", "runs/sweep", "Folder of the sweep.")
    text("array", "1/1", "I/N does the I-th of N shares of the runs, counted from 1, for array jobs.")
    flags.DEFINE_integer(
        "parallel", 1, "Processes side by side, each on GPUs of its own or all on the CPU; jobs at once of an engine.",
        1, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum("engine", _LOCAL, [_LOCAL, "submitit", "ray"], "What carries out the runs.", flag_values=values)
    flags.DEFINE_multi_string(
        "engine_option", [], "NAME=VALUE that the engine is told of each job, such as timeout_min=120 or num_gpus=1.",
        flag_values=values,
    )  # fmt: skip
    return values


@on_command_line()
def main(argv: list[str]) -> None:
    """Runs the sweep that the command line describes."""
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    own = [argument for argument in argv if not argument.startswith("--config.")]
    given, rest = parse(_flags(), own, usage=_USAGE.format(command=called(argv, "craft_jax.sweep")))
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; settings are given as --config.NAME=VALUE")
    if not given.config:
        raise UserError("--config is missing; try --config=demo")
    if given.protocol not in plan.PROTOCOLS:
        raise UserError(f"--protocol={given.protocol} must be one of {', '.join(plan.PROTOCOLS)}")
    workdir = folders.named(given.workdir, "--workdir")
    runs = plan.plan(
        given.config,
        overrides,
        shots=_numbers("shots", given.shots),
        seeds=_numbers("seeds", given.seeds),
        protocol=given.protocol,
        targets=given.targets,
        workdir=workdir,
    )
    share = _share(given.array, runs)
    missing = [run for run in share if not plan.is_done(run)]
    engine = _engine(given, workdir)
    print(f"{len(share)} runs, {len(share) - len(missing)} of them done", flush=True)
    shared = _check_data(missing)
    # A share of an array job looks at its own photographs alone, as each run does before it asks anything.
    failures = _fail_unreadable(missing, shared) if share == runs else {}
    left = [run for run in missing if run.workdir not in failures]
    if engine or (given.parallel > 1 and len(left) > 1):
        passed_on = [f"--{name}={given[name].value}" for name in _PASSED_ON]
        command = [sys.executable, "-m", "craft_jax.sweep", *passed_on, *overrides]
        stopped = _elsewhere(command, runs, left, engine or given.parallel)
    else:
        stopped = _one_by_one(left, shared)
    _write_table(runs, given.protocol, workdir, whole=share == runs)
    if failures or stopped:
        all_failures = [*failures.values(), *stopped]
        raise UserError(f"{len(all_failures)} of {len(missing)} runs failed; the first: {all_failures[0]}")


def _numbers(name: str, text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UserError(f"--{name}={text} must be whole numbers joined by commas, such as 1,2,4") from error
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--{name}={text} names a number twice; drop one")
    return numbers


def _share(array: str, runs: list[PlannedRun]) -> list[PlannedRun]:
    part, _, parts = array.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--array={array} must be I/N, such as 3/15, with I from 1 to N")
    return runs[int(part) - 1 :: int(parts)]


def _engine(given: flags.FlagValues, workdir: Path) -> "Engine | None":
    """What carries out the runs elsewhere, by the command line; None where it is this machine."""
    if given.engine == _LOCAL:
        if given.engine_option:
            raise UserError(f"--engine_option={given.engine_option[0]} is for --engine=submitit or --engine=ray")
        return None
    from craft_jax.sweep import engines

    return engines.build(given.engine, given.engine_option, workdir, given.parallel)


def _title(run: PlannedRun) -> str:
    return f"{run.label}, {run.config.data.shots} shots, seed {run.config.seed}"


def _check_data(runs: Sequence[PlannedRun]) -> "Shared":
    """Draws the shots of every run before the first begins, so that a set that is not there stops nothing midway."""
    from craft_jax.distributed import devices
    from craft_jax.sweep import runner

    devices.check_found()
    shared = runner.Shared()
    for run in runs:
        for config in (run.config, *run.transfers.values()):
            shared.dataset(config)
    return shared


def _fail_unreadable(runs: Sequence[PlannedRun], shared: "Shared") -> dict[Path, str]:
    """Says, once a set, which photographs cannot be read. Returns what stops which run, by workdir."""
    from craft_jax.sweep import runner

    stopped = [(run, reason) for run, reason in zip(runs, runner.unreadable(runs, shared), strict=True) if reason]
    for reason in dict.fromkeys(reason for _, reason in stopped):
        print(f"failed: {one_line(reason)}", flush=True)
    for run, reason in stopped:
        _keep_reason(run, reason)
    return {run.workdir: f"{_title(run)}: {reason}" for run, reason in stopped}


def _keep_reason(run: PlannedRun, reason: str) -> None:
    if run.workdir.is_dir():
        write_atomically(run.workdir / plan.FAILED, reason + "\n")


def _one_by_one(missing: Sequence[PlannedRun], shared: "Shared") -> list[str]:
    """Runs what is missing; a run that a mistake or the device stops is passed over. Returns what stopped which."""
    from jax.errors import JaxRuntimeError

    from craft_jax.sweep import runner

    failures = []
    for number, run in enumerate(missing, start=1):
        print(f"\n[{number}/{len(missing)}] {_title(run)}", flush=True)
        stop = preemption.Notice()  # of this run alone: before its first step it has nothing to save
        stop.listen()
        (run.workdir / plan.FAILED).unlink(missing_ok=True)
        try:
            runner.carry_out(run, shared, stop)
        except Interrupted:
            if stop.by_hand:
                raise KeyboardInterrupt from None
            raise
        except (UserError, JaxRuntimeError) as error:  # the latter when memory is out
            reason = first_line(error)
            print(f"failed: {one_line(reason)}", flush=True)
            failures.append(f"{_title(run)}: {reason}")
            _keep_reason(run, reason)
        if stop.by_hand:
            raise KeyboardInterrupt
        if stop():
            raise Interrupted(f"stopped after {_title(run)}")
    return failures


def _elsewhere(
    command: list[str], runs: list[PlannedRun], missing: list[PlannedRun], where: "Engine | int"
) -> list[str]:
    """The same by an engine, or in so many processes: each job does a share of one run, as in an array job."""
    from craft_jax.sweep import engines, processes

    shares = [
        processes.Share(_title(run), [*command, f"--array={runs.index(run) + 1}/{len(runs)}"], run.workdir / "log.txt")
        for run in missing
    ]
    say = functools.partial(print, flush=True)
    if isinstance(where, int):
        failures = processes.run_all(shares, processes.places_for(where), say)
    else:
        failures = engines.run_all(shares, where, say)
    for failure in failures:
        if failure.status != processes.USER_ERROR:
            print(f"{failure.share.name}: ended with status {failure.status}; see {failure.share.log}", file=sys.stderr)
            sys.exit(failure.status if failure.status > 0 else 128 - failure.status)
    return [f"{failure.last_line.split('the first: ')[-1]} (see {failure.share.log})" for failure in failures]


def _write_table(runs: list[PlannedRun], protocol: str, workdir: Path, *, whole: bool) -> None:
    """Writes the table of all runs; a share of an array job does so where it was the last to end."""
    from craft_jax.sweep import results, table

    done = sum(map(plan.is_done, runs))
    over = sum(plan.is_done(run) or bool(plan.failure(run)) for run in runs)
    if over < len(runs) and not whole:
        print(f"{done} of {len(runs)} runs done; the share that ends last writes the table")
        return
    entries = results.collect(runs, protocol)
    print("\n" + table.write(entries, runs, protocol, workdir))
