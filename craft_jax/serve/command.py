"""A local model over HTTP: python -m craft_jax.serve --model=bundled

Reads the command line, loads the model and listens until SIGTERM or Ctrl-C, after which what is being answered is
answered.
"""

import importlib.util
import ipaddress
import os
import signal
import socket
from typing import Any

from absl import flags

from craft_jax import folders
from craft_jax.cli import called, elsewhere, parse
from craft_jax.config import BUNDLED
from craft_jax.errors import UserError

TOKEN = "CRAFT_JAX_SERVE_TOKEN"
_USAGE = f"""\
usage: {{command}} --model=bundled [--host=127.0.0.1] [--port=8000]
       {{command}} --checkpoint=runs/demo

Puts a local CLIP behind the forms that hosted models are asked in; docs/serve.md shows each. With a checkpoint it is
the CLIP that was tuned for, and POST /label answers an image's classes by what was tuned. Other machines reach it with
--host=0.0.0.0, and then the environment variable {TOKEN} must hold the token that requests bring."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "model", None, "As black_box.model takes it; with --checkpoint, where it is now.", flag_values=values
    )
    flags.DEFINE_string("checkpoint", None, "Workdir of a run, such as runs/demo, to label by.", flag_values=values)
    flags.DEFINE_enum(
        "dtype", None, ["float32", "bfloat16"], "That it computes in; float32, or the run's.", flag_values=values
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.", flag_values=values)
    flags.DEFINE_integer("port", 8000, "Port to listen at; 0 takes a free one.", 0, 65535, flag_values=values)
    flags.DEFINE_integer("max_megabytes", 64, "Of a request's body.", 1, flag_values=values)
    flags.DEFINE_integer("max_images", 1024, "In a request.", 1, flag_values=values)
    flags.DEFINE_integer("max_texts", 4096, "In a request, class names among them.", 1, flag_values=values)
    flags.DEFINE_integer("max_megapixels", 50, "Of an image.", 1, flag_values=values)
    flags.DEFINE_integer("max_in_flight", 128, "Requests answered at once.", 1, flag_values=values)
    flags.DEFINE_integer("keep_images", 100_000, "Encoded images kept in memory.", 1, flag_values=values)
    return values


def main(argv: list[str]) -> None:
    """Serves what the command line describes, until it is told to stop.

    Raises:
      UserError: for a mistake on the command line, a model that cannot be loaded, or a port in use.
    """
    usage = _USAGE.format(command=called(argv, "craft_jax.serve"))
    given, rest = parse(_flags(), argv, usage=usage)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; {usage.splitlines()[0]}")
    if not given.model and not given.checkpoint:
        raise UserError(f"--model or --checkpoint is missing; try --model={BUNDLED}")
    if given.keep_images < given.max_images:
        raise UserError(f"--keep_images={given.keep_images} must be at least --max_images={given.max_images}")
    _check_installed()
    token = _token(given.host)
    listening = _listen(given.host, given.port)
    with listening:
        _run(_application(given, token), listening, given.host)


def _application(given: flags.FlagValues, token: str | None) -> Any:
    # Imported here, so that --help and a wrong command line answer at once.
    from craft_jax import blackbox
    from craft_jax.serve import app, model, tuned
    from craft_jax.serve.limits import Counts, Limits
    from craft_jax.training import checkpoints

    limits = Limits(
        body=given.max_megabytes * 2**20,
        images=given.max_images,
        texts=given.max_texts,
        pixels=given.max_megapixels * 10**6,
        in_flight=given.max_in_flight,
        kept_images=given.keep_images,
    )
    if not given.checkpoint:
        name, dtype = given.model, given.dtype or "float32"
        served = model.Served(name, blackbox.Owned(name, dtype), limits, Counts())
        return app.build(served, None, token)

    made = checkpoints.open_for_prediction(folders.named(given.checkpoint, "--checkpoint")).tuned
    if blackbox.is_remote(made.black_box):
        raise UserError(
            f"the checkpoint is for {made.black_box['model']}, a remote black box, which is not here to serve"
        )
    name, dtype = given.model or made.black_box["model"], given.dtype or made.black_box["dtype"]
    with elsewhere(given.model):
        owned = blackbox.Owned(name, dtype)
    served = model.Served(name, owned, limits, Counts())
    return app.build(served, tuned.Labeller(served, owned, made), token)


def _check_installed() -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}; pip install 'craft_jax[serve]'")


def _token(host: str) -> str | None:
    """The token that requests must bring; raises UserError where other machines can ask and there is none."""
    token = os.environ.get(TOKEN)
    if token and not token.isascii():
        raise UserError(f"{TOKEN} holds characters that no header carries; choose a token in ASCII")
    if not token and not _is_loopback(host):
        raise UserError(
            f"--host={host} is reached from other machines, and there is no token; set the environment variable {TOKEN}"
        )
    return token or None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)  # which sets SO_REUSEADDR
    except OSError as error:
        raise UserError(f"--host={host} --port={port}: cannot listen there ({error.strerror or error})") from error
    return listening


def _run(application: Any, listening: socket.socket, host: str) -> None:
    import uvicorn

    shown = f"[{host}]" if ":" in host else host

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"serving at http://{shown}:{listening.getsockname()[1]}", flush=True)

    # uvicorn raises the signal that stopped it once more when it is done, and stopping is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )
    Server(config).run(sockets=[listening])
