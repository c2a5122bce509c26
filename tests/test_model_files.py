"""Models as they lie on disk: what their files ask for is followed, or refused by name."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

import craft_jax
from craft_jax import blackbox
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.errors import UserError

NAMES = ("pizza", "grand piano", "sunflower")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")


def _change(file, **entries):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | entries))


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.5, 0.4, 0.3]},
        {"image_std": [0.5, 0.6, 0.7]},
        {"size": 32, "crop_size": 32},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {"do_normalize": False, "do_rescale": False},
    ],
)
def test_pixels_are_normalised_as_by_the_public_processor(folder, entries):
    _change(folder / "preprocessor_config.json", **entries)
    black_box = craft_jax.load_black_box(str(folder), NAMES)
    square = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    public = transformers.CLIPImageProcessor.from_pretrained(folder)(square, return_tensors="np", do_resize=False)
    ours = (square / 255 - np.asarray(black_box._pixel_mean)) / np.asarray(black_box._pixel_std)

    np.testing.assert_allclose(ours.transpose(2, 0, 1), public["pixel_values"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("size", {"shortest_edge": 40}),
        ("size", {"height": 32, "width": 32}),
        ("crop_size", {"height": 28, "width": 28}),
        ("crop_size", 28),
        ("resample", 2),
        ("do_resize", False),
        ("do_center_crop", False),
    ],
)
def test_another_preparation_of_images_is_refused_by_name(folder, entry, value):
    _change(folder / "preprocessor_config.json", **{entry: value})

    with pytest.raises(UserError, match=f"preprocessor_config.json has {entry}="):
        craft_jax.load_black_box(str(folder), NAMES)


@pytest.mark.parametrize("kind", ["bert", "siglip", "chinese_clip"])
def test_a_model_of_another_type_is_refused_by_its_type(folder, kind):
    _change(folder / "config.json", model_type=kind)

    with pytest.raises(UserError, match=f"is a model of type {kind}, and only type clip is read here"):
        craft_jax.load_black_box(str(folder), NAMES)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights; it must hold one of model.safetensors"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "in pytorch_model.bin alone, a pickle",
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


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch):
    import requests
    from huggingface_hub import constants

    from craft_jax.blackbox.loaders import hub_files

    def unreachable(*_, **__):
        raise requests.ConnectionError

    hub_files.go_offline_without_a_hub.cache_clear()
    monkeypatch.setattr(requests, "head", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="black_box.model='someone/clip' could not be loaded"):
        blackbox.load("someone/clip", NAMES)
    assert constants.HF_HUB_OFFLINE
