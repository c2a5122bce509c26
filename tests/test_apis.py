"""Models that are asked over HTTP: the client's side, against the server in a process of its own."""

import contextlib
import dataclasses
import io
import os
import re
import string
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

import craft_jax
from craft_jax import blackbox, main, prediction, training
from craft_jax.blackbox import SOFT_PROMPTS, TEXTS
from craft_jax.config import ApiConfig, Config, flat_settings
from craft_jax.errors import UserError
from craft_jax.sweep import command as sweep
from tests.chatting import chatting
from tests.conftest import TOKEN
from tests.faulty import AGAIN, HARMLESS, WRONG, proxy

CLASSES = ("pizza", "grand piano", "sunflower")
FLAT_DEFAULTS = flat_settings(dataclasses.asdict(Config()))
TEXTS_ASKED = [f"a photo of a {name}." for name in (*CLASSES, *string.ascii_lowercase, "1")]
QUICK = ApiConfig(
    image_size=32, image_format="png", logit_scale=20.007230758666992, model="any", timeout=2.0, pause=0.005
)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("CRAFT_JAX_API_KEY", TOKEN)


@pytest.fixture(scope="module", autouse=True)
def _compiled(server, tmp_path_factory):
    """Has the server compile what the tests ask, which may take longer than they wait."""
    patient = dataclasses.replace(QUICK, timeout=60.0, store=str(tmp_path_factory.mktemp("first") / "answers.sqlite"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRAFT_JAX_API_KEY", TOKEN)
        for form in ("labels", "soft"):
            _ask(_connect(server, form, patient), _images())


@pytest.fixture
def api(tmp_path):
    return dataclasses.replace(QUICK, store=str(tmp_path / "answers.sqlite"))


def _connect(address, form, api, **changes):
    return craft_jax.connect_api(address, CLASSES, form=form, api=dataclasses.replace(api, **changes))


def _images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def _ask(black_box, images, texts=TEXTS_ASKED):
    return np.asarray(black_box.predict_texts(texts, black_box.encode_images(images)))


def _centred(logits):
    return np.asarray(logits) - np.mean(logits, axis=-1, keepdims=True)


def _asked(server):
    return httpx.get(f"{server}/counts", headers={"Authorization": f"Bearer {TOKEN}"}).json()["requests"]


@pytest.fixture(scope="module")
def local(small_black_box):
    """What the local black box answers."""
    return _centred(_ask(small_black_box, _images()))


@pytest.mark.parametrize("texts", [0, 12])
@pytest.mark.parametrize("form", ["labels", "compare", "rank", "embeddings", "soft"])
def test_each_form_answers_what_the_local_black_box_answers(form, texts, server, api, local):
    black_box = _connect(server, form, api, texts=texts)
    before = _asked(server)

    np.testing.assert_allclose(_centred(_ask(black_box, _images())), local, atol=2e-5)
    asked = _asked(server) - before
    chunks = {"labels": 1, "compare": 1, "rank": 1}.get(form)
    if chunks:
        assert asked == 4 * (1 if not texts else 3)
    np.testing.assert_allclose(
        _centred(_ask(black_box, _images(), TEXTS_ASKED[2:0:-1])), _centred(local[:, 2:0:-1]), atol=2e-5
    )
    again = _ask(_connect(server, form, api, texts=texts), _images())
    np.testing.assert_allclose(_centred(again), local, atol=2e-5)
    assert _asked(server) - before == asked
    assert black_box._desk.owner.sent.requests == asked


def test_soft_prompts_are_answered_as_locally(server, api, small_black_box):
    remote = _connect(server, "soft", api)
    assert remote.takes == {SOFT_PROMPTS, TEXTS}
    assert remote.image_size == small_black_box.image_size
    np.testing.assert_array_equal(remote.initial_prompt, small_black_box.initial_prompt)
    start = np.asarray(small_black_box.initial_prompt)
    prompts = start + np.random.default_rng(1).normal(size=(2, 3, *start.shape)).astype(np.float32) * 0.01
    expected = small_black_box.predict(prompts, small_black_box.encode_images(_images()))
    np.testing.assert_allclose(remote.predict(prompts, remote.encode_images(_images())), expected, atol=2e-5)


@pytest.mark.parametrize("faults", [AGAIN, HARMLESS])
def test_what_breaks_and_comes_again_changes_nothing(faults, server, api, local):
    with proxy(server, faults, share=0.3) as between:
        black_box = _connect(between.address, "labels", api, texts=8, attempts=20, in_flight=8)
        np.testing.assert_allclose(_centred(_ask(black_box, _images())), local, atol=2e-5)
    assert between.arrived == black_box._desk.owner.sent.requests
    assert between.repeated == 0


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_answer_is_one_line_and_what_was_answered_stays(fault, server, api, local):
    with proxy(server, [fault], share=1.0) as between:
        black_box = _connect(between.address, "labels", api, in_flight=1)
        with pytest.raises(UserError, match=r"request 1 to http://127.0.0.1:\d+ got a wrong answer: it ") as caught:
            _ask(black_box, _images())
        assert "it begins '[{" in str(caught.value)
        assert "\n" not in str(caught.value)
        between.share = 0.0
        _ask(black_box, _images(2))
        np.testing.assert_allclose(_centred(_ask(black_box, _images())), local, atol=2e-5)
    assert between.arrived == 5
    assert between.repeated == 0


def test_an_address_that_is_gone_for_good_is_one_line(server, api):
    with proxy(server) as between:
        black_box = _connect(between.address, "labels", api, attempts=3)
        between.gone = True
        with pytest.raises(UserError, match=r"does not answer: .* \(3 attempts in 0 s\); the same command goes on"):
            _ask(black_box, _images())


def test_no_request_passes_a_ceiling_across_processes_and_retries(server, api, local):
    with proxy(server, AGAIN, share=0.3) as between:
        for ceiling in (3, 5):
            black_box = _connect(between.address, "labels", api, max_requests=ceiling, attempts=20)
            with pytest.raises(UserError, match=f"api.max_requests={ceiling} covers no further request"):
                _ask(black_box, _images(8))
            assert between.arrived == ceiling
        with pytest.raises(UserError, match=r"api.max_money=0.25 covers no further .*\(0.25 at the prices set\)"):
            _ask(_connect(between.address, "labels", api, max_money=0.25, price_request=0.05), _images(8))
    with pytest.raises(UserError, match="api.max_tokens=40 covers no further request"):
        _ask(_connect(server, "embeddings", api, max_tokens=40), _images())


def test_the_key_is_shown_nowhere(server, api, monkeypatch, tmp_path):
    monkeypatch.setenv("CRAFT_JAX_API_KEY", "wrong-secret")
    black_box = _connect(server, "labels", api)
    with pytest.raises(
        UserError, match="refused with status 401.*look at the key in the .* CRAFT_JAX_API_KEY"
    ) as caught:
        _ask(black_box, _images())
    shown = [
        str(caught.value),
        repr(caught.value),
        repr(black_box),
        str(black_box.identity),
        repr(black_box._desk.owner),
    ]
    shown += [
        repr(black_box._desk.owner._client),
        *(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir()),
    ]
    assert not any("wrong-secret" in text for text in shown)
    monkeypatch.delenv("CRAFT_JAX_API_KEY")
    with pytest.raises(UserError, match="status 401.*put a key into the environment variable"):
        _ask(_connect(server, "labels", api), _images())


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ({"api": "labels"}, "black_box.api=labels needs an address"),
        ({"model": "https://example.com"}, "black_box.model is an address; set black_box.api to its form: labels"),
        ({"model": "https://user:pw@example.com", "api": "labels"}, "black_box.model holds a key"),
        ({"model": "https://example.com/?api_key=x", "api": "labels"}, "black_box.model holds a key"),
        ({"model": "https://example.com", "api": "chat"}, "api.model"),
        ({"model": "https://example.com", "api": "telepathy"}, "must be one of"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(owner, message):
    with pytest.raises(UserError, match=message) as caught:
        Config(black_box=craft_jax.BlackBoxConfig(**owner))
    assert "pw@" not in str(caught.value)


@pytest.fixture(scope="module")
def config(small_data):
    """The method on 40 texts alone, on the small set, each image in one view."""
    data = dataclasses.replace(small_data, views=1)
    run = craft_jax.RunConfig(devices=1, eval_every=0, reuse_features=False)
    return Config(data=data, learn="probes", probe=craft_jax.ProbeConfig(texts=40), run=run)


@pytest.fixture(scope="module")
def dataset(config):
    return craft_jax.load_dataset(config.data, seed=1)


@pytest.fixture(scope="module")
def by_local(config, dataset, small_black_box, tmp_path_factory):
    """The same run on the local black box: its result, and its probabilities of the test images."""
    tuned, result = _train(small_black_box, dataset, config, tmp_path_factory.mktemp("local"))
    return result, craft_jax.predict(tuned, small_black_box, dataset.test)


def _train(black_box, dataset, config, workdir):
    return craft_jax.train(black_box, dataset, config, workdir, stream=io.StringIO())


@pytest.mark.slow
@pytest.mark.parametrize(("form", "requests"), [("labels", 30), ("embeddings", 4), ("soft", 8), ("chat", 102)])
def test_a_run_by_each_form_equals_the_local_one(
    form, requests, request, server, api, config, dataset, by_local, small_black_box, tmp_path
):
    address = request.getfixturevalue("chat") if form == "chat" else server
    api = dataclasses.replace(api, price_request=0.01, timeout=30.0)
    run = dataclasses.replace(config, black_box=craft_jax.BlackBoxConfig(model=address, api=form), api=api)
    black_box = blackbox.from_settings(run.black_box, dataset.class_names, api)
    foreseen = training.estimate(black_box, dataset, run)
    assert black_box._desk.owner.sent.requests == 0
    tuned, result = _train(black_box, dataset, run, tmp_path / "once")
    found = craft_jax.predict(tuned, black_box, dataset.test)

    expected, probabilities = by_local
    assert result.accuracy == expected.accuracy
    assert result.zero_shot == expected.zero_shot
    np.testing.assert_allclose(found, probabilities, atol=2e-3)
    assert result.ledger.requests == black_box._desk.owner.sent.requests == requests
    assert result.ledger.money == pytest.approx(0.01 * requests)
    assert foreseen[:2] == ["30 images (12 to learn from, 6 to choose by, 12 to test on)", "40 texts about each"]
    if form in ("labels", "chat"):
        assert foreseen[2].startswith(f"at most {requests} requests, about ")
        assert foreseen[2].endswith(f"; {0.01 * requests:.2f} at the prices set")

    again = blackbox.from_identity(tuned.black_box, dataset.class_names, asking=api)
    assert "of a sample of the images 100% were answered before, and cost nothing now" in training.estimate(
        again, dataset, run
    )
    second = _train(again, dataset, run, tmp_path / "twice")
    np.testing.assert_array_equal(craft_jax.predict(second.tuned, again, dataset.test), found)
    assert again._desk.owner.sent.requests == 0


@pytest.fixture(scope="module")
def chat():
    with chatting() as address:
        yield address


def test_the_commands_tune_dry_and_wet_and_predict(server, config, dataset, coop_root, tmp_path, capsys):
    settings = [
        "--config=demo:api", f"--config.data.root={coop_root}", "--config.data.shots=2", "--config.probe.texts=40",
        f"--config.data.images={config.data.images}", f"--config.data.split={config.data.split}",
        f"--config.black_box.model={server}", "--config.black_box.api=labels", "--config.api.image_size=32",
        f"--config.api.store={tmp_path / 'answers.sqlite'}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    main.main(["tune", *settings, "--dry_run"])
    dry = capsys.readouterr().out
    assert (
        "24 images (6 to learn from, 6 to choose by, 12 to test on)\n40 texts about each\nat most 24 requests, about"
        in dry
    )
    assert "an image labelled later: 1 request" in dry
    assert "grand piano       2       2       4\n" in dry
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run-photographs.html").read_text().count("data:image/jpeg") == 3 * 6
    main.main(["tune", *settings])
    assert "| deployed:" in capsys.readouterr().out
    assert "- requests sent: 24 with 960 texts" in (tmp_path / "run" / "report.md").read_text()

    image = dataset.test[0].image.path
    before = _asked(server)
    prediction.main(["predict", f"--checkpoint={tmp_path / 'run'}", str(image)])
    assert str(image) in capsys.readouterr().out
    assert _asked(server) == before  # it was one of the run's


@pytest.mark.slow
@pytest.mark.parametrize("form", ["labels", "embeddings", "soft", "chat"])
def test_a_sweep_by_each_form_has_the_local_ones_table(form, request, server, config, coop_root, tmp_path):
    address = request.getfixturevalue("chat") if form == "chat" else server
    settings = [
        "sweep", "--config=demo:api", "--shots=2", "--seeds=1,2", f"--config.data.root={coop_root}",
        f"--config.data.images={config.data.images}", f"--config.data.split={config.data.split}",
        "--config.probe.texts=40",
    ]  # fmt: skip
    asked = [
        f"--config.black_box.model={address}", f"--config.black_box.api={form}", "--config.api.model=any",
        "--config.api.image_size=32", "--config.api.image_format=png",
        f"--config.api.logit_scale={QUICK.logit_scale}", f"--config.api.store={tmp_path / 'answers.sqlite'}",
    ]  # fmt: skip
    sweep.main([*settings, f"--workdir={tmp_path / 'local'}"])
    sweep.main([*settings, *asked, f"--workdir={tmp_path / 'asked'}"])

    local, remote = ((tmp_path / name / "table.csv").read_text() for name in ("local", "asked"))
    assert remote == local


def _by_labels(config, address, api, timeout=2.0):
    """The settings of a run by labels, three requests an image."""
    api = dataclasses.replace(api, texts=20, attempts=12, in_flight=8, timeout=timeout)
    return dataclasses.replace(config, black_box=craft_jax.BlackBoxConfig(model=address, api="labels"), api=api)


def _equals(outcome, black_box, dataset, by_local):
    expected, probabilities = by_local
    assert outcome.result.accuracy == expected.accuracy
    found = craft_jax.predict(outcome.tuned, black_box, dataset.test)
    np.testing.assert_allclose(found, probabilities, atol=2e-3)


@pytest.mark.slow
def test_a_run_goes_through_what_breaks_to_the_same_result(server, api, config, dataset, by_local, tmp_path):
    with proxy(server, (*AGAIN, *HARMLESS), share=0.25) as between:
        run = _by_labels(config, between.address, api)
        black_box = blackbox.from_settings(run.black_box, dataset.class_names, run.api)
        outcome = _train(black_box, dataset, run, tmp_path / "run")

        _equals(outcome, black_box, dataset, by_local)
        assert between.arrived == outcome.result.ledger.requests
        assert between.arrived > 30 * 3
        assert between.repeated == 0


@pytest.mark.slow
def test_a_run_stops_at_each_wrong_answer_and_the_same_call_goes_on(server, api, config, dataset, by_local, tmp_path):
    with proxy(server, (*AGAIN, *WRONG), share=0.1) as between:
        run = _by_labels(config, between.address, api)
        lines = []
        for _ in range(60):
            black_box = blackbox.from_settings(run.black_box, dataset.class_names, run.api)
            try:
                outcome = _train(black_box, dataset, run, tmp_path / "run")
                break
            except UserError as error:
                lines.append(str(error))
        _equals(outcome, black_box, dataset, by_local)
        assert lines
        assert all(re.match(r"request \d+ to http://\S+ got a wrong answer: [^\n]*$", line) for line in lines)
        assert between.repeated == 0


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_pays_again_for_what_was_in_flight_alone(
    server, api, config, dataset, by_local, tmp_path
):
    with proxy(server) as between:
        run = _by_labels(config, between.address, api, timeout=30.0)
        flat = flat_settings(dataclasses.asdict(run))
        given = [f"--config.{name}={value}" for name, value in flat.items() if value != FLAT_DEFAULTS[name]]
        command = [sys.executable, "-m", "craft_jax", "tune", "--config=demo", f"--workdir={tmp_path / 'run'}", *given]
        for until in (20, 60, 110):
            with subprocess.Popen([*command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
                while between.arrived < until and child.poll() is None:
                    time.sleep(0.002)
                child.kill()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outcome = craft_jax.load_run(tmp_path / "run")
        black_box = blackbox.from_identity(outcome.tuned.black_box, dataset.class_names, asking=run.api)
        _equals(outcome, black_box, dataset, by_local)
        assert between.arrived <= 30 * 3 + 12 + 3 * run.api.in_flight


@contextlib.contextmanager
def _serving(port=0):
    """A server of the bundled model; yields its address, kills it."""
    command = [sys.executable, "-m", "craft_jax.serve", "--model=bundled", f"--port={port}"]
    environment = os.environ | {"CRAFT_JAX_SERVE_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child.stdout.readline().split()[-1]
        finally:
            child.kill()


@pytest.mark.slow
def test_a_search_outlives_its_server(api, config, dataset, small_black_box, tmp_path):
    run = dataclasses.replace(
        config,
        learn="both",
        query_budget=39,
        search=craft_jax.SearchConfig(population_size=6),
        prompt=craft_jax.PromptConfig(std=0.01),
        api=dataclasses.replace(api, attempts=60, pause=0.2, timeout=60.0),
    )
    local = _train(small_black_box, dataset, run, tmp_path / "local")
    with contextlib.ExitStack() as servers, proxy("") as between:
        between.target = servers.enter_context(_serving())
        black_box = craft_jax.connect_api(between.address, dataset.class_names, form="soft", api=run.api)

        def restart():
            while between.arrived < 12:
                time.sleep(0.01)
            servers.pop_all().close()
            between.target = servers.enter_context(_serving())

        with ThreadPoolExecutor(1) as pool:
            restarted = pool.submit(restart)
            outcome = _train(black_box, dataset, run, tmp_path / "remote")
            restarted.result()
        np.testing.assert_allclose(outcome.tuned.prompt, local.tuned.prompt, atol=1e-2)  # of numbers of size 0.1
        assert outcome.result.refined == pytest.approx(local.result.refined)
        assert between.arrived > 12
