"""ResNet CLIPs: parity with the architecture in PyTorch, weights, files, the hub, and the main job on one."""

import io
import json
import math
import shutil

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft_jax import blackbox, main, prediction, training
from craft_jax.blackbox import clip
from craft_jax.blackbox.loaders import open_clip, openai_weights
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.blackbox.towers import resnet_architecture
from craft_jax.data import pixels
from craft_jax.errors import UserError
from tests import random_resnet
from tests.random_resnet import SMALL, TINY, UNEVEN

CLASS_NAMES = ("pizza", "grand piano", "sunflower")
TEMPLATE = "a photo of a {}."


@pytest.fixture(scope="module")
def tokenizer():
    import transformers

    return transformers.CLIPTokenizerFast.from_pretrained(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A miniature ResNet CLIP in open_clip's layout; no test changes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return random_resnet.write_folder(folder, TINY, random_resnet.weights(TINY))


@pytest.fixture
def own_folder(tiny_folder, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "own")


def _change_weights(folder, change):
    from safetensors.numpy import load_file, save_file

    state = load_file(folder / open_clip.WEIGHTS)
    change(state)
    save_file(state, folder / open_clip.WEIGHTS)


def _change_config(folder, change):
    configuration = json.loads((folder / open_clip.CONFIG).read_text())
    change(configuration)
    (folder / open_clip.CONFIG).write_text(json.dumps(configuration))


def _raw_features(parts, squares):
    """Image features before normalisation, from uint8 squares."""
    normalised = (squares / np.float32(255) - np.float32(parts.pixel_mean)) / np.float32(parts.pixel_std)
    with jax.default_matmul_precision("float32"):
        return jax.jit(parts.image_features)(parts.image_params, jnp.asarray(normalised, jnp.float32))


@pytest.mark.parametrize("name", ["SMALL", "UNEVEN", "RN50"])
def test_image_features_and_logits_equal_the_architecture_in_pytorch(name, tokenizer):
    torch = pytest.importorskip("torch")
    from tests import torch_resnet_clip as yardstick

    architecture = {"SMALL": SMALL, "UNEVEN": UNEVEN, **resnet_architecture.OPENAI}[name]
    weights, squares = random_resnet.weights(architecture), random_resnet.images(architecture, 2)
    model = yardstick.with_weights(architecture, weights)
    ids = tokenizer([TEMPLATE.format(name) for name in CLASS_NAMES], padding="max_length", max_length=77)["input_ids"]
    tensor = yardstick.pixels_of(squares, open_clip.PIXEL_MEAN, open_clip.PIXEL_STD)
    with torch.no_grad():
        features, logits = model.encode_image(tensor), model(tensor, torch.tensor(ids))

    parts = open_clip.parts(weights, architecture, tokenizer)
    black_box = clip.assemble(parts, name, CLASS_NAMES, TEMPLATE, "float32")
    found = black_box.predict(black_box.initial_prompt[None], black_box.encode_images(squares))

    assert features.std() > 0.1
    np.testing.assert_allclose(_raw_features(parts, squares), features.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(found[0], logits.numpy(), atol=1e-4, rtol=0)


def test_the_golden_tower_gives_the_features_that_pytorch_gave():
    golden = dict(np.load(random_resnet.GOLDEN, allow_pickle=False))
    squares, features = golden.pop("images"), golden.pop("features")

    parts = open_clip.parts(random_resnet.weights(TINY) | golden, TINY, tokenizer=None)

    np.testing.assert_allclose(_raw_features(parts, squares), features, atol=1e-4, rtol=0)


def test_the_golden_file_is_what_its_script_writes():
    golden = dict(np.load(random_resnet.GOLDEN, allow_pickle=False))

    for name, value in random_resnet.golden_weights().items():
        np.testing.assert_array_equal(golden[name], value)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "positional_embedding", "bn1.running_var", "bn3.bias"])
def test_every_kind_of_weight_moves_the_features(part):
    squares = random_resnet.images(TINY, 2)
    weights = random_resnet.weights(TINY)
    changed = {name: value * 1.5 if part in name else value for name, value in weights.items()}

    before, after = (_raw_features(open_clip.parts(state, TINY, None), squares) for state in (weights, changed))

    assert float(abs(before - after).max()) > 1e-3


def test_a_bfloat16_tower_stays_near_the_float32_one(tiny_folder):
    squares = random_resnet.images(TINY, 2)

    def logits(dtype):
        black_box = blackbox.load(str(tiny_folder), CLASS_NAMES, dtype=dtype)
        return black_box.predict(black_box.initial_prompt[None], black_box.encode_images(squares))

    assert logits("bfloat16").dtype == jnp.float32
    np.testing.assert_allclose(logits("bfloat16"), logits("float32"), atol=0.3)
    assert not np.array_equal(logits("bfloat16"), logits("float32"))


PUBLISHED_PARAMETERS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_openais_models_have_their_published_number_of_parameters(name, count):
    layout = resnet_architecture.layout(resnet_architecture.OPENAI[name])

    assert sum(math.prod(shape) for key, shape in layout.items() if ".running_" not in key) == count


@pytest.mark.parametrize("name", resnet_architecture.OPENAI)
def test_the_tower_of_each_openai_model_takes_the_parameters_of_its_layout(name):
    architecture = resnet_architecture.OPENAI[name]
    tower, side = open_clip.image_tower(architecture), architecture.image_size
    zeros = {
        key: np.broadcast_to(np.float32(0), shape) for key, shape in resnet_architecture.layout(architecture).items()
    }

    expected = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    params = jax.eval_shape(lambda: openai_weights.image_params(zeros, architecture))

    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)


architectures = st.builds(
    lambda blocks, half, side, **sizes: resnet_architecture.Architecture(
        layers=blocks, width=2 * half, image_size=32 * side, text_width=64 * sizes["text_heads"], **sizes
    ),
    blocks=st.tuples(*[st.integers(1, 40)] * 4),
    half=st.integers(1, 64),
    side=st.integers(1, 14),
    embed_dim=st.integers(1, 1024),
    context_length=st.integers(2, 77),
    vocab_size=st.integers(10, 50000),
    text_heads=st.integers(1, 16),
    text_layers=st.integers(1, 12),
)


@settings(max_examples=30, deadline=None)
@given(architectures)
def test_an_architecture_is_told_from_its_weights_and_from_its_configuration(architecture):
    as_json = json.loads(json.dumps(resnet_architecture.to_model_cfg(architecture)))

    assert resnet_architecture.from_weights(resnet_architecture.layout(architecture)) == architecture
    assert resnet_architecture.from_model_cfg(as_json) == architecture


def test_a_photograph_is_prepared_for_the_towers_own_resolution(tmp_path, small_set):
    torch = pytest.importorskip("torch")
    from tests import torch_resnet_clip as yardstick

    weights = random_resnet.weights(SMALL)
    folder = random_resnet.write_folder(tmp_path / "small", SMALL, weights)
    black_box = blackbox.load(str(folder), CLASS_NAMES)
    squares = np.stack(
        [np.asarray(pixels.centre_crop(item.image.open(), black_box.image_size)) for item in small_set.test[:3]]
    )
    with torch.no_grad():
        model = yardstick.with_weights(SMALL, weights)
        expected = model.encode_image(yardstick.pixels_of(squares, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])).numpy()

    assert black_box.image_size == 64
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(black_box.encode_images(squares), expected, atol=1e-5)


def test_missing_left_over_and_misshapen_weights_are_listed(own_folder):
    def change(state):
        del state["visual.layer2.0.bn1.running_mean"]
        del state["ln_final.bias"]
        state["visual.layer2.5.conv1.weight"] = np.zeros((8, 8, 1, 1), np.float32)
        state["text_projection"] = np.zeros((16, 11), np.float32)

    _change_weights(own_folder, change)

    with pytest.raises(UserError) as caught:
        blackbox.load(str(own_folder), CLASS_NAMES)
    message = str(caught.value)
    assert "2 missing: ln_final.bias, visual.layer2.0.bn1.running_mean;" in message
    assert "1 left over: visual.layer2.5.conv1.weight;" in message
    assert "1 of the wrong shape: text_projection (16, 11) instead of (16, 12)" in message
    assert open_clip.WEIGHTS in message


def test_buffers_are_neither_needed_nor_left_over(own_folder, tiny_folder):
    def change(state):
        state["visual.bn1.num_batches_tracked"] = np.asarray(7)
        state["attn_mask"] = np.zeros((77, 77), np.float32)
        state |= {name: np.asarray(77) for name in openai_weights.ENTRIES}

    _change_weights(own_folder, change)
    with_buffers, without = (blackbox.load(str(folder), CLASS_NAMES) for folder in (own_folder, tiny_folder))

    assert with_buffers.identity["fingerprint"] == without.identity["fingerprint"]


@pytest.mark.parametrize(
    ("absent", "complaint"),
    [
        (open_clip.WEIGHTS, f"lacks {open_clip.WEIGHTS} of a ResNet CLIP"),
        (open_clip.CONFIG, f"lacks {open_clip.CONFIG} of a ResNet CLIP"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(own_folder, absent, complaint):
    (own_folder / absent).unlink()

    with pytest.raises(UserError, match=complaint):
        blackbox.load(str(own_folder), CLASS_NAMES)


def test_a_folder_without_tokenizer_says_which_files_to_add(tmp_path):
    folder = random_resnet.write_folder(tmp_path / "bare", TINY, random_resnet.weights(TINY), tokenizer=False)

    with pytest.raises(UserError, match="lacks CLIP's tokenizer; add vocab.json and merges.txt, or tokenizer.json"):
        blackbox.load(str(folder), CLASS_NAMES)


def test_vocabulary_and_merges_alone_make_a_tokenizer(own_folder, tiny_folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (own_folder / name).unlink()
    slim, whole = (blackbox.load(str(folder), CLASS_NAMES) for folder in (own_folder, tiny_folder))

    np.testing.assert_array_equal(slim._text.suffix, whole._text.suffix)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    smaller = TINY.__class__(**{**vars(TINY), "vocab_size": 1000})
    folder = random_resnet.write_folder(tmp_path / "other", smaller, random_resnet.weights(smaller))

    with pytest.raises(UserError, match="the tokenizer has 4096 tokens and the model 1000"):
        blackbox.load(str(folder), CLASS_NAMES)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="resnet50"), "vision_cfg.timm_model_name"),
        (lambda c: c["model_cfg"]["text_cfg"].update(pool_type="last"), "model_cfg sets text_cfg.pool_type"),
        (lambda c: c["model_cfg"]["text_cfg"].pop("width"), "model_cfg lacks text_cfg.width"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(image_size=100), "must be a multiple of 32"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(image_size=[64, 32]), "must be square"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(layers=[1, 2]), "must be four numbers"),
        (lambda c: c["model_cfg"].update(embed_dim="big"), "model_cfg is malformed"),
        (lambda c: c["preprocess_cfg"].update(resize_mode="squash"), "resize_mode='squash', which is not supported"),
        (lambda c: c["preprocess_cfg"].update(mean=[0.5]), "three numbers each"),
    ],
)
def test_a_configuration_that_asks_for_something_else_is_refused(own_folder, change, complaint):
    _change_config(own_folder, change)

    with pytest.raises(UserError, match=f"{open_clip.CONFIG}: .*{complaint}"):
        blackbox.load(str(own_folder), CLASS_NAMES)


def test_the_folder_can_be_named_by_its_weights_file(own_folder, tiny_folder):
    renamed = (own_folder / open_clip.WEIGHTS).rename(own_folder / "RN50.safetensors")

    by_file, by_folder = (blackbox.load(str(path), CLASS_NAMES) for path in (renamed, tiny_folder))

    assert by_file.identity["fingerprint"] == by_folder.identity["fingerprint"]
    assert by_file.identity["model"] == str(renamed)


def test_an_archive_of_openai_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"PK")

    with pytest.raises(UserError, match=r"python -m craft_jax.blackbox.convert_openai .*RN50.pt FOLDER"):
        blackbox.load(str(tmp_path / "RN50.pt"), CLASS_NAMES)


def test_damaged_weights_are_refused_by_their_file(own_folder):
    (own_folder / open_clip.WEIGHTS).write_bytes(b"nothing like it")

    with pytest.raises(UserError, match=f"{open_clip.WEIGHTS} could not be read as safetensors"):
        blackbox.load(str(own_folder), CLASS_NAMES)


@pytest.mark.parametrize("short", resnet_architecture.OPENAI)
def test_openais_short_names_stand_for_hub_names(short, tiny_folder, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        assert {open_clip.CONFIG, open_clip.WEIGHTS, "merges.txt"} <= set(allow_patterns)
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    black_box = blackbox.load(short, CLASS_NAMES)

    assert asked == [f"timm/{short.replace('RN', 'resnet')}_clip.openai"]
    assert black_box.identity["model"] == short


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to the hub\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)

    with pytest.raises(UserError) as caught:
        blackbox.load("RN50", CLASS_NAMES)
    assert "'RN50' could not be had from the hub's timm/resnet50_clip.openai (no route to the hub)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_hub_name_is_a_resnet_where_its_configuration_says_so(tiny_folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tiny_folder / file))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tiny_folder))

    assert open_clip.find("someone/their-resnet").weights == tiny_folder / open_clip.WEIGHTS


def test_another_hub_name_is_left_to_transformers_where_it_is_none(own_folder, monkeypatch):
    _change_config(own_folder, lambda c: c["model_cfg"]["vision_cfg"].update(layers=12))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(own_folder / file))

    assert open_clip.find("someone/their-vit") is None


def test_a_transformers_folder_is_left_to_transformers():
    assert open_clip.find(str(BUNDLED_MODEL)) is None
    assert isinstance(blackbox.load("bundled", CLASS_NAMES), clip.ClipBlackBox)


@pytest.mark.slow
def test_the_main_job_tunes_a_resnet_and_its_checkpoint_predicts(tiny_folder, small_config, small_set, tmp_path):
    black_box = blackbox.load(str(tiny_folder), small_set.class_names)
    outcome = training.train(black_box, small_set, small_config, tmp_path / "run", stream=io.StringIO())
    again = blackbox.load(outcome.tuned.black_box["model"], small_set.class_names)
    probabilities = prediction.predict(outcome.tuned, again, [item.image.path for item in small_set.test])
    hits = probabilities.argmax(axis=1) == [item.label for item in small_set.test]

    assert outcome.result.queries == small_config.query_budget
    assert outcome.result.accuracy == pytest.approx(100 * hits.mean())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_command_line_tunes_a_resnet_and_labels_a_photograph(tiny_folder, coop_root, tmp_path, capsys):
    image = next((coop_root / "caltech-101" / "101_ObjectCategories" / "pizza").iterdir())
    main.main(
        [
            "main", "--config=configs/caltech.py", f"--workdir={tmp_path / 'run'}", f"--config.data.root={coop_root}",
            f"--config.black_box.model={tiny_folder}", "--config.data.shots=1", "--config.data.views=1",
            "--config.query_budget=40", "--config.search.estimator=antithetic", "--config.search.population_size=10",
            "--config.probe.texts=0",
        ]
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / training.RESULT).read_text())["black_box"] == str(tiny_folder)
    capsys.readouterr()

    prediction.main(["predict", f"--checkpoint={tmp_path / 'run'}", str(image)])
    assert capsys.readouterr().out.startswith(str(image))
