"""The same clients and the same exchange over Flower: a server, and a process for each client, wherever it runs.

Clients introduce themselves by a name, their class names and a public key; the server orders them by name, joins the
classes, and carries the messages of `strategy`. Needs the package `flwr`.
"""

import hashlib
import importlib
import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from craft_jax.clients import strategy
from craft_jax.clients.client import Client, Message
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.strategy import Exchanged
from craft_jax.errors import UserError, needed, silenced

INTRODUCE, ASSIGN = "introduce", "assign"
_PURPOSE = "an exchange over a network"


class Assigned(NamedTuple):
    """What the server tells a client of the exchange.

    Attributes:
      place: among the M clients.
      class_names: of all clients together.
      secrets: shared with each other client; None at its own place.
    """

    place: int
    class_names: tuple[str, ...]
    secrets: tuple[bytes | None, ...]


def serve(
    address: str, how: ClientsConfig, wait: float, say: Callable[[str], None] = lambda line: None
) -> tuple[Exchanged, tuple[str, ...]]:
    """Waits for clients, carries out one exchange, and sends them away.

    Args:
      address: to listen at, HOST:PORT.
      how: which trust, how many clients, and whether under masks; clients must say the same.
      wait: seconds for clients to come, and for each reply; one that is late is left out.
      say: is told of what goes on.

    Returns:
      The exchange, and the clients' names in the order of its matrix.

    Raises:
      NotInstalled: where `flwr` is missing.
      UserError: where fewer than two clients come or answer, or two have the same name.
    """
    flower = _flower()
    ended: list[Any] = []

    class Exchange(flower.server.Server):  # type: ignore[name-defined]
        def fit(self, num_rounds: int, timeout: float | None) -> Any:
            try:
                ended.append(_serve(self.client_manager(), how, wait, say))
            except UserError as error:
                ended.append(error)
            return flower.server.History(), 0.0

    server = Exchange(client_manager=flower.server.SimpleClientManager())
    with silenced("flwr"):
        flower.server.start_server(
            server_address=address, server=server, config=flower.server.ServerConfig(num_rounds=1, round_timeout=wait)
        )
    if isinstance(ended[0], UserError):
        raise ended[0]
    exchanged, names = ended[0]
    return exchanged, names


def join(
    address: str,
    name: str,
    class_names: Sequence[str],
    how: ClientsConfig,
    build: Callable[[Assigned], Client],
) -> Client:
    """Takes part in one exchange, to its end.

    Args:
      address: of the server, HOST:PORT.
      name: of this client, another than the others'.
      class_names: of its photographs.
      how: as the server has it; least count and noise are this client's own.
      build: the client, once all know one another; here photographs are asked about.

    Raises:
      NotInstalled: where `flwr` is missing.
      UserError: where the server has another exchange in mind, or ends before this client has its head.
    """
    flower = _flower()
    key = _Key()
    built: list[Client] = []
    mistakes: list[UserError] = []

    def answer(step: str, message: Message) -> Message:
        if step == INTRODUCE:
            return {"name": np.array(name), "classes": np.array(list(class_names)), "key": key.public}
        if step == ASSIGN:
            _check_same(message, how)
            built.append(build(_assigned(message, key)))
            return {}
        return built[0].reply(step, message)

    class Transport(flower.client.Client):  # type: ignore[name-defined]
        def fit(self, ins: Any) -> Any:
            try:
                reply, code = answer(str(ins.config["step"]), _unpacked(ins.parameters)), flower.common.Code.OK
            except UserError as error:
                mistakes.append(error)
                reply, code = {}, flower.common.Code.FIT_NOT_IMPLEMENTED
            status = flower.common.Status(code, "")
            return flower.common.FitRes(status, _packed(flower, reply), num_examples=1, metrics={})

    with silenced("flwr"):
        try:
            flower.client.start_client(server_address=address, client=Transport(), max_wait_time=60.0, insecure=True)
        except Exception as error:  # gRPC's own, of which only the last line speaks to a user
            if not (built and built[0].settled):
                raise UserError(f"--join={address}: no server there, or it has ended ({_last(error)})") from error
    if mistakes:
        raise mistakes[0]
    if not built or not built[0].settled:
        raise UserError(f"--join={address}: the exchange ended without this client; look at the server's last lines")
    return built[0]


def _serve(manager: Any, how: ClientsConfig, wait: float, say: Callable[[str], None]) -> tuple[Exchanged, Any]:
    came = _arrived(manager, how.clients, wait)
    say(f"{len(came)} of {how.clients} clients came")
    proxies: dict[int, Any] = dict(enumerate(came))
    told = _send(proxies, INTRODUCE, {i: {} for i in proxies}, wait)
    order = sorted(told, key=lambda i: str(told[i]["name"]))
    names = tuple(str(told[i]["name"]) for i in order)
    if len(set(names)) < len(names):
        raise UserError(f"two clients have the same name ({', '.join(names)}); give each its own --name")
    if len(order) < 2:
        raise UserError(f"{len(order)} of {how.clients} clients came within {wait:g} s; an exchange needs two at least")
    by_index = {index: proxies[i] for index, i in enumerate(order)}
    classes = np.array(sorted({str(name) for i in order for name in told[i]["classes"]}))
    keys = np.stack([told[i]["key"] for i in order])
    common = {"classes": classes, "keys": keys, "how": np.array(_told(how))}
    ready = _send(by_index, ASSIGN, {i: common | {"place": np.array(i)} for i in by_index}, wait)
    say(f"{len(ready)} clients have asked about their photographs")

    def carry(step: str, messages: dict[int, Message]) -> dict[int, Message]:
        replies = _send(by_index, step, {i: m for i, m in messages.items() if i in ready}, wait)
        say(f"{step}: {len(replies)} of {len(messages)} clients answered")
        return replies

    return strategy.exchange(carry, how, len(names)), names


def _arrived(manager: Any, clients: int, wait: float) -> list[Any]:
    """The clients that are there, once all are or the time is over."""
    deadline = time.monotonic() + wait
    while manager.num_available() < clients and time.monotonic() < deadline:
        time.sleep(0.1)
    return list(manager.all().values())


def _send(proxies: dict[int, Any], step: str, messages: dict[int, Message], wait: float) -> dict[int, Message]:
    """Sends to all at once; replies of those who answer well and in time."""
    flower, replies = _flower(), {}

    def one(i: int, message: Message) -> None:
        ins = flower.common.FitIns(_packed(flower, message), {"step": step})
        try:
            result = proxies[i].fit(ins, timeout=wait, group_id=None)
        except Exception:  # whatever a lost connection raises: the client is left out
            return
        if result.status.code == flower.common.Code.OK:
            replies[i] = _unpacked(result.parameters)

    threads = [threading.Thread(target=one, args=item, daemon=True) for item in messages.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + wait
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(sorted(replies.items()))


def _assigned(message: Message, key: "_Key") -> Assigned:
    place = int(message["place"])
    secrets = tuple(None if i == place else key.shared(other) for i, other in enumerate(message["keys"]))
    return Assigned(place, tuple(str(name) for name in message["classes"]), secrets)


def _told(how: ClientsConfig) -> str:
    return f"--trust={how.trust}{' --masks' if how.masks else ''}"


def _check_same(message: Message, how: ClientsConfig) -> None:
    """Raises UserError where the server would have more leave this client than its own command says."""
    if str(message["how"]) != _told(how):
        raise UserError(f"the server exchanges by {message['how']}, and this client by {_told(how)}; make them equal")


class _Key:
    """A key pair of X25519, of which the server passes the public half on."""

    def __init__(self) -> None:
        with needed("flwr", _PURPOSE):
            from cryptography.hazmat.primitives.asymmetric import x25519
        self._x25519 = x25519
        self._private = x25519.X25519PrivateKey.generate()
        self.public = np.frombuffer(self._private.public_key().public_bytes_raw(), np.uint8)

    def shared(self, other: np.ndarray) -> bytes:
        """The secret that this client and the other one alone know."""
        agreed = self._private.exchange(self._x25519.X25519PublicKey.from_public_bytes(other.tobytes()))
        return hashlib.sha256(agreed).digest()


def _packed(flower: Any, message: Message) -> Any:
    """Named arrays as one npz file without pickles."""
    file = io.BytesIO()
    np.savez(file, **message)  # type: ignore[arg-type]
    return flower.common.Parameters(tensors=[file.getvalue()], tensor_type="npz")


def _unpacked(parameters: Any) -> Message:
    with np.load(io.BytesIO(parameters.tensors[0]), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _flower() -> Any:
    """The package, which else tells its makers of every use."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    with needed("flwr", _PURPOSE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in ("client", "common", "server"):
            importlib.import_module(f"flwr.{part}")
        return importlib.import_module("flwr")


def _last(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
