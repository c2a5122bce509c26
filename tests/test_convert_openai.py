"""The converter of OpenAI's archives: what it writes, what it refuses, and that it leaves nothing half-written."""

import shutil

import numpy as np
import pytest

from craft_jax import blackbox
from craft_jax.blackbox import convert_openai
from craft_jax.blackbox.loaders import open_clip
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.errors import UserError
from tests import random_resnet
from tests.random_resnet import TINY

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`?torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`?torch.jit:FutureWarning"),
]

# OpenAI's rule of 64 channels a head, which the archive does not say.
OPENAI_LIKE = TINY.__class__(**{**vars(TINY), "head_width": 64})
CLASS_NAMES = ("pizza", "crab")


class _Archived(torch.nn.Module):
    """Holds a state dict under its own names and computes something that can be scripted."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_buffer(last, value)

    def forward(self, x):
        return x + 1


def _state(**changes):
    state = {name: torch.from_numpy(value).half() for name, value in random_resnet.weights(OPENAI_LIKE).items()}
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 4096}
    state |= {name: torch.tensor(size) for name, size in sizes.items()}
    state["visual.bn1.num_batches_tracked"] = torch.tensor(3)
    return {name: value for name, value in (state | changes).items() if value is not None}


@pytest.fixture
def archive(tmp_path):
    """A TorchScript archive with OpenAI's names, in half precision as OpenAI's are."""
    path = tmp_path / "RN.pt"
    torch.jit.save(torch.jit.trace(_Archived(_state()), torch.zeros(1)), path)
    return path


def test_a_converted_archive_is_the_model_that_its_weights_make(archive, tmp_path, capsys):
    converted = tmp_path / "models" / "converted"
    convert_openai.main(["convert", str(archive), str(converted), f"--tokenizer={BUNDLED_MODEL}"])
    half = {name: value.astype(np.float16) for name, value in random_resnet.weights(OPENAI_LIKE).items()}
    written = random_resnet.write_folder(tmp_path / "written", OPENAI_LIKE, half)
    squares = random_resnet.images(OPENAI_LIKE, 1)

    def features(folder):
        black_box = blackbox.load(str(folder), CLASS_NAMES)
        return black_box._image_features(black_box._image_params, squares / np.float32(255))

    shown = capsys.readouterr().out
    assert "ResNet CLIP for 32-pixel images" in shown
    assert "left out input_resolution, context_length, vocab_size" in shown
    assert blackbox.load(str(converted), CLASS_NAMES).predict(np.zeros((1, 4, 16)), np.ones((1, 12))).shape == (1, 1, 2)
    np.testing.assert_array_equal(features(converted), features(written))


def test_every_tensor_is_kept_but_the_sizes_that_the_configuration_says(archive, tmp_path):
    from safetensors.numpy import load_file

    convert_openai.convert(archive, tmp_path / "converted")
    kept, expected = load_file(tmp_path / "converted" / open_clip.WEIGHTS), _state()

    assert set(expected) - set(kept) == {"input_resolution", "context_length", "vocab_size"}
    assert all(np.array_equal(value, expected[name].numpy()) for name, value in kept.items())
    assert all(value.dtype == expected[name].numpy().dtype for name, value in kept.items())


def test_a_plain_state_dict_converts_to_the_same_files(archive, tmp_path):
    torch.save(_state(), tmp_path / "state.pt")
    for source, name in ((archive, "scripted"), (tmp_path / "state.pt", "plain")):
        convert_openai.convert(source, tmp_path / name, BUNDLED_MODEL)

    for file in (tmp_path / "scripted").iterdir():
        assert file.read_bytes() == (tmp_path / "plain" / file.name).read_bytes()


def test_a_state_dict_in_bfloat16_is_written_in_float32(tmp_path):
    from safetensors.numpy import load_file

    state = {name: value.bfloat16() if value.is_floating_point() else value for name, value in _state().items()}
    torch.save(state, tmp_path / "state.pt")
    convert_openai.convert(tmp_path / "state.pt", tmp_path / "converted")

    kept = load_file(tmp_path / "converted" / open_clip.WEIGHTS)
    assert all(np.array_equal(value, state[name].float().numpy()) for name, value in kept.items())


def test_without_a_tokenizer_the_converter_says_what_to_add(archive, tmp_path):
    report = convert_openai.convert(archive, tmp_path / "converted")

    assert f"add vocab.json and merges.txt, or tokenizer.json, of OpenAI's CLIP to {tmp_path}/converted" in report[-1]
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(BUNDLED_MODEL / name, tmp_path / "converted")
    assert blackbox.load(str(tmp_path / "converted"), CLASS_NAMES).image_size == 32


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ln_final.weight": None}, "1 missing: ln_final.weight"),
        ({"visual.extra.weight": torch.zeros(2)}, "1 left over: visual.extra.weight"),
        ({"visual.attnpool.positional_embedding": None}, "not the weights of a ResNet CLIP: visual.attnpool.pos"),
        ({"input_resolution": torch.tensor(64)}, "input_resolution=64 is at odds with the weights, which say 32"),
    ],
)
def test_weights_of_something_else_are_refused_and_nothing_is_written(tmp_path, changes, complaint):
    torch.save(_state(**changes), tmp_path / "state.pt")

    with pytest.raises(UserError, match=complaint):
        convert_openai.convert(tmp_path / "state.pt", tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_conversion_that_is_cut_short_leaves_nothing(archive, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", full)

    with pytest.raises(UserError, match="no space is left on its disk; make room there"):
        convert_openai.convert(archive, tmp_path / "converted", BUNDLED_MODEL)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_folder_in_use_is_not_written_to(archive, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "precious").touch()

    with pytest.raises(UserError, match="used exists; name a folder that is new or empty"):
        convert_openai.convert(archive, tmp_path / "used")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"not an archive")

    with pytest.raises(UserError, match="RN50.pt is neither a TorchScript archive nor a state dict"):
        convert_openai.convert(tmp_path / "RN50.pt", tmp_path / "converted")


@pytest.mark.parametrize("arguments", [[], ["RN50.pt"], ["RN50.pt", "folder", "more"]])
def test_a_wrong_command_line_shows_the_right_one(arguments):
    with pytest.raises(UserError, match="usage: python -m craft_jax.blackbox.convert_openai ARCHIVE.pt FOLDER"):
        convert_openai.main(["convert", *arguments])
