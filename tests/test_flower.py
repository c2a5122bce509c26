"""Clients in processes of their own, over Flower on loopback."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from craft_jax import blackbox
from craft_jax.clients import closed_form, command, splits, strategy
from craft_jax.clients.settings import ClientsConfig, Split
from craft_jax.config import Config, DataConfig, ProbeConfig, RunConfig
from craft_jax.data import ImageFile
from craft_jax.errors import UserError
from craft_jax.training import checkpoints
from tests.miniatures import BUNDLED

pytestmark = pytest.mark.slow
WITH_FLOWER = pytest.mark.skipif(not importlib.util.find_spec("flwr"), reason="flwr is not installed (extra clients)")
SETTINGS = {"views": 1, "texts": 24}
HELD = {"ann": ("pizza", "sunflower"), "bob": ("sunflower", "grand_piano"), "eve": ("pizza", "grand_piano")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three clients with two of three classes each, and photographs that all see."""
    root = tmp_path_factory.mktemp("clients")
    for number, (name, classes) in enumerate(HELD.items()):
        for label in classes:
            target = root / "own" / name / label
            target.mkdir(parents=True)
            for path in sorted((BUNDLED / "images" / label).iterdir())[8 * number : 8 * number + 8]:
                shutil.copy(path, target)
    (root / "public").mkdir()
    for label in ("pizza", "sunflower", "grand_piano"):
        for path in sorted((BUNDLED / "images" / label).iterdir())[24:28]:
            shutil.copy(path, root / "public" / f"{label}_{path.name}")
    return root


def _free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _start(*arguments):
    command = [sys.executable, "-m", "craft_jax.clients", "--config=folder", "--config.black_box.model=bundled"]
    command += [f"--config.data.views={SETTINGS['views']}", f"--config.probe.texts={SETTINGS['texts']}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _client(root, tmp_path, address, name, *more):
    own = [f"--config.data.root={root / 'own' / name}", f"--public_images={root / 'public'}"]
    return _start(f"--join={address}", *own, f"--workdir={tmp_path / name}", *more)


def _config():
    data = DataConfig(source="folder", root="unused", views=SETTINGS["views"])
    return Config(data=data, probe=ProbeConfig(texts=SETTINGS["texts"]), run=RunConfig(reuse_features=False))


@WITH_FLOWER
def test_three_processes_end_with_what_the_simulation_has(root, tmp_path):
    address = f"127.0.0.1:{_free_port()}"
    server = _start(f"--serve={address}", "--clients=3", f"--workdir={tmp_path / 'server'}", "--wait=200", "--masks")
    joined = {name: _client(root, tmp_path, address, name, "--masks") for name in HELD}
    ended = {name: process.communicate(timeout=280) for name, process in {**joined, "server": server}.items()}
    assert [process.returncode for process in (*joined.values(), server)] == [0] * 4, ended

    how = ClientsConfig(clients=3, split=Split("folders", 0), masks=True)
    public = [ImageFile(path) for path in sorted((root / "public").iterdir())]
    federation = splits.read_folders(root / "own", 3, 0, public)
    black_box = blackbox.from_settings(_config().black_box, federation.class_names)
    clients = closed_form.ask_all(black_box, federation, _config(), how)
    exchanged = strategy.exchange(closed_form.in_this_process(clients), how, 3)
    result = json.loads((tmp_path / "server" / "result.json").read_text())

    assert result["clients"] == list(HELD)
    assert result["lost"] == []
    shares = exchanged.trust / exchanged.trust.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result["trust_matrix"], shares, atol=1e-5)
    for one, name in zip(clients, HELD, strict=True):
        left = checkpoints.open_for_prediction(tmp_path / name).tuned
        np.testing.assert_allclose(left.stacked.weights, one.settled[0].head.weights, rtol=1e-3, atol=1e-4)
        sent = json.loads((tmp_path / name / "result.json").read_text())["left"]
        assert sent == [item._asdict() | {"shape": list(item.shape)} for item in one.log if item.direction == "out"]


@WITH_FLOWER
def test_a_client_that_dies_and_one_that_never_comes_stop_nobody(root, tmp_path):
    address = f"127.0.0.1:{_free_port()}"
    server = _start(f"--serve={address}", "--clients=4", f"--workdir={tmp_path / 'server'}", "--wait=45")
    joined = {name: _client(root, tmp_path, address, name) for name in HELD}
    while "asking" not in (line := joined["eve"].stdout.readline()):
        assert line, joined["eve"].stderr.read()
    joined["eve"].kill()
    ended = {name: joined[name].communicate(timeout=200) for name in ("ann", "bob")} | {"server": server.communicate()}
    joined["eve"].communicate()

    assert [joined["ann"].returncode, joined["bob"].returncode, server.returncode] == [0, 0, 0], ended
    assert json.loads((tmp_path / "server" / "result.json").read_text())["lost"] == ["eve"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--serve=a:1", "--join=a:1"], "one command is either the server or a client"),
        (["--join=127.0.0.1:1"], "name them by --public_images"),
        (["--serve=127.0.0.1:1", "--trust=oracle"], "between machines statistics are exchanged"),
    ],
)
def test_what_a_network_cannot_do_is_refused(arguments, said, tmp_path):
    with pytest.raises(UserError, match=said):
        command.main(["craft-jax clients", "--config=demo", f"--workdir={tmp_path}", *arguments])


@pytest.mark.skipif(importlib.util.find_spec("flwr") is not None, reason="flwr is installed")
def test_without_flower_one_line_says_what_to_install(tmp_path):
    with pytest.raises(UserError, match="an exchange over a network needs flwr.*pip install flwr"):
        command.main(["craft-jax clients", "--config=demo", f"--workdir={tmp_path}", "--serve=127.0.0.1:1"])
