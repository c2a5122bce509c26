"""SigLIP as a local black box: what PyTorch's SiglipModel answers, captions as it was trained on, and a whole run."""

import asyncio
import base64
import csv
import io
import json
import shutil

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy import special

import craft_jax
from craft_jax import blackbox, prediction, training
from craft_jax.blackbox.loaders import parameters, preprocessing
from craft_jax.blackbox.owned import Owned
from craft_jax.config import Config, ProbeConfig, RunConfig
from craft_jax.data import pixels
from craft_jax.errors import UserError
from craft_jax.export import command
from craft_jax.serve import app
from craft_jax.serve.limits import Counts, Limits
from craft_jax.serve.model import Served
from tests import random_siglip
from tests.random_siglip import TEXTS
from tests.test_weight_files import FORMS

NAMES = ("pizza", "grand piano", "sunflower")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A small random SigLIP's folder; no test changes it."""
    return random_siglip.write_folder(tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture
def own(siglip, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(siglip, tmp_path / "own")


@pytest.fixture(scope="module")
def black_box(siglip):
    return craft_jax.load_black_box(str(siglip), NAMES)


@pytest.fixture(scope="module")
def handle(black_box):
    return black_box.encode_images(random_siglip.images())


def _change(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def _change_part(folder, part, **entries):
    config = json.loads((folder / "config.json").read_text())
    config[part] |= entries
    (folder / "config.json").write_text(json.dumps(config))


def _normalised(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def _words(black_box, text):
    """A text's words as a soft prompt."""
    door = black_box._texts
    return door._tokens[door._tokenization.words(text)]


def test_images_texts_and_logits_are_those_that_pytorch_gave(black_box, handle):
    golden = np.load(random_siglip.GOLDEN, allow_pickle=False)

    np.testing.assert_array_equal([black_box._texts.token_ids(text) for text in TEXTS], golden["ids"])
    np.testing.assert_allclose(handle, _normalised(golden["image"]), atol=1e-5)
    features = black_box._texts.features(black_box._text, TEXTS)
    np.testing.assert_allclose(features, _normalised(golden["text"]), atol=1e-5)
    np.testing.assert_allclose(black_box.predict_texts(TEXTS, handle), golden["logits"], atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision_config": {"num_hidden_layers": 1, "image_size": 32}, "text_config": {"num_hidden_layers": 1}},
        {"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "relu", "layer_norm_eps": 1e-3}},
        {"text_config": {"hidden_size": 32, "max_position_embeddings": 20}},
    ],
    ids=str,
)
def test_soft_prompts_and_images_equal_pytorch(changes, own):
    torch = pytest.importorskip("torch")
    for part, entries in changes.items():
        _change_part(own, part, **entries)
    config = transformers.SiglipConfig.from_pretrained(str(own))
    state = random_siglip.weights(seed=1, config=config)
    save_file(state, own / "model.safetensors", {"format": "pt"})
    _change(own / "preprocessor_config.json", size=dict.fromkeys(("height", "width"), config.vision_config.image_size))
    black_box = craft_jax.load_black_box(str(own), NAMES)
    squares = random_siglip.images()[:, :1].repeat(black_box.image_size, 1)[:, :, :1].repeat(black_box.image_size, 2)
    squares = squares // 2 + np.random.default_rng(2).integers(0, 128, squares.shape, np.uint8)
    prompts = np.random.default_rng(3).normal(size=(2, 3, 4, config.text_config.hidden_size)).astype(np.float32)

    found = black_box.predict(prompts, black_box.encode_images(squares))
    shared = black_box.predict(prompts[:, 0], black_box.encode_images(squares))
    for k in range(2):
        for c, name in enumerate(NAMES):
            ids = black_box._texts.token_ids(f"a photo of a {name}.")
            ids[:4] = range(90, 94)  # tokens of no text, which stand for the prompt
            for prompt, logits in ((prompts[k, c], found), (prompts[k, 0], shared)):
                state["text_model.embeddings.token_embedding.weight"][90:94] = prompt
                save_file(state, own / "model.safetensors", {"format": "pt"})
                expected = random_siglip.by_pytorch(own, [ids], squares)["logits"]
                np.testing.assert_allclose(logits[k, :, c], expected[:, 0], atol=2e-5)
    assert torch.is_grad_enabled()


def test_a_soft_prompt_of_words_is_those_words(black_box, handle):
    prompts = ["very small of a", "dog of a pizza"]
    shared = black_box.predict(jnp.stack([_words(black_box, text) for text in prompts]), handle)
    for answers, text in zip(shared, prompts, strict=True):
        expected = black_box.predict_texts([f"{text} {name}" for name in NAMES], handle)
        np.testing.assert_allclose(answers, expected, atol=2e-5)

    own = ["very small of a", "dog of a pizza", "a a photo photo"]
    each = black_box.predict(jnp.stack([_words(black_box, text) for text in own])[None], handle)[0]
    captions = [f"{text} {name}" for text, name in zip(own, NAMES, strict=True)]
    np.testing.assert_allclose(each, black_box.predict_texts(captions, handle), atol=2e-5)


def test_the_unlearnt_prompt_is_the_template(black_box, handle):
    captions = [f"a photo of a {name}." for name in NAMES]
    by_prompt = black_box.predict(black_box.initial_prompt[None], handle)[0]

    assert black_box.initial_prompt.shape == (4, 16)
    np.testing.assert_allclose(by_prompt, black_box.predict_texts(captions, handle), atol=2e-5)


def test_captions_are_read_as_siglip_was_trained(black_box):
    ids = black_box._texts.token_ids

    assert ids("A Photo,  of -- a PIZZA!") == ids("a photo of a pizza")
    assert ids("a photo of a pizza")[5:] == [1] * 59  # </s>, and as much of it as fills the caption


def test_captions_of_siglip_2_keep_their_punctuation(black_box, own):
    _change(own / "tokenizer_config.json", tokenizer_class="GemmaTokenizer", pad_token="<pad>")
    second = craft_jax.load_black_box(str(own), NAMES)
    ids = second._texts.token_ids

    assert ids("A Photo, of a PIZZA!") == ids("a photo, of a pizza!") != ids("a photo of a pizza")
    assert ids("a photo of a pizza")[5:] == [1] + [0] * 58


def test_tokens_equal_those_of_the_public_tokenizer(tmp_path, own):
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([*TEXTS, "the quick brown fox jumps over a lazy dog", "don't e-mail 0123456789"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spiece"), vocab_size=90, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    public = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"))
    transformers.T5TokenizerFast(vocab_file=str(tmp_path / "spiece.model"), extra_ids=0).save_pretrained(
        tmp_path / "t5"
    )
    shutil.copy(tmp_path / "t5" / "tokenizer.json", own)
    ids = craft_jax.load_black_box(str(own), NAMES)._texts.token_ids

    for text in (*TEXTS, "", "...", " two  spaces ", "don't e-mail_me ▁ x", "Ünïcode 漢字\ttab", "a photo of a"):
        assert ids(text) == public(text, padding="max_length", max_length=64)["input_ids"]


@pytest.mark.parametrize(
    "entries",
    [{}, {"resample": 2}, {"do_normalize": False}, {"image_mean": [0.4, 0.5, 0.6]}, {"size": "left out"}],
    ids=str,
)
def test_photographs_are_prepared_as_by_the_public_processor(entries, small_set):
    size = 224 if "size" in entries else random_siglip.SIZE
    settings = {name: value for name, value in (random_siglip.PREPROCESSOR | entries).items() if value != "left out"}
    preparation = preprocessing.read(settings, size, "siglip")
    processor = getattr(transformers, "SiglipImageProcessorPil", transformers.SiglipImageProcessor)(**settings)
    for image in [item.image.open() for item in small_set.train[:3]]:
        for odd in (image, image.resize((90, 35))):
            square = np.asarray(pixels.centre_crop(odd, size, preparation.resizing), np.float32) / 255
            expected = processor(odd, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
            found = (square - np.float32(preparation.mean)) / np.float32(preparation.std)
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_processor_that_is_not_named_is_siglips_own(own, black_box):
    file = own / "preprocessor_config.json"
    file.write_text(json.dumps({"size": {"height": 30, "width": 30}}))

    assert craft_jax.load_black_box(str(own), NAMES).identity["fingerprint"] == black_box.identity["fingerprint"]


def _in_flax(state):
    return dict(parameters._in_flax(name, value) for name, value in state.items())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_weights_in_any_form_are_the_same_model(form, own, black_box):
    (own / "model.safetensors").unlink()
    form(own, random_siglip.weights())

    assert craft_jax.load_black_box(str(own), NAMES).identity["fingerprint"] == black_box.identity["fingerprint"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision_are_computed_with_in_float32(dtype, own, handle, black_box):
    half = {name: np.asarray(jnp.asarray(value, dtype)) for name, value in random_siglip.weights().items()}
    random_siglip.write_folder(own, half)
    found = craft_jax.load_black_box(str(own), NAMES)

    assert found._logit_bias == np.float32(half["logit_bias"][0])
    assert found._text.suffix.dtype == np.float32
    logits = found.predict_texts(TEXTS, found.encode_images(random_siglip.images()))
    np.testing.assert_allclose(logits, black_box.predict_texts(TEXTS, handle), atol=2)
    assert not np.array_equal(logits, black_box.predict_texts(TEXTS, handle))


def test_towers_in_bfloat16_answer_nearly_the_same(siglip, black_box, handle):
    half = craft_jax.load_black_box(str(siglip), NAMES, dtype="bfloat16")
    found = half.predict(half.initial_prompt[None], half.encode_images(random_siglip.images()))
    exact = black_box.predict(black_box.initial_prompt[None], handle)

    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 1


def test_the_white_box_of_studies_has_a_gradient_and_no_other_door(black_box, handle):
    def loss(ask):
        return lambda prompt: ask(prompt[None], handle)[0, :, 0].sum()

    assert np.abs(jax.grad(loss(black_box.predict_for_study))(black_box.initial_prompt)).max() > 1e-3
    with pytest.raises(blackbox.GradientRefused):
        jax.grad(loss(black_box.predict))(black_box.initial_prompt)


def _without(*names):
    def change(folder):
        state = load_file(folder / "model.safetensors")
        save_file({key: value for key, value in state.items() if key not in names}, folder / "model.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: _change(own / "config.json", model_type="siglip2"), "SigLIP 2 of the kind NaFlex"),
        (lambda own: _change(own / "config.json", model_type="vit"), "type vit, and only types clip and siglip"),
        (
            lambda own: _change(own / "config.json", model_type="clip"),
            "could not be loaded as a CLIP or SigLIP|lacks .* weights",
        ),
        (lambda own: _change(own / "config.json", vision_config={}), "projection_size=24 must be .*hidden_size=768"),
        (
            lambda own: _change_part(own, "text_config", projection_size=16),
            "projection_size=16 must be .*hidden_size=24",
        ),
        (lambda own: _change_part(own, "text_config", hidden_act="mish"), "hidden_act='mish' must be one of"),
        (lambda own: _change_part(own, "text_config", vocab_size=9), "by its config.json it is"),
        (_without("vision_model.head.probe"), "lacks 1 weights, among them vision_model.head.probe"),
        (_without("logit_bias"), "lacks 1 weights, among them logit_bias"),
        (lambda own: (own / "tokenizer.json").unlink(), "lacks SigLIP's tokenizer.json; bring it"),
        (lambda own: (own / "tokenizer_config.json").unlink(), "tokenizer_config.json: no such file"),
        (lambda own: (own / "tokenizer.json").write_text("{}"), "could not be loaded as a CLIP or SigLIP"),
        (lambda own: _change(own / "tokenizer_config.json", pad_token=None), "names no pad_token"),
        (lambda own: _change(own / "tokenizer_config.json", padding_side="left"), "padding_side='left'"),
        (lambda own: _change(own / "tokenizer_config.json", add_bos_token=True), "add_bos_token=True"),
        (lambda own: _change(own / "preprocessor_config.json", size={"height": 30, "width": 40}), "has .*size="),
        (
            lambda own: _change(own / "preprocessor_config.json", image_processor_type="ViT"),
            "image_processor_type='ViT'",
        ),
    ],
)
def test_what_is_amiss_with_a_folder_is_one_line(change, said, own):
    change(own)

    with pytest.raises(UserError, match=said) as refused:
        craft_jax.load_black_box(str(own), NAMES)
    assert "\n" not in str(refused.value)


def test_a_token_that_the_model_does_not_have_is_named(own):
    content = json.loads((own / "tokenizer.json").read_text())
    at = next(i for i, (piece, _) in enumerate(content["model"]["vocab"]) if piece == "▁pizza")
    content["model"]["vocab"] += [[f"more{i}", -9.0] for i in range(60)] + [["▁pizza", 0.0]]
    content["model"]["vocab"][at][0] = "▁pasta"
    (own / "tokenizer.json").write_text(json.dumps(content))

    with pytest.raises(UserError, match="the tokenizer gives 1.. for 'a photo of a pizza.', and the model has 100"):
        craft_jax.load_black_box(str(own), NAMES)


def test_a_caption_that_is_too_long_is_one_line(black_box, handle):
    longest = " ".join(["dog"] * 63)
    assert black_box.predict_texts([longest], handle).shape == (3, 1)
    with pytest.raises(UserError, match="has 65 tokens and the model takes 64; shorten"):
        black_box.predict_texts([f"{longest} dog"], handle)


def test_a_template_that_the_model_reads_nothing_in_is_one_line(siglip):
    with pytest.raises(UserError, match="the model reads no token in '-- !' before"):
        craft_jax.load_black_box(str(siglip), NAMES, "-- ! {}")


@pytest.fixture(scope="module")
def run(siglip, small_data, tmp_path_factory):
    """A short run of the default recipe, texts first."""
    workdir = tmp_path_factory.mktemp("runs") / "siglip"
    config = Config(
        query_budget=20, data=small_data, probe=ProbeConfig(texts=30), run=RunConfig(devices=1, reuse_features=False)
    )
    dataset = craft_jax.load_dataset(config.data, seed=config.seed)
    box = craft_jax.load_black_box(str(siglip), dataset.class_names)
    return craft_jax.train(box, dataset, config, workdir=str(workdir)), box, dataset, workdir


def test_a_run_tunes_and_its_checkpoint_labels_photographs(run, capsys):
    outcome, box, dataset, workdir = run
    images = [item.image for item in dataset.test[:4]]
    probabilities = craft_jax.predict(outcome.tuned, box, images)
    capsys.readouterr()
    prediction.main(["predict", f"--checkpoint={workdir}", *(str(image.path) for image in images), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert 0 < outcome.result.queries <= 20
    assert outcome.tuned.black_box["fingerprint"] == box.identity["fingerprint"]
    for line, row in zip(lines, probabilities, strict=True):
        assert line["label"] == box.class_names[row.argmax()]
        assert line["probability"] == pytest.approx(row.max(), abs=1e-5)
    with (workdir / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(dataset.test)
    assert (workdir / training.RESULT).exists()


def test_what_is_exported_answers_as_predict_does(run, tmp_path):
    outcome, box, dataset, workdir = run
    images = [item.image for item in dataset.test[:4]]
    command.main(["craft-jax export", f"--checkpoint={workdir}", str(tmp_path / "model.npz")])
    stored = np.load(tmp_path / "model.npz", allow_pickle=False)
    squares = np.stack([np.asarray(pixels.centre_crop(image.open(), box.image_size, box.resizing)) for image in images])
    features = np.asarray(jax.jit(blackbox.features_of(box).image_features)(np.float32(squares) / 255))

    logits = stored["scale"] * features @ stored["weights"].T + stored["bias"]
    np.testing.assert_allclose(
        special.softmax(logits, axis=-1), craft_jax.predict(outcome.tuned, box, images), atol=1e-4
    )


def test_a_server_answers_a_sigmoid_for_each_label_as_the_hosted_ones_do(siglip, black_box, handle):
    served = Served("siglip", Owned(str(siglip)), Limits(), Counts())
    file = io.BytesIO()
    Image.fromarray(random_siglip.images()[0]).save(file, "png")
    asked = {
        "inputs": base64.b64encode(file.getvalue()).decode(),
        "parameters": {"candidate_labels": list(TEXTS), "hypothesis_template": "{}"},
    }

    async def ask():
        transport = httpx.ASGITransport(app.build(served, None, None))
        async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
            return (await client.post("/", json=asked)).json()

    scores = {row["label"]: row["score"] for row in asyncio.run(ask())}
    logits = black_box.predict_texts(TEXTS, handle)[0]
    np.testing.assert_allclose([scores[text] for text in TEXTS], special.expit(np.float64(logits)), rtol=1e-4)
