"""Weights in every form that they are published in: one file or shards, PyTorch's names or Flax's, any dtype."""

import collections
import json
import pickle
import shutil
import subprocess
import sys
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from safetensors.flax import save_file

import craft_jax
from craft_jax.blackbox.loaders import parameters, torch_archive, weight_files
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.errors import UserError

NAMES = ("pizza", "grand piano", "sunflower")
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage", "int64": "LongStorage"}


@pytest.fixture(scope="module")
def weights():
    return weight_files.read(BUNDLED_MODEL / "model.safetensors")


@pytest.fixture
def folder(tmp_path):
    copied = shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")
    (copied / "model.safetensors").unlink()
    return copied


def _nested(flat):
    tree = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        at = tree
        for level in above:
            at = at.setdefault(level, {})
        at[last] = value
    return tree


def _in_flax(weights):
    renamed = (parameters._in_flax(name, value) for name, value in weights.items())
    return {name: np.ascontiguousarray(value) if value.ndim else value for name, value in renamed}


def _halves(weights):
    names = sorted(weights)
    return [{name: weights[name] for name in part} for part in (names[::2], names[1::2])]


def _index(folder, name, shards):
    weight_map = {weight: file for file, part in shards.items() for weight in part}
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _torch_named(folder, weights):
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _torch_named_shards(folder, weights):
    shards = {f"model-{i}-of-2.safetensors": part for i, part in enumerate(_halves(weights))}
    for name, part in shards.items():
        save_file(part, folder / name, {"format": "pt"})
    _index(folder, "model.safetensors.index.json", shards)


def _flax_named(folder, weights):
    save_file(_in_flax(weights), folder / "model.safetensors", {"format": "flax"})


def _msgpack(folder, weights):
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(_nested(_in_flax(weights))))


def _msgpack_shards(folder, weights):
    shards = {f"flax_model-{i}-of-2.msgpack": part for i, part in enumerate(_halves(_in_flax(weights)))}
    for name, part in shards.items():
        (folder / name).write_bytes(serialization.msgpack_serialize(_nested(part)))
    slashed = {name: [weight.replace(".", "/") for weight in part] for name, part in shards.items()}
    _index(folder, "flax_model.msgpack.index.json", slashed)


def _archive(folder, weights):
    _save_as_torch_does(folder / "pytorch_model.bin", weights)


def _archive_shards(folder, weights):
    shards = {f"pytorch_model-{i}-of-2.bin": part for i, part in enumerate(_halves(weights))}
    for name, part in shards.items():
        _save_as_torch_does(folder / name, part)
    _index(folder, "pytorch_model.bin.index.json", shards)


def _named(module, name):
    """A function that pickles under another module's name."""

    def stand_in(*_):
        raise AssertionError("only its name is written")

    stand_in.__module__, stand_in.__qualname__ = module, name
    setattr(sys.modules[module], name, stand_in)
    return stand_in


class _Tensor:
    def __init__(self, rebuild, arguments):
        self._reduced = rebuild, arguments

    def __reduce__(self):
        return self._reduced


class _Storage(tuple):
    """What the pickler writes as a persistent id."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return tuple(obj) if isinstance(obj, _Storage) else None


def _save_as_torch_does(file, weights, extra=None):
    """torch.save's zip format, without PyTorch; the tests of parity with PyTorch read real ones."""
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(file, "w") as archive:
        for module in ("torch", "torch._utils"):
            patch.setitem(sys.modules, module, types.ModuleType(module))
        rebuild = _named("torch._utils", "_rebuild_tensor_v2")
        kinds = {dtype: _named("torch", name) for dtype, name in STORAGES.items()}
        content = collections.OrderedDict(extra or {})
        for key, (name, value) in enumerate(weights.items()):
            storage = _Storage(("storage", kinds[str(value.dtype)], str(key), "cpu", value.size))
            strides = tuple(step // value.itemsize for step in np.ascontiguousarray(value).strides)[: value.ndim]
            arguments = (storage, 0, value.shape, strides, False, collections.OrderedDict())
            content[name] = _Tensor(rebuild, arguments)
            archive.writestr(f"clip/data/{key}", np.ascontiguousarray(value).tobytes())
        with archive.open("clip/data.pkl", "w") as listing:
            _Pickler(listing, protocol=2).dump(content)


FORMS = [_torch_named, _torch_named_shards, _flax_named, _msgpack, _msgpack_shards, _archive, _archive_shards]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_weights_in_any_form_are_the_same_model(form, folder, weights, small_black_box):
    form(folder, weights)

    black_box = craft_jax.load_black_box(str(folder), NAMES)
    assert black_box.identity["fingerprint"] == small_black_box.identity["fingerprint"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", [_torch_named, _msgpack, _archive])
def test_weights_of_half_precision_are_computed_with_in_float32(form, dtype, folder, weights):
    half = {name: np.asarray(jnp.asarray(value, dtype)) for name, value in weights.items()}
    form(folder, half)

    black_box = craft_jax.load_black_box(str(folder), NAMES)
    scale = np.asarray(half["logit_scale"], np.float32)
    assert black_box._logit_scale == scale
    assert black_box._image_params.encoder.layers.qkv_kernel.dtype == np.float32


def test_position_numbers_and_heads_of_other_tasks_are_left_aside(folder, weights, small_black_box):
    more = {"text_model.embeddings.position_ids": np.arange(77)[None], "classifier.weight": np.ones((2, 2), np.float32)}
    _archive(folder, weights | more)

    black_box = craft_jax.load_black_box(str(folder), NAMES)
    assert black_box.identity["fingerprint"] == small_black_box.identity["fingerprint"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("visual_projection.weight"), "lacks 1 weights, among them visual_projection"),
        (
            lambda weights: weights.update({"vision_model.encoder.layers.6.mlp.fc1.bias": np.ones(768, np.float32)}),
            "has 1 weights that its config.json has no place for, among them vision_model.encoder.layers.6",
        ),
        (
            lambda weights: weights.update({"logit_scale": np.ones(2, np.float32)}),
            r"has logit_scale of shape \[2\], and by its config.json it is \[\]",
        ),
    ],
)
def test_weights_that_do_not_belong_to_the_configuration_are_named(change, said, folder, weights):
    changed = dict(weights)
    change(changed)
    _torch_named(folder, changed)

    with pytest.raises(UserError, match=said):
        craft_jax.load_black_box(str(folder), NAMES)


def test_a_shard_that_is_not_there_is_named(folder, weights):
    _torch_named_shards(folder, weights)
    (folder / "model-1-of-2.safetensors").unlink()

    with pytest.raises(UserError, match="names the shard model-1-of-2.safetensors, which is not beside it"):
        craft_jax.load_black_box(str(folder), NAMES)


def test_an_index_does_not_lead_out_of_its_folder(folder):
    _index(folder, "model.safetensors.index.json", {"../model.safetensors": ["logit_scale"]})

    with pytest.raises(UserError, match="names shards outside its folder"):
        craft_jax.load_black_box(str(folder), NAMES)


class _Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def test_nothing_that_a_pickle_asks_for_is_run(tmp_path, weights):
    file = tmp_path / "pytorch_model.bin"
    _save_as_torch_does(
        file, {"logit_scale": weights["logit_scale"]}, extra={"a": _Command(f"touch {tmp_path}/was_run")}
    )

    with pytest.raises(UserError, match=r"its pickle asks for \w+.system, which weights do not need"):
        torch_archive.read(file)
    assert not (tmp_path / "was_run").exists()


def test_an_archive_of_pytorchs_own_is_read_as_pytorch_reads_it(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": base,
        "a view": base[1:3, ::2].T,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base),
        "empty": torch.zeros(0, 3),
        "numbers": torch.arange(3),
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin")

    found = torch_archive.read(tmp_path / "pytorch_model.bin")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        expected = tensor.detach()
        np.testing.assert_array_equal(np.asarray(found[name], np.float32), expected.float().numpy())
        assert str(found[name].dtype) == str(expected.dtype).removeprefix("torch.")


@pytest.mark.slow
def test_a_model_is_loaded_without_any_model_class_of_transformers():
    code = (
        "import sys, craft_jax; craft_jax.load_black_box('bundled', ('a', 'b')); "
        "print([name for name in sys.modules if name.startswith('transformers.models.') and 'modeling' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
