"""Models as they lie on disk: what their files ask for is followed, or refused by name."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

import craft_jax
from craft_jax import blackbox
from craft_jax.blackbox.loaders import preprocessing
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.data import pixels
from craft_jax.errors import UserError

NAMES = ("pizza", "grand piano", "sunflower")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")


def _change(file, **entries):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | entries))


V5 = {
    "image_processor_type": "CLIPImageProcessorPil",
    "data_format": "channels_first",
    "do_pad": None,
    "pad_size": None,
}


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.5, 0.4, 0.3]},
        {"image_std": 0.6},
        {"do_normalize": False, "do_rescale": False},
        {"size": 32, "crop_size": 32},
        {"size": 40},
        {"size": {"shortest_edge": 40}},
        {"size": {"shortest_edge": 40, "longest_edge": 41}},
        {"size": {"shortest_edge": 27}},
        {"size": {"height": 32, "width": 32}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {"size": [30, 45]},
        {"crop_size": [32, 32]},
        {"resample": 0},
        {"resample": 1},
        {"resample": 2},
        {"resample": 4},
        {"do_resize": False},
        {"do_convert_rgb": False},
        V5 | {"size": {"shortest_edge": 36}},
    ],
    ids=str,
)
def test_photographs_are_prepared_as_by_the_public_processor(entries, small_black_box, small_set):
    if "longest_edge" in str(entries) and not transformers.__version__.startswith("4."):
        pytest.skip("transformers 5 cuts the longer edge too; a file's two edges mean here what they did before")
    settings = json.loads((BUNDLED_MODEL / "preprocessor_config.json").read_text()) | entries
    preparation = preprocessing.read(settings, 32, "clip")
    black_box = small_black_box.replace(
        _pixel_mean=jnp.float32(preparation.mean),
        _pixel_std=jnp.float32(preparation.std),
        _resizing=preparation.resizing,
    )
    images = [item.image.open() for item in small_set.train[:3] + small_set.test]
    images += [image.resize((90, 35)) for image in images[:2]] + [images[0].resize((31, 20))]
    public = transformers.CLIPImageProcessor(**settings)
    expected = np.stack([public(image, return_tensors="np")["pixel_values"][0] for image in images])
    squares = np.stack([pixels.centre_crop(image, 32, black_box.resizing) for image in images])
    normalised = (squares / 255 - np.asarray(black_box._pixel_mean)) / np.asarray(black_box._pixel_std)

    np.testing.assert_allclose(normalised.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-4)
    features = _features(small_black_box._image_features, black_box._image_params, expected.transpose(0, 2, 3, 1))
    handle = features / np.linalg.norm(features, axis=-1, keepdims=True)
    ours, theirs = (
        np.asarray(black_box.predict(black_box.initial_prompt[None], each))[0]
        for each in (black_box.encode_images(squares), handle)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))


@functools.partial(jax.jit, static_argnums=0)
def _features(image_features, params, normalised):
    return image_features(params, jnp.asarray(normalised, jnp.float32))


def test_how_images_are_resized_is_part_of_the_model_and_of_its_views(folder, small_black_box, small_set):
    usual = craft_jax.load_black_box(str(folder), NAMES)
    _change(folder / "preprocessor_config.json", resample=0)
    black_box = craft_jax.load_black_box(str(folder), NAMES)
    image = small_set.train[0].image.open()

    assert usual.identity["fingerprint"] == small_black_box.identity["fingerprint"] == "8c24c90d61c3061c"
    assert black_box.identity["fingerprint"] != usual.identity["fingerprint"]
    assert black_box.resizing == pixels.Resizing((32,), 0)
    colours = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)}
    view = np.asarray(pixels.view_crop(1, 0, 0, black_box.resizing)(image, 32))
    assert {tuple(pixel) for pixel in view.reshape(-1, 3)} <= colours
    seen = np.asarray(pixels.centre_crop(image, 32, pixels.Resizing(())))
    views = [pixels.view_crop(1, view, 0, pixels.Resizing((), 0))(image, 32) for view in range(3)]
    assert {tuple(p) for p in np.reshape(views, (-1, 3))} <= {tuple(p) for p in seen.reshape(-1, 3)}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("size", {"longest_edge": 40}),
        ("size", {"height": 32}),
        ("size", "32"),
        ("size", 0),
        ("size", [32, 32.5]),
        ("crop_size", {"height": 28, "width": 28}),
        ("crop_size", {"shortest_edge": 32}),
        ("crop_size", 28),
        ("resample", 6),
        ("resample", "bicubic"),
        ("do_resize", None),
        ("do_resize", "yes"),
        ("do_center_crop", False),
        ("rescale_factor", 0),
        ("rescale_factor", "1/255"),
        ("image_mean", [0.5, 0.5]),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", [float("nan")] * 3),
        ("do_pad", True),
        ("image_processor_type", "ViTImageProcessor"),
    ],
)
def test_a_preparation_that_cannot_be_followed_is_refused_by_name(entry, value):
    settings = json.loads((BUNDLED_MODEL / "preprocessor_config.json").read_text()) | {entry: value}

    with pytest.raises(UserError, match=f"black_box.model='clip': preprocessor_config.json has {entry}="):
        preprocessing.read(settings, 32, "clip")


@pytest.mark.parametrize("kind", ["bert", "blip", "vit", "chinese_clip"])
def test_a_model_of_another_type_is_refused_by_its_type(folder, kind):
    _change(folder / "config.json", model_type=kind)

    with pytest.raises(UserError, match=f"is a model of type {kind}, and only types clip and siglip are read here"):
        craft_jax.load_black_box(str(folder), NAMES)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights; it must hold one of model.safetensors"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pytorch_model.bin: no whole archive of PyTorch 1.6 or newer",
        ),
    ],
)
def test_files_that_lack_are_named(folder, damage, said):
    damage(folder)

    with pytest.raises(UserError, match=said):
        craft_jax.load_black_box(str(folder), NAMES)


def test_an_end_of_text_that_the_tokenizer_never_gives_is_named(folder):
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["eos_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(content))

    with pytest.raises(UserError, match="eos_token_id=7, which the model's tokenizer never gives"):
        craft_jax.load_black_box(str(folder), NAMES)


@pytest.mark.parametrize("part", ["vision_model.post_layernorm.bias", "text_projection.weight", "logit_scale"])
def test_a_model_that_answers_no_numbers_is_named_before_a_prompt_is_asked(
    folder, part, small_set, small_config, tmp_path
):
    weights = dict(load_file(folder / "model.safetensors"))
    weights[part] = np.array(weights[part])
    weights[part].reshape(-1)[:1] = np.inf
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    black_box = craft_jax.load_black_box(str(folder), NAMES)

    with pytest.raises(UserError, match="clip answers numbers that are not finite; look at its weights"):
        craft_jax.train(black_box, small_set, small_config, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_numbers_that_are_not_finite_never_become_json():
    from craft_jax.files import json_text

    with pytest.raises(ValueError, match="JSON"):
        json_text({"loss": float(jnp.nan)})


def test_a_hub_that_does_not_answer_is_asked_once_for_a_model(monkeypatch):
    import httpx
    from huggingface_hub import constants

    asked = []

    def unreachable(*_, **__):
        asked.append(constants.HF_HUB_OFFLINE)
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(httpx, "head", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="black_box.model='someone/clip' could not be loaded"):
        blackbox.load("someone/clip", NAMES)
    assert asked == [False]
    assert not constants.HF_HUB_OFFLINE
