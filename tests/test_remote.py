"""A black box that is asked from the host: an API in a process of its own."""

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import craft_jax
from craft_jax import prediction, training
from craft_jax.blackbox import GradientRefused
from craft_jax.blackbox.remote import logits_of
from craft_jax.config import DataConfig, PromptConfig, RunConfig, SearchConfig
from craft_jax.errors import UserError
from tests import processes
from tests.test_training import _with_run

REPOSITORY = Path(__file__).parent.parent
CLASS_NAMES = ("pizza", "grand piano", "sunflower")
PAGE = (REPOSITORY / "docs" / "remote.md").read_text()


@pytest.fixture(scope="module")
def page():
    """What the page on remote models defines."""
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    defined = {}
    exec(snippet, defined)
    return defined


@contextlib.contextmanager
def _served(class_names):
    """The address of an API for these classes that has been asked nothing."""
    command = [sys.executable, "-m", "tests.api", *class_names]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@pytest.fixture
def api():
    """The address of an API for the small set's classes."""
    with _served(CLASS_NAMES) as address:
        yield address


def _asked(address):
    with urllib.request.urlopen(f"{address}/asked") as answer:
        return json.load(answer)


def _connect(owner, local, **changes):
    settings = {"image_size": local.image_size, "name": "tests' API", "probabilities": True} | changes
    return craft_jax.connect_black_box(owner, local.class_names, local.initial_prompt, **settings)


class Recorded:
    """An owner that answers zeros and notes what it is asked; it fails at the call of `predict` named."""

    def __init__(self, fails_at=None, shape=None):
        self.images, self.prompts, self.calls, self.fails_at, self.shape = [], [], 0, fails_at, shape

    def encode_images(self, images):
        self.images.append(len(images))
        return list(images)

    def predict(self, prompts, images):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ConnectionError("the line is dead")
        assert images[0].shape == (32, 32, 3)
        self.prompts.append(len(prompts))
        return np.full(self.shape or (len(prompts), len(images), 3), 1 / 3)


def test_a_run_by_an_api_equals_a_local_one_and_is_billed_what_the_ledger_says(
    api, page, small_black_box, small_set, small_config, tmp_path
):
    config = dataclasses.replace(small_config, prompt=PromptConfig(context="unified"))
    remote = _connect(page["Owner"](api), small_black_box)
    local = training.train(small_black_box, small_set, config, tmp_path / "local")
    outcome = training.train(remote, small_set, config, tmp_path / "remote")

    # Softmax hides a constant an image, which no loss sees.
    np.testing.assert_allclose(outcome.tuned.prompt, local.tuned.prompt, atol=1e-4)
    assert outcome.result.accuracy == pytest.approx(local.result.accuracy)
    assert outcome.result.ledger == local.result.ledger
    asked, present, tested, chosen = _asked(api), 6, 1 + 3 + 1, 2
    assert asked["images"] == outcome.result.ledger.images_encoded
    assert asked["prompts"] == outcome.result.ledger.prompts + present + tested + chosen


@pytest.mark.slow
def test_a_prompt_a_class_learns_from_probabilities(page, tmp_path):
    dataset = craft_jax.load_dataset(DataConfig(shots=8), seed=1)
    with _served(dataset.class_names) as address:
        local = craft_jax.load_black_box("bundled", dataset.class_names)
        black_box, outcome = page["tune"](address, local.initial_prompt, local.image_size, tmp_path)
        probabilities = craft_jax.predict(outcome.tuned, black_box, [item.image for item in dataset.test[:3]])

    result = outcome.result
    assert result.prompt_only > result.zero_shot + 3
    assert result.refined > result.zero_shot + 6
    assert outcome.tuned.prompt.shape[0] == 24
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, atol=1e-5)
    with pytest.raises(UserError, match="the checkpoint is for the API's model, version 1, a remote black box"):
        prediction.main(["predict", f"--checkpoint={tmp_path}", "x.jpg"])


def test_padding_is_not_sent(small_black_box, small_set, small_config, tmp_path):
    owner = Recorded()
    config = dataclasses.replace(
        _with_run(small_config, chunk_pairs=3, eval_every=0), prompt=PromptConfig(std=0.01), query_budget=48
    )
    result = training.train(_connect(owner, small_black_box), small_set, config, tmp_path).result

    assert sum(owner.images) == result.ledger.images_encoded == 2 * 12 + 12 + 6
    assert owner.prompts.count(6) == owner.prompts.count(2) == 6  # 4 pairs in chunks of 3


def test_what_an_owner_raises_ends_the_run_as_it_is_and_the_same_call_resumes(
    small_black_box, small_set, small_config, tmp_path
):
    owner = Recorded(fails_at=12)
    remote = _connect(owner, small_black_box)
    config = dataclasses.replace(small_config, prompt=PromptConfig(std=0.01), query_budget=48)
    with pytest.raises(ConnectionError, match="the line is dead"):
        training.train(remote, small_set, config, tmp_path)
    stream = io.StringIO()

    assert training.train(remote, small_set, config, tmp_path, stream=stream).result.queries == 48
    assert "resuming" in stream.getvalue()


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_an_owner_raises_before_the_first_step_is_seen_as_it_is(
    fails_at, small_black_box, small_set, small_config, tmp_path
):
    with pytest.raises(ConnectionError, match="the line is dead"):
        training.train(_connect(Recorded(fails_at), small_black_box), small_set, small_config, tmp_path / "x")

    assert not (tmp_path / "x").exists()


def test_an_image_that_an_owner_cannot_take_is_seen_as_it_is(small_black_box, small_set, small_config, tmp_path):
    class Full(Recorded):
        def encode_images(self, images):
            self.images.append(len(images))
            raise ConnectionError("no room for images")

    owner = Full()
    config = dataclasses.replace(small_config, data=dataclasses.replace(small_config.data, views=8))
    with pytest.raises(ConnectionError, match="no room for images"):
        training.train(_connect(owner, small_black_box), small_set, config, tmp_path / "x")

    assert owner.images == [32]  # of 96


def test_answers_of_another_shape_are_one_clear_error(small_black_box, small_set, small_config, tmp_path):
    owner = Recorded(shape=(1, 5, 3))
    with pytest.raises(UserError, match=r"predict answered an array of shape \(1, 5, 3\), not \(.*\), \[K, N, C\]"):
        training.train(_connect(owner, small_black_box), small_set, small_config, tmp_path / "x")

    owner.encode_images = lambda images: [0]
    with pytest.raises(UserError, match="encode_images answered 1 handles for 24 images"):
        training.train(_connect(owner, small_black_box), small_set, small_config, tmp_path / "x")


@pytest.mark.parametrize(
    ("answer", "message"),
    [(np.nan, "predict answered numbers that are not finite"), (-1.0, "predict answered negative probabilities")],
)
def test_answers_that_are_no_probabilities_are_one_clear_error(
    answer, message, small_black_box, small_set, small_config, tmp_path
):
    class Wrong(Recorded):
        def predict(self, prompts, images):
            return np.full((len(prompts), len(images), 3), answer)

    with pytest.raises(UserError, match=message):
        training.train(_connect(Wrong(), small_black_box), small_set, small_config, tmp_path / "x")


def test_percentages_are_refused_with_the_remedy(small_black_box, small_set, small_config, tmp_path):
    class Percent(Recorded):
        def predict(self, prompts, images):
            return np.full((len(prompts), len(images), 3), 100 / 3)

    with pytest.raises(UserError, match="predict answered percentages, which sum to 100; divide them by 100"):
        training.train(_connect(Percent(), small_black_box), small_set, small_config, tmp_path / "x")


def test_answers_for_the_likeliest_classes_alone_are_told_once(small_black_box, capfd):
    class Top(Recorded):
        def predict(self, prompts, images):
            return np.broadcast_to(np.float32([1, 0, 0]), (len(prompts), len(images), 3))

    remote = _connect(Top(), small_black_box)
    for _ in range(2):
        remote.predict(
            np.zeros((1, *remote.initial_prompt.shape), np.float32),
            remote.encode_images(np.zeros((1, 32, 32, 3), np.uint8)),
        )
    said = capfd.readouterr().err

    assert said.count("note: predict answers probabilities of which 67% of them are exactly 0") == 1


def test_a_checkpoint_is_for_one_kind_of_answers_and_size_of_images(small_black_box):
    made = [
        _connect(Recorded(), small_black_box, **changes).identity["fingerprint"]
        for changes in ({}, {}, {"probabilities": False}, {"image_size": 64}, {"name": "another"})
    ]

    assert made[0] == made[1]
    assert len(set(made)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": RunConfig(devices=2)}, "a remote black box is asked from one device"),
        (
            {"search": SearchConfig(estimator="white-box", population_size=8)},
            "search.estimator=white-box takes a gradient, which a remote black box does not give",
        ),
    ],
)
def test_what_a_remote_black_box_cannot_do_is_said_before_anything_is_sent(
    changes, message, small_black_box, small_set, small_config, tmp_path
):
    owner = Recorded()
    with pytest.raises(UserError, match=message):
        training.train(
            _connect(owner, small_black_box), small_set, dataclasses.replace(small_config, **changes), tmp_path / "x"
        )

    assert not owner.images


def test_a_gradient_through_a_remote_black_box_is_refused(small_black_box):
    remote = _connect(Recorded(), small_black_box)
    handle = remote.encode_images(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(GradientRefused):
        jax.grad(lambda prompt: remote.predict(prompt[None], handle).sum())(jnp.asarray(remote.initial_prompt))


def test_a_first_prompt_of_another_shape_is_refused(small_black_box):
    with pytest.raises(UserError, match=r"initial_prompt has shape \(4,\), not \[n_ctx, d\]"):
        craft_jax.connect_black_box(Recorded(), CLASS_NAMES, np.zeros(4), image_size=32, name="x")


def test_probabilities_tell_logits_but_for_their_mean():
    logits = np.array([[1.0, -2.0, 4.0], [0.0, 0.0, 0.0]])
    probabilities = np.asarray(jax.nn.softmax(logits))

    np.testing.assert_allclose(logits_of(probabilities), logits - logits.mean(axis=-1, keepdims=True), atol=1e-5)
    assert np.isfinite(logits_of(np.array([1.0, 0.0]))).all()


def test_one_core_needs_a_second_thread(small_black_box, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.delenv("NPROC", raising=False)
    with pytest.raises(UserError, match="this machine has one core; start Python with NPROC=2"):
        _connect(Recorded(), small_black_box)

    monkeypatch.setenv("NPROC", "2")
    _connect(Recorded(), small_black_box)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds a process to one core")
def test_queries_of_any_size_pass_on_one_core():
    script = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
from craft_jax import blackbox

class Owner:
    def encode_images(self, images):
        return list(images)
    def predict(self, prompts, images):
        return np.zeros((len(prompts), len(images), 1000))

remote = blackbox.connect(Owner(), ["x"] * 1000, np.ones((4, 512)), image_size=8, name="x")
handle = remote.encode_images(np.zeros((16, 8, 8, 3), np.uint8))
prompts = np.random.default_rng(0).random((1, 10, 1000, 4, 512), np.float32)
print(np.asarray(jax.pmap(lambda p: remote.predict(p + 1, handle), devices=jax.devices()[:1])(prompts)).shape)
"""
    environment = processes.environment(NPROC="2")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )

    assert done.stdout.strip() == "(1, 10, 16, 1000)", done.stderr
