"""Clients that tune together: python -m craft_jax.clients --config=demo --clients=10 --split=dirichlet:0.1

A simulation on this machine. Leaves result.json, report.md and clients.png in the workdir.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from craft_jax import config as settings
from craft_jax import folders
from craft_jax import main as main_job
from craft_jax.cli import called, parse
from craft_jax.clients.settings import ClientsConfig, parse_noise, parse_split
from craft_jax.distributed import preemption
from craft_jax.errors import UserError, on_command_line
from craft_jax.files import sole_writer

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox
    from craft_jax.clients.splits import Federation
    from craft_jax.data import LazyImage

_USAGE = """\
usage: {command} --config=demo [--clients=10] [--split=dirichlet:0.1] [--trust=predictions]
       [--exchange=statistics|prompt|head|both] [--every=5] [--public=128]
       [--least_count=1] [--noise=EPSILON:DELTA] [--masks] [--workdir=DIR] [--config.NAME=VALUE ...]

Deals a set's photographs to clients, lets them exchange sums once, or search and exchange what they learn, and measures
what each is served by it. Between machines, by Flower (extra clients): --serve=HOST:PORT once, --join=HOST:PORT at each
client. With --config=demo:by-class they search; the query budget is each client's."""


def _flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        help_string="Settings by name, such as demo, or a file; override any with --config.data.shots=4.",
        flag_values=values,
        sys_argv=argv,
    )

    def text(name: str, default: str | None, help_text: str) -> None:
        flags.DEFINE_string(name, default, help_text, flag_values=values)

    def number(name: str, default: int, help_text: str) -> None:
        flags.DEFINE_integer(name, default, help_text, flag_values=values)

    text("workdir", None, "Folder of the run; by default runs/clients-<config>-<split>-<trust>.")
    number("clients", 10, "How many; with --split=folders 0 takes all there are.")
    text(
        "split", "dirichlet:0.1",
        "iid, dirichlet:ALPHA, disjoint (classes), domains:2 or 3, permuted:GROUPS (labels), noisy (one client), or "
        "folders (data.root has one for each client).",
    )  # fmt: skip
    text(
        "trust", "predictions",
        "weights, validation or predictions; or alone, average (of heads), pooled (all alike), oracle (true groups).",
    )  # fmt: skip
    text(
        "exchange", None,
        "statistics (sums, once), or what clients that search have learnt: prompt, head or both; by default statistics "
        "where the settings ask texts, else both.",
    )  # fmt: skip
    number("every", 5, "Steps between two exchanges of what clients that search have learnt.")
    number("public", 128, "Unlabelled photographs that all see, of those that are nobody's.")
    text("public_images", None, "Folder of photographs that all see, in the place of these.")
    number("least_count", 1, "Photographs of a class below which a client sends nothing of it.")
    text("noise", "", "EPSILON:DELTA of the differential privacy of each photograph, by noise on what is sent.")
    text("serve", "", "HOST:PORT: carry out an exchange among --clients real clients, by Flower; no photographs here.")
    text("join", "", "HOST:PORT of a server: take part with the photographs of --config as one client.")
    text("name", None, "With --join, of this client; by default its data.root's.")
    number("wait", 600, "With --serve, seconds for clients to come, and for each of their replies.")
    flags.DEFINE_bool("masks", False, "Sends sums under masks that cancel in the sum of all.", flag_values=values)
    return values


@on_command_line()
def main(argv: list[str]) -> None:
    """Runs the simulation that the command line describes."""
    argv = settings.packaged.in_arguments(argv)
    known = list(settings.flat_settings(dataclasses.asdict(settings.Config())))
    usage = _USAGE.format(command=called(argv, "craft_jax.clients"))
    given, rest = parse(_flags(argv), argv, usage=usage, settings=known)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; settings are given as --config.NAME=VALUE")
    config = settings.from_config_dict(main_job.settings_file(given))
    how = _how(given, config)
    label = main_job.label_of(config_flags.get_config_filename(given["config"]))
    own = f"runs/clients-{label}-{given.split.replace(':', '')}-{given.trust}"
    workdir = folders.named(given.workdir or own, "--workdir")
    folders.check_writable(workdir)
    if given.serve or given.join:
        _over_network(given, config, how, workdir)
        return

    # Imported here, so that --help and bad settings answer at once.
    from craft_jax import blackbox
    from craft_jax.clients import closed_form, report, searching
    from craft_jax.distributed import devices

    devices.check_found()
    federation = _federation(config, how, given.public_images)
    black_box: BlackBox = blackbox.from_settings(config.black_box, federation.class_names, config.api)
    say = functools.partial(print, flush=True)
    stop = preemption.Notice()
    stop.listen()
    used = dataclasses.asdict(config) | {"clients": dataclasses.asdict(how)}
    with sole_writer(workdir):
        if how.exchange == "statistics":
            outcome = closed_form.simulate(black_box, federation, config, how, workdir, say)
        else:
            outcome = searching.simulate(black_box, federation, config, how, workdir, say, stop)
        table = report.write(outcome, federation, how, used, workdir)
    print(f"\n{table}\n\nreport: {workdir / report.REPORT}\npicture: {workdir / report.PICTURE}")


def _over_network(given: flags.FlagValues, config: settings.Config, how: ClientsConfig, workdir: Path) -> None:
    """One side of an exchange between machines."""
    if given.serve and given.join:
        raise UserError("--serve and --join: one command is either the server or a client; give one of them")
    if how.exchange != "statistics" or how.trust in ("alone", "oracle"):
        raise UserError(
            f"--exchange={how.exchange} --trust={how.trust}: between machines statistics are exchanged, by "
            "predictions, validation, weights, average or pooled"
        )
    if given.wait < 1:
        raise UserError(f"--wait={given.wait} must be at least 1")
    from craft_jax.clients import network

    say = functools.partial(print, flush=True)
    if given.serve:
        network.serve(given.serve, how, float(given.wait), workdir, say)
        return
    wanted = how.public if how.trust == "predictions" or how.noise else 0
    if wanted and not given.public_images:
        raise UserError("--join: photographs that all see are the same at every client; name them by --public_images")
    public = _images_below(given.public_images)[:wanted] if wanted else []
    name = given.name or Path(config.data.root).name
    with sole_writer(workdir):
        network.join(given.join, name, config, how, public, workdir, say)


def _how(given: flags.FlagValues, config: settings.Config) -> ClientsConfig:
    how = ClientsConfig(
        clients=given.clients,
        split=parse_split(given.split),
        trust=given.trust,
        exchange=given.exchange or ("statistics" if config.probe.texts else "both"),
        every=given.every,
        public=given.public,
        least_count=given.least_count,
        noise=parse_noise(given.noise),
        masks=given.masks,
    )
    if how.split.kind == "folders" and how.trust == "oracle":
        raise UserError("--trust=oracle needs true groups, which --split=folders does not know; choose another")
    if how.exchange == "statistics" and not config.probe.texts:
        raise UserError("--exchange=statistics: probe.texts=0 asks no texts, of which they are made; raise it")
    if how.exchange != "statistics" and config.search.estimator in ("gauss-newton", "cma-es", "white-box"):
        raise UserError(
            f"--exchange={how.exchange}: clients search by losses alone, not by "
            f"search.estimator={config.search.estimator}; take a recipe such as by-class, as in --config=demo:by-class"
        )
    return how


def _federation(config: settings.Config, how: ClientsConfig, public_images: str | None) -> "Federation":
    """Who has what, by the settings."""
    from craft_jax import data
    from craft_jax.clients import splits

    wanted = how.public if how.trust == "predictions" or how.noise else 0
    public = _images_below(public_images)[:wanted] if public_images else []
    if how.split.kind == "folders":
        if wanted and not public:
            raise UserError(
                "--split=folders: photographs that all see are in no client's; name them by --public_images"
            )
        if config.data.source != "folder":
            raise UserError(f"data.source={config.data.source}: --split=folders reads data.source=folder")
        root, _ = data.sources.paths(config.data)
        return splits.read_folders(root, how.clients, config.data.split_seed, public)
    whole = data.read(config.data)
    drawn = data.draw(whole, config.data, config.seed)
    if wanted and not public_images:
        public = splits.unused(whole, drawn, wanted, config.seed)
        if not public:
            raise UserError("data.shots takes every photograph, and none is left for all to see; name --public_images")
    return splits.split(drawn, public, how.split, how.clients, config.seed)


def _images_below(folder: str) -> "list[LazyImage]":
    """The photographs below a folder, by name."""
    from craft_jax.data import ImageFile

    root = folders.expanded(folder, "--public_images")
    if not root.is_dir():
        raise UserError(f"--public_images={folder}: no such folder")
    found: list[Path] = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not found:
        raise UserError(f"--public_images={folder}: no photograph there")
    return [ImageFile(path) for path in found]
