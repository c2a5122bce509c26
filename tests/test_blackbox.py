"""The interface, the meter, and parity of the local CLIP with transformers' public class."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from craft_jax import blackbox, data
from craft_jax.blackbox import BudgetExceeded, GradientRefused, Ledger, Meter
from craft_jax.blackbox.loaders import flax_clip
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.config import DataConfig
from craft_jax.data import pixels
from craft_jax.errors import UserError
from tests.public import flax_clip_model

TEMPLATE = "a photo of a {}."


@pytest.fixture(scope="module")
def public():
    """transformers' own FlaxCLIPModel in float32, its tokenizer and its image processor."""
    import transformers

    transformers.logging.set_verbosity_error()
    model = flax_clip_model().from_pretrained(BUNDLED_MODEL)
    model.params = model.to_fp32(model.params)
    return (
        model,
        transformers.CLIPTokenizerFast.from_pretrained(BUNDLED_MODEL),
        transformers.CLIPImageProcessor.from_pretrained(BUNDLED_MODEL),
    )


def _normalised(features):
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


@jax.jit
def _features(tower, prompt):
    return tower.features(prompt[None])[0]


def _public_text_features(public, class_names):
    model, tokenizer, _ = public
    captions = [TEMPLATE.format(name) for name in class_names]
    tokens = tokenizer(captions, padding="max_length", max_length=77, return_tensors="np")
    return _normalised(model.get_text_features(tokens["input_ids"], tokens["attention_mask"]))


CLASS_NAMES = {
    "one class": ("pizza",),
    "the bundled ones": data.load(DataConfig(), seed=1).class_names,
    "one token to many": ("dog", "grand piano", "a " * 5 + "very long name", " ".join(["piano"] * 30), "crab"),
    "the longest that fits": (" ".join(["a"] * 69), "cat"),
}


@pytest.mark.parametrize("class_names", CLASS_NAMES.values(), ids=CLASS_NAMES.keys())
def test_text_features_of_the_unlearnt_prompt_equal_the_public_class(public, class_names):
    black_box = blackbox.load("bundled", class_names, TEMPLATE)
    features = _features(black_box._text, black_box.initial_prompt)

    np.testing.assert_allclose(features, _public_text_features(public, class_names), atol=1e-5)


def _random_clip(vocabulary=600, **text_changes):
    """A randomly initialised FlaxCLIPModel of odd sizes: 24 wide, 3 heads, 3 text layers, 77 positions."""
    from transformers import CLIPConfig

    tower = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "num_hidden_layers": 3}
    text = tower | {"vocab_size": vocabulary, "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    config = CLIPConfig(
        text_config=text | text_changes, vision_config=tower | {"image_size": 16, "patch_size": 8}, projection_dim=20
    )
    return flax_clip_model()(config, seed=3)


def _towers_and_public_features(model, captions, n_ctx):
    """Features of token captions by the text tower and by the public class, the words as the prompt."""
    config = model.config.text_config
    tower = flax_clip.text_settings(config).tower(model.params, captions, n_ctx, "float32")
    words = model.params["text_model"]["embeddings"]["token_embedding"]["embedding"][
        np.array(captions[0][1 : n_ctx + 1])
    ]
    padded = np.zeros((len(captions), 77), int)
    for row, caption in zip(padded, captions, strict=True):
        row[: len(caption)] = caption
    expected = model.get_text_features(padded, np.ones_like(padded))
    return _features(tower, words), _normalised(expected)


def _assert_lengths_equal_the_public_class(lengths, **text_changes):
    rng = np.random.default_rng(0)
    captions = [[598, 7, 8, 9, 10, *rng.integers(3, 598, length), 599] for length in lengths]
    order = rng.permutation(len(captions))

    features, expected = _towers_and_public_features(
        _random_clip(**text_changes), [captions[i] for i in order], n_ctx=4
    )
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize(("activation", "eos"), [("quick_gelu", 599), ("gelu", 2)], ids=["modern EOS", "legacy EOS"])
def test_short_and_long_class_names_equal_the_public_class(activation, eos):
    _assert_lengths_equal_the_public_class([1, 2, 3, 2, 5, 30, 71], hidden_act=activation, eos_token_id=eos)


@pytest.mark.parametrize("layers", [1, 2])
def test_an_encoder_of_few_layers_equals_the_public_class(layers):
    _assert_lengths_equal_the_public_class([1, 4], num_hidden_layers=layers)


@pytest.mark.slow
def test_every_length_of_class_name_equals_the_public_class():
    _assert_lengths_equal_the_public_class(range(1, 72))


@pytest.mark.parametrize(("classes", "n_ctx"), [(1, 1), (30, 16), pytest.param(1000, 4, marks=pytest.mark.slow)])
def test_any_number_of_classes_and_prompt_vectors_equals_the_public_class(classes, n_ctx):
    rng = np.random.default_rng(0)
    context = rng.integers(3, 598, n_ctx)
    captions = [[598, *context, *rng.integers(3, 598, rng.integers(1, 9)), 599] for _ in range(classes)]

    features, expected = _towers_and_public_features(_random_clip(), captions, n_ctx)
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_bfloat16_towers_stay_near_the_float32_ones_and_predict_in_float32(small_set, small_black_box):
    half = blackbox.load("bundled", small_set.class_names, dtype="bfloat16")
    squares = np.stack([np.asarray(pixels.centre_crop(item.image.open(), 32)) for item in small_set.test])

    def logits(black_box):
        return black_box.predict(black_box.initial_prompt[None], black_box.encode_images(squares))

    assert logits(half).dtype == np.float32
    np.testing.assert_allclose(logits(half), logits(small_black_box), atol=0.3)
    assert not np.array_equal(logits(half), logits(small_black_box))


def test_a_learnt_prompt_equals_the_public_class_with_those_vectors_as_embeddings(public, small_black_box):
    """Writes the soft prompt into the embedding table in place of the template's words."""
    model, tokenizer, _ = public
    soft_prompt = 0.1 * jax.random.normal(jax.random.key(0), small_black_box.initial_prompt.shape)
    words = np.array(tokenizer("a photo of a")["input_ids"][1:-1])
    spare = np.array([1000, 1001, 1002, 1003])
    embedding = model.params["text_model"]["embeddings"]["token_embedding"]["embedding"].at[spare].set(soft_prompt)
    tokens = tokenizer(
        [TEMPLATE.format(name) for name in small_black_box.class_names], padding=True, return_tensors="np"
    )
    ids = tokens["input_ids"].copy()
    assert (ids[:, 1:5] == words).all()
    ids[:, 1:5] = spare
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["text_model"]["embeddings"]["token_embedding"]["embedding"] = embedding
    expected = _normalised(model.get_text_features(ids, tokens["attention_mask"], params=params))

    np.testing.assert_allclose(_features(small_black_box._text, soft_prompt), expected, atol=1e-5)


def test_predictions_equal_the_public_class_on_photographs(public, small_set, small_black_box):
    model, tokenizer, processor = public
    images = [item.image.open() for item in small_set.test]
    tokens = tokenizer([TEMPLATE.format(name) for name in small_set.class_names], padding=True, return_tensors="np")
    expected = model(**processor(images, return_tensors="np"), **tokens).logits_per_image

    squares = np.stack([np.asarray(pixels.centre_crop(image, small_black_box.image_size)) for image in images])
    handle = small_black_box.encode_images(squares)
    logits = small_black_box.predict(small_black_box.initial_prompt[None], handle)

    image_features = _normalised(model.get_image_features(**processor(images, return_tensors="np")))
    np.testing.assert_allclose(handle, image_features, atol=1e-5)
    assert logits.shape == (1, 12, 3)
    np.testing.assert_allclose(logits[0], expected, atol=2e-4)  # logits are cosines times 20


def test_prompts_are_answered_independently_of_each_other(small_black_box):
    prompts = 0.1 * jax.random.normal(jax.random.key(0), (5, *small_black_box.initial_prompt.shape))
    handle = small_black_box.encode_images(np.zeros((2, 32, 32, 3), np.uint8))
    together = small_black_box.predict(prompts, handle)

    for i in range(5):
        np.testing.assert_allclose(small_black_box.predict(prompts[i : i + 1], handle)[0], together[i], atol=1e-4)


def test_permuting_the_classes_permutes_the_logits(small_black_box):
    order = [2, 0, 1]
    permuted = blackbox.load("bundled", [small_black_box.class_names[i] for i in order])
    image = np.full((1, 32, 32, 3), 100, np.uint8)

    def logits(black_box):
        return black_box.predict(black_box.initial_prompt[None], black_box.encode_images(image))[0, 0]

    np.testing.assert_allclose(logits(permuted), logits(small_black_box)[np.array(order)], atol=1e-4)


@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, jax.value_and_grad, jax.hessian])
def test_a_gradient_through_the_wall_is_refused_and_the_error_says_why(small_black_box, differentiate):
    handle = small_black_box.encode_images(np.zeros((1, 32, 32, 3), np.uint8))

    with pytest.raises(GradientRefused, match="black box: it answers queries but gives no gradient"):
        differentiate(lambda prompt: small_black_box.predict(prompt, handle).sum())(
            small_black_box.initial_prompt[None]
        )


def test_a_gradient_of_the_image_side_is_refused_too(small_black_box):
    with pytest.raises(GradientRefused):
        jax.grad(
            lambda shift: jax.tree.leaves(small_black_box.encode_images(shift + jnp.zeros((1, 32, 32, 3))))[0].sum()
        )(0.0)


def test_two_classes_may_share_a_name_as_in_imagenets_list(small_black_box):
    black_box = blackbox.load("bundled", ["crab", "pizza", "crab"])
    handle = black_box.encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    (logits,) = np.asarray(black_box.predict(black_box.initial_prompt[None], handle))[0]

    assert logits[0] == logits[2] != logits[1]


def test_a_class_name_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="tokens and the model takes 77; shorten the class name"):
        blackbox.load("bundled", [" ".join(["piano"] * 90)])


def test_a_template_whose_words_run_into_the_class_name_is_refused():
    with pytest.raises(UserError, match="black_box.template: the words before {} run into class name"):
        blackbox.load("bundled", ["pizza", "crab"], "photo{}")


def test_other_braces_in_a_template_are_words():
    black_box = blackbox.load("bundled", ["pizza"], "a photo {x} of a {}.")

    assert black_box.initial_prompt.shape[0] > blackbox.load("bundled", ["pizza"]).initial_prompt.shape[0]


def test_a_model_folder_may_be_named_from_home(tmp_path, monkeypatch):
    shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert blackbox.load("~/clip", ["pizza"]).class_names == ("pizza",)


def test_a_model_folder_without_weights_is_refused_by_name(tmp_path):
    shutil.copytree(BUNDLED_MODEL, tmp_path / "clip", ignore=shutil.ignore_patterns("*.safetensors"))

    with pytest.raises(UserError, match=f"^{tmp_path}/clip: no weights; it must hold one of model.safetensors"):
        blackbox.load(str(tmp_path / "clip"), ["crab"])


def test_a_model_that_lacks_a_weight_is_refused_instead_of_run_with_random_numbers(tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match="lacks 1 weights, among them .*text_projection"):
        blackbox.load(str(tmp_path / "clip"), ["crab"])


def test_a_copy_of_a_model_has_its_fingerprint_and_a_changed_one_has_not(tmp_path, small_black_box):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")
    copy = blackbox.load(str(tmp_path / "clip"), ["crab"])
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["logit_scale"] = np.asarray(weights["logit_scale"] + np.float16(0.5))
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    changed = blackbox.load(str(tmp_path / "clip"), ["crab"])

    assert copy.identity["fingerprint"] == small_black_box.identity["fingerprint"]
    assert changed.identity["fingerprint"] != copy.identity["fingerprint"]


def test_the_meter_counts_prompts_and_predictions():
    meter = Meter(budget=100)
    meter.admit(Ledger(prompts=40, search_predictions=40 * 12) * 2)
    meter.admit(Ledger(evaluation_predictions=7))

    assert meter.ledger == Ledger(prompts=80, search_predictions=960, evaluation_predictions=7)


def test_the_meter_refuses_the_query_that_would_exceed_the_budget_and_books_nothing():
    meter = Meter(budget=100, ledger=Ledger(prompts=80))

    with pytest.raises(BudgetExceeded, match="budget of 100 prompts does not cover 40 more after 80"):
        meter.admit(Ledger(prompts=40))
    assert meter.ledger == Ledger(prompts=80)
    meter.admit(Ledger(prompts=20))
