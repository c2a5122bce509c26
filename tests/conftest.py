"""Shared by all tests: eight simulated devices, a small set in CoOp's layout, and the bundled black box."""

import atexit
import os
import shutil
import tempfile

from tests import processes

if "PYTEST_XDIST_WORKER" not in os.environ:  # whatever is temporary, of workers and their children too, goes at the end
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="craft_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache_")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # pytest's workers share that of the process that starts them
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="xla_")
if "--xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), processes.xla_flags(8)])

import json
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

if os.environ.get("CRAFT_JAX_SHAPES"):
    from tests import shapes

    shapes.install()

from craft_jax.cli import pay_compilation_once

pay_compilation_once()

import craft_jax
import jax
from craft_jax import data
from craft_jax.config import Config, DataConfig, ProbeConfig, RefinementConfig, RunConfig, SearchConfig
from craft_jax.training import checkpoints
from craft_jax.tuned_model import TunedModel
from tests.miniatures import BUNDLED


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_file():
    """Forgets a file's compiled programs after it: Linux admits a process only so many mapped pieces of memory."""
    yield
    jax.clear_caches()


FOLDERS = {"pizza": "pizza", "grand_piano": "grand_piano", "sunflower": "sunflower"}


@pytest.fixture(scope="session")
def coop_root(tmp_path_factory):
    """Caltech101 as CoOp lays it out, in miniature: 3 classes with 6 train, 2 val and 4 test photographs."""
    root = tmp_path_factory.mktemp("data")
    images = root / "caltech-101" / "101_ObjectCategories"
    split = json.loads((BUNDLED / "split_caltech24_64px.json").read_text())
    small = {}
    for part, count in (("train", 6), ("val", 2), ("test", 4)):
        small[part] = []
        for label, name in enumerate(FOLDERS):
            for path, _, _ in [row for row in split[part] if row[2] == name][:count]:
                (images / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(BUNDLED / "images" / path, images / path)
                small[part].append([path, label, name])
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(small))
    return root


@pytest.fixture(scope="session")
def small_data(coop_root):
    """Settings that draw 4 shots from the small set."""
    return DataConfig(
        root=str(coop_root),
        images="caltech-101/101_ObjectCategories",
        split="caltech-101/split_zhou_Caltech101.json",
        shots=4,
        views=2,
    )


@pytest.fixture(scope="session")
def small_config(small_data):
    """A run by class of 6 steps of 8 prompts on the small set, after the 21 that measure the prompt's scale."""
    return Config(
        query_budget=69,
        data=small_data,
        probe=ProbeConfig(texts=0),
        search=SearchConfig(estimator="antithetic", population_size=8, sigma=1.0),
        refinement=RefinementConfig(hidden=16, batch_size=5),
        run=RunConfig(steps_per_call=2, eval_every=2, checkpoint_every=2, devices=1, reuse_features=False),
    )


@pytest.fixture(scope="session")
def small_set(small_data):
    """The small set with its shots drawn."""
    return data.load(small_data, seed=1)


@pytest.fixture(scope="session")
def small_black_box():
    """The bundled CLIP, set up for the small set's classes."""
    return craft_jax.load_black_box("bundled", ("pizza", "grand piano", "sunflower"))


TOKEN = "a-token-for-the-tests"
_HEAD = ((3, 8), (8, 3))


@pytest.fixture(scope="session")
def tuned(small_black_box):
    """What a run might have left: a prompt a little off, and a head that changes much."""
    prompt = np.asarray(small_black_box.initial_prompt) + np.float32(0.01)
    rng = np.random.default_rng(0)
    dense = {f"Dense_{i}": {"kernel": rng.normal(size=size), "bias": np.zeros(size[1])} for i, size in enumerate(_HEAD)}
    head = jax.tree.map(np.float32, {"params": dense})
    return TunedModel(prompt, head, small_black_box.identity, small_black_box.class_names)


@pytest.fixture(scope="session")
def server(tuned, tmp_path_factory):
    """A server on a free port, which takes small requests and wants a token; stopped as a service manager would."""
    with checkpoints.Checkpoints(tmp_path_factory.mktemp("tuned")) as run:
        run.save(0, {"nothing": np.zeros(1)}, tuned, {}, refined_loss=0.0)
    command = [sys.executable, "-m", "craft_jax.serve", f"--checkpoint={run.folder}", "--port=0", "--max_megabytes=1"]
    command += ["--max_images=40", "--max_texts=50", "--max_megapixels=1"]
    environment = os.environ | {"CRAFT_JAX_SERVE_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        line = child.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), child.stderr.read()
        address = line.split()[-1]
        yield address

        def body():
            yield b"{"
            time.sleep(0.1)  # until the server has begun with it
            child.send_signal(signal.SIGTERM)
            yield b"}"

        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(address, content=body(), headers=headers).json()["error"].startswith("inputs is missing")
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "", "")
