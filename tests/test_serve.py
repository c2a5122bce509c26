"""The server, in a process of its own on loopback: what it answers is what the local black box answers."""

import asyncio
import base64
import io
import json
import math
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import jax
import numpy as np
import pytest
from PIL import Image

from craft_jax import blackbox, data, evaluation
from craft_jax.blackbox import Metered
from craft_jax.data import pixels
from craft_jax.serve import app, bodies
from craft_jax.serve.limits import Counts, Limits, Refused
from craft_jax.serve.model import Memory
from craft_jax.serve.worker import Worker
from tests.conftest import BUNDLED, TOKEN

CLASSES = ("pizza", "grand piano", "sunflower")
# Of 9 tokens each, and four, so that both sides share compiled programs.
TEXTS = ["a photo of a pizza.", "a photo of an old piano", "a photo of a sunflower.", "a photo of a dragon."]


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def images():
    """The files of four, a number that the server compiles for as it is, so that both sides share compiled programs."""
    return sorted((BUNDLED / "images").rglob("*.jpg"))[:16:4]


@pytest.fixture(scope="module")
def squares(images, small_black_box):
    size = small_black_box.image_size
    return np.stack([pixels.centre_crop(data.ImageFile(path).open(), size) for path in images])


@pytest.fixture(scope="module")
def logits(small_black_box, squares):
    """The local black box's, of every photograph and text."""
    return np.asarray(small_black_box.predict_texts(TEXTS, small_black_box.encode_images(squares)))


def _base64(path):
    return base64.b64encode(path.read_bytes()).decode()


def _npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _array(answer):
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def _zero_shot(client, path, texts=TEXTS, to="/models/any/name", **changes):
    parameters = {"candidate_labels": texts, "hypothesis_template": "{}"}
    return client.post(to, json={"inputs": _base64(path), "parameters": parameters} | changes)


def _scores(answer):
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [row["score"] for row in found] == sorted([row["score"] for row in found], reverse=True)
    return [{row["label"]: row["score"] for row in found}[text] for text in TEXTS]


def test_soft_prompts_are_answered_as_the_local_black_box_does(client, small_black_box, squares):
    about = client.get("/v1/about", params={"template": "a photo of a {}."}).json()
    initial = np.array(about["initial_prompt"], np.float32)
    rng = np.random.default_rng(0)
    one = initial + rng.normal(0, 0.02, (1, *initial.shape)).astype(np.float32)
    each = initial + rng.normal(0, 0.02, (2, 3, *initial.shape)).astype(np.float32)
    ids = client.post("/v1/images", content=_npz(images=squares)).json()["ids"]
    handle = small_black_box.encode_images(squares)

    np.testing.assert_array_equal(initial, small_black_box.initial_prompt)
    assert about["fingerprint"] == small_black_box.identity["fingerprint"]
    assert (about["image_size"], about["takes"]) == (squares.shape[1], ["soft prompts", "texts"])
    for prompts, images in ((one, 1), (each, 4)):
        content = _npz(prompts=prompts, ids=ids[:images], classes=CLASSES, template="a photo of a {}.")
        answer = _array(client.post("/v1/predict", content=content))
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, small_black_box.predict(prompts, handle[:images]), atol=2e-5)


def test_scores_are_the_local_softmax(client, images, logits):
    expected = np.asarray(jax.nn.softmax(logits))

    for path, row in zip(images, expected, strict=True):
        np.testing.assert_allclose(_scores(_zero_shot(client, path)), row, atol=5e-6)
    first = {"inputs": {"image": _base64(images[0])}}
    np.testing.assert_allclose(_scores(_zero_shot(client, images[0], to="/", **first)), expected[0], atol=5e-6)


def test_a_template_is_filled_with_each_label(client, images, logits):
    names = ("pizza", "sunflower", "dragon")
    parameters = {"candidate_labels": names, "hypothesis_template": "a photo of a {}."}
    found = _zero_shot(client, images[0], parameters=parameters).json()

    scores = {row["label"]: row["score"] for row in found}
    expected = jax.nn.softmax(logits[0, [0, 2, 3]])
    np.testing.assert_allclose([scores[name] for name in names], expected, atol=5e-6)


def test_similarities_are_cosines_in_order(client, images, logits):
    subject = {"type": "base64", "value": _base64(images[0])}
    asked = {"subject": subject, "subject_type": "image", "prompt": TEXTS, "prompt_type": "text"}
    scale = client.get("/v1/about").json()["logit_scale"]

    similarity = client.post("/clip/compare", json=asked).json()["similarity"]
    np.testing.assert_allclose(np.array(similarity) * scale, logits[0], atol=2e-5)
    named = client.post("/clip/compare", json=asked | {"prompt": dict(zip("abcd", TEXTS, strict=True))}).json()
    assert named["similarity"] == dict(zip("abcd", similarity, strict=True))


def test_ranked_matches_have_score_and_cosine(client, images, logits):
    matches = [{"text": text} for text in TEXTS]
    documents = [{"uri": f"data:image/jpeg;base64,{_base64(path)}", "matches": matches} for path in images[:2]]
    answer = client.post("/post", json={"data": documents, "execEndpoint": "/rank"}).json()

    for document, row in zip(answer["data"], logits, strict=False):
        assert [match["text"] for match in document["matches"]] == [TEXTS[i] for i in np.argsort(-row)]
        scores = [match["scores"]["clip_score"]["value"] for match in document["matches"]]
        np.testing.assert_allclose(scores, np.sort(jax.nn.softmax(row))[::-1], atol=5e-6)


def test_texts_about_images_sent_before(client, squares, logits):
    ids = client.post("/v1/images", content=_npz(images=squares)).json()["ids"]
    answer = _array(client.post("/v1/texts", json={"texts": TEXTS, "ids": ids[::-1]}))

    np.testing.assert_allclose(answer, logits[::-1], atol=2e-5)


def _embedded(answer):
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


def test_embeddings_are_what_logits_are_made_of(client, images, logits):
    uris = [f"data:image/jpeg;base64,{_base64(path)}" for path in images]
    images = np.array(_embedded(client.post("/v1/embeddings", json={"input": uris, "modality": "image"})))
    answer = client.post("/v1/embeddings", json={"model": "any", "input": TEXTS, "encoding_format": "base64"})
    texts = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in _embedded(answer)])
    mixed = _embedded(client.post("/embeddings", json={"input": [{"text": TEXTS[0]}, {"image": uris[1]}, uris[0]]}))
    alone = client.post("/v1/embeddings", json={"input": TEXTS[0]}).json()

    scale = client.get("/v1/about").json()["logit_scale"]
    np.testing.assert_allclose(scale * images @ texts.T, logits, atol=2e-5)
    np.testing.assert_allclose(mixed, [texts[0], images[1], images[0]], atol=5e-6)
    assert alone["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    for wrong in ({}, {"input": []}, {"input": [[1, 2]]}, {"input": "a", "modality": "audio"}):
        assert client.post("/v1/embeddings", json=wrong).status_code == 400


def test_a_tuned_model_labels_images(client, images, squares, tuned, small_black_box):
    first, likeliest = images[0], {"top": "1"}
    content = first.read_bytes()
    handle = small_black_box.encode_images(squares)[:1]
    expected = np.asarray(jax.nn.softmax(evaluation.logits(Metered(small_black_box, None), tuned, handle, 1)[1]))[0]
    answer = client.post("/label", content=content).json()
    found = {best["label"]: best["probability"] for best in answer["top"]}

    assert answer["label"] == CLASSES[expected.argmax()]
    np.testing.assert_allclose([found[name] for name in CLASSES], expected, atol=1e-5)
    for same in (
        client.post("/label", params=likeliest, files={"image": content}),
        client.post("/label", params=likeliest, json={"image": _base64(first)}),
    ):
        assert same.json()["top"] == answer["top"][:1]
    for wrong in (b"", b"no image", b"\xff\xd8\xff" + content[3:200]):
        assert client.post("/label", content=wrong).status_code == 400
    assert client.post("/label", params={"top": "0"}, content=content).status_code == 400
    assert client.post("/label", files={"a": content, "b": content}).status_code == 400


def test_names_of_images_that_were_not_sent_are_told(client, squares):
    (known,) = client.post("/v1/images", content=_npz(images=squares[:1])).json()["ids"]
    content = _npz(prompts=np.zeros((1, 4, 192), np.float32), ids=[known, "other"], classes=["cat"], template="a {}")
    for answer in (
        client.post("/v1/texts", json={"texts": TEXTS, "ids": [known, "other"]}),
        client.post("/v1/predict", content=content),
    ):
        assert answer.status_code == 404
        assert answer.json()["ids"] == ["other"]


def test_many_threads_get_what_one_gets(client, images, logits):
    expected = np.asarray(jax.nn.softmax(logits))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: _scores(_zero_shot(client, images[i % 4])), range(64)))

    np.testing.assert_allclose(answers, expected[np.arange(64) % 4], atol=5e-6)


def test_what_arrives_is_counted(client, squares, images):
    def counts():
        return client.get("/counts").json()

    before = counts()
    _zero_shot(client, images[0])
    client.post("/", json={})
    client.post("/v1/images", content=_npz(images=np.concatenate([squares, squares])))
    gained = {name: count - before[name] for name, count in counts().items()}

    assert gained["requests"] == 3
    assert gained["answered"] == 2
    assert gained["images"] == 1 + 2 * len(squares)
    assert gained["texts"] == len(TEXTS)
    assert gained["encoded_images"] <= len(squares)


@pytest.mark.parametrize("token", [None, "Bearer another", "Basic " + TOKEN])
def test_without_the_token_nothing_but_health_is_told(server, token):
    headers = {"Authorization": token} if token else {}

    assert httpx.get(f"{server}/health", headers=headers).json() == {"status": "ok", "model": "bundled"}
    for path in ("/counts", "/v1/about"):
        answer = httpx.get(f"{server}{path}", headers=headers)
        assert answer.status_code == 401
        assert TOKEN not in answer.text
    assert httpx.post(f"{server}/", headers=headers, json={}).status_code == 401


def _png(width, height):
    content = io.BytesIO()
    Image.new("1", (width, height)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "inputs is missing"),
        ({"inputs": "x"}, 400, "parameters is missing"),
        ({"inputs": "not base64!"}, 400, "not base64"),
        ({"inputs": base64.b64encode(b"no image").decode()}, 400, "not an image"),
        ({"inputs": "https://example.com/cat.jpg"}, 400, "fetches nothing"),
        ({"inputs": 3}, 400, "must be an image"),
        ({"inputs": _png(1100, 1100)}, 413, "1210000 pixels"),
        ({"parameters": {"candidate_labels": []}}, 400, "no texts"),
        ({"parameters": {"candidate_labels": "cat, dog"}}, 400, "list of texts"),
        ({"parameters": {"candidate_labels": ["cat"] * 51}}, 413, "51 texts"),
        ({"parameters": {"candidate_labels": ["cat"], "hypothesis_template": "cat"}}, 400, "{}"),
        ({"parameters": {"candidate_labels": ["\ud800"]}}, 400, "half a character"),
        ({"parameters": {"candidate_labels": ["word " * 100]}}, 400, "tokens"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(client, images, body, status, says):
    if body.get("inputs", "x") != "x" or "parameters" in body:
        good = {"inputs": _base64(images[0]), "parameters": {"candidate_labels": ["cat"]}}
        body = good | body
    answer = client.post("/", content=json.dumps(body).encode())

    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_bodies_of_another_kind_are_refused(client, squares):
    small = np.zeros((1, 8, 8, 3), np.uint8)
    pickled = io.BytesIO()
    np.savez(pickled, images=np.array([{}], object))
    for path, content, status, says in (
        ("/", b"{", 400, "not JSON"),
        ("/", b"[" * 100_000, 400, "not JSON"),
        ("/", b"[]", 400, "not a JSON object"),
        ("/v1/images", b"PK", 400, "not an npz"),
        ("/v1/images", _npz(other=small), 400, "['images'] are wanted"),
        ("/v1/images", _npz(images=small), 400, "uint8 [1, 8, 8, 3]"),
        ("/v1/images", pickled.getvalue(), 400, "not an npz"),
        ("/v1/images", _npz(images=np.zeros((41, *squares.shape[1:]), np.uint8)), 413, "41 images"),
        ("/v1/images", bytes(2**20 + 1), 413, "larger"),
        ("/v1/images", iter([bytes(2**19)] * 3), 413, "larger"),
        ("/post", json.dumps({"execEndpoint": "/encode"}).encode(), 400, "/rank"),
        ("/none", b"", 404, "docs/serve.md"),
    ):
        answer = client.post(path, content=content)
        assert answer.status_code == status, path
        assert says in answer.json()["error"]


def test_an_array_that_says_it_is_large_is_not_believed():
    claim = {"descr": "|u1", "fortran_order": False, "shape": (2**40,)}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, claim)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content.getvalue())
    bomb = io.BytesIO()
    np.savez_compressed(bomb, images=np.zeros(2**20, np.uint8))

    with pytest.raises(Refused, match="not an npz"):
        bodies.arrays(packed.getvalue(), ["images"], Limits())
    with pytest.raises(Refused, match="larger than"):
        bodies.arrays(bomb.getvalue(), ["images"], Limits(body=2**19))


def test_jobs_that_wait_are_done_together_and_fail_alone():
    calls, go_on = [], threading.Event()

    def roots(numbers):
        calls.append(numbers)
        go_on.wait(10)
        return [math.sqrt(number) for number in numbers]

    async def ask():
        worker = Worker(most=5)
        first = asyncio.create_task(worker.do(roots, [0]))
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(worker.do(roots, numbers)) for numbers in ([1, 4], [9], [-1], [16, 25, 36])]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    *good, bad, last = asyncio.run(ask())

    assert (good, last) == ([[0.0], [1.0, 2.0], [3.0]], [4.0, 5.0, 6.0])
    assert isinstance(bad, ValueError)
    assert calls == [[0], [1, 4, 9, -1], [1, 4], [9], [-1], [16, 25, 36]]


def test_a_slow_body_is_given_up_and_a_request_too_many_sent_away():
    class Model:
        name, counts, limits = "none", Counts(), Limits(in_flight=1, seconds=0.05)

    async def body():
        yield b"{"
        await asyncio.sleep(10)

    async def ask():
        transport = httpx.ASGITransport(app.build(Model(), None, None))
        async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
            slow = asyncio.create_task(client.post("/", content=body()))
            while not Model.counts.requests:
                await asyncio.sleep(0)
            return await client.post("/", json={}), await client.get("/health"), await slow

    sent_away, health, slow = asyncio.run(ask())

    assert (sent_away.status_code, sent_away.headers["retry-after"]) == (503, "1")
    assert (health.status_code, slow.status_code) == (200, 408)
    assert "0.05 s" in slow.json()["error"]


def test_the_memory_forgets_what_was_asked_for_longest_ago():
    memory = Memory(2)
    for key in "ab":
        memory.put(key, key)
    memory.get("a")
    memory.put("c", "c")

    assert [memory.get(key) for key in "abc"] == ["a", None, "c"]


def test_an_owner_sets_up_other_classes_without_reading_again(small_black_box, squares):
    owned = blackbox.Owned("bundled")
    other = owned.for_classes(CLASSES, "a photo of a {}.")

    assert other.identity == small_black_box.identity
    assert other.class_names == CLASSES
    for mine, its in zip(jax.tree.leaves(other), jax.tree.leaves(small_black_box), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.slow
def test_an_owner_encodes_texts_of_any_lengths_in_order(small_black_box, squares):
    texts = ["two words", *TEXTS, "", "a photo of a grand piano in a very large hall", "words"] * 2
    owned = blackbox.Owned("bundled")
    features = np.stack([text.feature for text in owned.texts(texts)])
    local = small_black_box.predict_texts(texts, small_black_box.encode_images(squares))

    np.testing.assert_allclose(owned.logit_scale * owned.images(squares) @ features.T, local, atol=2e-5)
