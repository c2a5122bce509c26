"""The door for texts: whole captions in, logits out, of a local CLIP and of an owner who is asked from the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import craft_jax
from craft_jax.blackbox import SOFT_PROMPTS, TEXTS, GradientRefused
from craft_jax.errors import UserError
from tests.public import flax_clip_model

TEXTS_OF_ANY_LENGTH = ("a dog", "a photo of a very small grand piano on a table.", "x", "a photo of a pizza.")


@pytest.fixture(scope="module")
def handle(small_black_box):
    """Five images of noise."""
    return small_black_box.encode_images(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))


def test_captions_are_answered_as_the_unlearnt_prompt_is(small_black_box, handle):
    captions = [f"a photo of a {name}." for name in small_black_box.class_names]
    by_prompt = small_black_box.predict(small_black_box.initial_prompt[None], handle)[0]
    np.testing.assert_allclose(small_black_box.predict_texts(captions, handle), by_prompt, atol=1e-5)


def test_a_text_is_answered_alike_beside_any_others(small_black_box, handle):
    together = small_black_box.predict_texts(TEXTS_OF_ANY_LENGTH, handle)
    assert together.shape == (5, len(TEXTS_OF_ANY_LENGTH))
    for i, text in enumerate(TEXTS_OF_ANY_LENGTH):
        np.testing.assert_allclose(small_black_box.predict_texts([text], handle)[:, 0], together[:, i], atol=1e-5)


def test_texts_equal_the_public_class(small_black_box, handle):
    transformers = pytest.importorskip("transformers")
    from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL

    model = flax_clip_model().from_pretrained(str(BUNDLED_MODEL))
    model.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), model.params)
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(BUNDLED_MODEL))
    tokens = tokenizer(list(TEXTS_OF_ANY_LENGTH), padding="max_length", max_length=77, return_tensors="np")
    features = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
    features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
    expected = jnp.exp(model.params["logit_scale"]) * handle @ features.T
    np.testing.assert_allclose(small_black_box.predict_texts(TEXTS_OF_ANY_LENGTH, handle), expected, atol=1e-4)


def test_a_text_that_is_too_long_or_missing_is_one_line(small_black_box, handle):
    with pytest.raises(UserError, match="tokens and the model takes 77"):
        small_black_box.predict_texts(["word " * 80], handle)
    with pytest.raises(UserError, match="no texts"):
        small_black_box.predict_texts([], handle)


def test_no_gradient_passes_the_door(small_black_box, handle):
    with pytest.raises(GradientRefused):
        jax.grad(lambda images: small_black_box.predict_texts(["a dog"], images).sum())(handle)


class OfTexts:
    """An owner who takes texts alone, and answers probabilities over those of a call."""

    def __init__(self, local):
        self.local, self.sent = local, []

    def encode_images(self, images):
        return list(self.local.encode_images(images))

    def predict_texts(self, texts, images):
        self.sent.append((len(texts), len(images)))
        return np.asarray(jax.nn.softmax(self.local.predict_texts(texts, jnp.stack(images))))


def _connect(local, owner, **changes):
    about = {"image_size": 32, "name": "texts", "probabilities": True} | changes
    return craft_jax.connect_black_box(owner, local.class_names, **about)


def test_an_owner_who_takes_texts_alone_is_connected_without_a_first_prompt(small_black_box):
    owner = OfTexts(small_black_box)
    remote = _connect(small_black_box, owner)
    assert remote.takes == {TEXTS}
    assert small_black_box.takes == {TEXTS, SOFT_PROMPTS}
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[1] = 200
    answers = remote.predict_texts(["a dog", "a cat", "a pizza"], remote.encode_images(images))
    local = small_black_box.predict_texts(["a dog", "a cat", "a pizza"], small_black_box.encode_images(images))
    np.testing.assert_allclose(answers, local - local.mean(axis=-1, keepdims=True), atol=1e-4)
    assert owner.sent == [(3, 2)]


def test_an_owner_who_takes_nothing_is_refused(small_black_box):
    class Owner:
        def encode_images(self, images):
            return images

    with pytest.raises(UserError, match="no method predict_texts"):
        _connect(small_black_box, Owner())
    with pytest.raises(UserError, match="no method predict to ask"):
        _connect(small_black_box, Owner(), initial_prompt=small_black_box.initial_prompt)


def test_answers_for_other_texts_than_those_sent_are_refused(small_black_box):
    class Short(OfTexts):
        def predict_texts(self, texts, images):
            return super().predict_texts(texts, images)[:, 1:]

    remote = _connect(small_black_box, Short(small_black_box))
    with pytest.raises(UserError, match=r"predict_texts answered an array of shape \(1, 1\), not \(1, 2\), \[N, T\]"):
        remote.predict_texts(["a dog", "a cat"], remote.encode_images(np.zeros((1, 32, 32, 3), np.uint8)))
