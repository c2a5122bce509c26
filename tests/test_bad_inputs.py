"""Bad and odd inputs, each given to a command: it is read rightly, or refused in one line that says what to do.

Nothing half-written is left, and no traceback is shown. A row names what is made, the command, and what it must say.
"""

import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import unicodedata
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import craft_jax
from craft_jax import cli, main, prediction, training
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.sweep import command as sweep

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parent.parent
COMMANDS = {"tune": main.main, "predict": prediction.main, "sweep": sweep.main}
SETTINGS = (
    "--config=folder", "--config.black_box.model=bundled", "--config.query_budget=41", "--config.data.shots=2",
    "--config.data.views=2", "--config.run.devices=1",
    "--config.search.estimator=antithetic", "--config.search.sigma=1.0",
    "--config.search.population_size=10", "--config.probe.texts=0",
)  # fmt: skip


class Refused(NamedTuple):
    """The one line on standard error must match."""

    line: str


class Read(NamedTuple):
    """A set is read; what is read of it, and its notes, must match. It is not trained on."""

    shown: str


class Runs(NamedTuple):
    """The command ends with status 0; what it shows must match."""

    shown: str


class Input(NamedTuple):
    """What `make` makes in a new folder, from which it returns the command line."""

    name: str
    make: object
    expected: Refused | Read | Runs
    stdin: str = ""


def _tune(root, *more):
    return ["tune", *SETTINGS, f"--config.data.root={root}", *more]


# Folders


def _image(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, format=options.pop("format", "PNG"), **options)
    return path


def _tree(root, parts=("",), classes=("cat", "dog"), each=4, suffix=".png"):
    """A folder a class in each part, every photograph another; classes of the bundled tokenizer's few tokens."""
    for i, path in enumerate(
        root / part / name / f"{n}{suffix}" for part in parts for name in classes for n in range(each)
    ):
        _image(path, i)
    return root


def _photographs(*parts, more=(), change=lambda root: None, **tree):
    """A command on a folder of photographs, which `change` has changed."""

    def make(root):
        change(_tree(root, parts or ("",), **tree))
        return _tune(root, *more)

    return make


def _each(root, change):
    for path in sorted(root.rglob("*.*")):
        if path.is_file():
            change(path)


def _link_folder(root):
    for name in ("cat", "dog"):
        for n in range(8):
            _image(root.parent / "disk" / name / f"linked{n}.png", 100 + 10 * len(name) + n + (name == "dog") * 50)
        (root / name / "more").symlink_to(root.parent / "disk" / name)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(path):
    """A PNG of which a header promises 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"x"))


FOLDERS = [
    Input("capital parts", _photographs("Train", "Test"), Read("cat, dog; 4 to train on, 0 to choose by, 8 to test")),
    Input("training", _photographs("Training", "Testing"), Read("cat, dog; 4 to train on, 0 to choose by, 8 to test")),
    Input("three parts", _photographs("train", "VALID", "test"), Read("4 to train on, 4 to choose by, 8 to test")),
    Input("dated parts", _photographs("train2017", "test2017"), Read("cat, dog; 4 to train on, 0 to")),
    Input("no test part", _photographs("Train", "Val"), Refused("a split has train and test, perhaps one of val")),
    Input("two tests", _photographs("Train", "Test", "Testing"), Refused("a split has train and test")),
    Input(
        "one deeper",
        _photographs("data"),
        Refused(r"one sub-folder only, data, with cat, dog in it; set data\.root to"),
    ),
    Input(
        "parts in classes",
        _photographs("cat", "dog", classes=("train", "test")),
        Read("within a class, as in 'cat', are not"),
    ),
    Input("an empty folder", lambda root: _tune(root), Refused("no sub-folder; put the images of each class into")),
    Input(
        "a missing folder",
        lambda root: _tune(root / "nowhere"),
        Refused("data.root=.*/nowhere: no such folder; set it to"),
    ),
    Input(
        "a file as root", lambda root: _tune(_image(root / "a.png", 0)), Refused("data.root=.*a.png: no such folder")
    ),
    Input(
        "one class", _photographs(classes=("cat",)), Refused("one sub-folder only; put the images of each class into")
    ),
    Input(
        "an empty class",
        _photographs(change=lambda root: (root / "cow").mkdir()),
        Refused("cow: no image in this folder; add some"),
    ),
    Input(
        "few photographs",
        _photographs(more=("--config.data.shots=9",)),
        Refused("has 2 training photographs, fewer than data.shots=9; lower"),
    ),
    Input(
        "a NAS",
        _photographs(change=lambda root: _image(root / "cat" / "@eaDir" / "0.png" / "thumb.jpg", 99)),
        Read(r"1 image in hidden folders \(@eaDir\)[^$]*cat, dog; 4 to"),
    ),
    Input(
        "linked folders",
        _photographs(change=_link_folder, more=("--config.data.shots=6",)),
        Read("cat, dog; 12 to train on"),
    ),
    Input(
        "a link in a circle",
        _photographs(change=lambda root: (root / "cat" / "up").symlink_to(root)),
        Read("cat, dog; 4 to train on, 2 to choose by, 2 to"),
    ),
    Input("no suffix", _photographs(suffix=""), Read("cat, dog; 4 to train on")),
    Input("capital suffix", _photographs(suffix=".PNG"), Read("cat, dog; 4 to train on")),
    Input(
        "iPhone's",
        _photographs(change=lambda root: (root / "cat" / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")),
        Read("not read: 1 file in .heic; convert"),
    ),
    Input(
        "only iPhone's",
        _photographs(change=lambda root: _each(root, lambda path: path.rename(path.with_suffix(".heic")))),
        Refused("no image in this folder of a format that is read, only .heic; add some"),
    ),
    Input(
        "beside classes",
        _photographs(change=lambda root: _image(root / "cover.png", 77)),
        Read("1 image beside the classes' folders, in none of them"),
    ),
    Input(
        "empty files",
        _photographs(change=lambda root: _each(root, lambda path: path.write_bytes(b""))),
        Refused("8 photographs are missing or not readable: .*cat/.*png; replace"),
    ),
    Input(
        "one truncated file",
        _photographs(
            change=lambda root: (root / "cat" / "0.png").write_bytes((root / "cat" / "0.png").read_bytes()[:80])
        ),
        Refused("cat/0.png: not a readable image .*; replace it or take it out"),
    ),
    Input(
        "web pages",
        _photographs(change=lambda root: _each(root, lambda path: path.write_text("<html>404</html>"))),
        Refused("8 photographs are missing or not readable"),
    ),
    Input(
        "a picture that is a bomb",
        _photographs(change=lambda root: _each(root, _bomb)),
        Refused("8 photographs are missing or not readable: .*exceeds limit"),
    ),
    Input(
        "floats",
        _photographs(suffix=".tif", change=lambda root: _each(root, lambda path: Image.new("F", (8, 8)).save(path))),
        Refused("pixels of 32 bits .mode F."),
    ),
    Input(
        "two spellings",
        _photographs(classes=("Pizza", "pizza", "dog")),
        Refused("'Pizza' and 'pizza', which a prompt cannot tell apart"),
    ),
    Input(
        "accents apart",
        lambda root: _tune(
            _tree(
                _tree(root, ("train",), ("caf\u00e9", "dog")),
                ("test",),
                (unicodedata.normalize("NFD", "caf\u00e9"), "dog"),
            )
        ),
        Read("caf\u00e9, dog; 4 to train on, 0 to choose by, 8"),
    ),
    Input("numbers as names", _photographs(classes=("1", "2")), Read("2 of 2 class names are bare numbers")),
    Input("a name of nothing", _photographs(classes=("_", "dog")), Refused("the class name of label 0 is empty")),
    Input(
        "a name of bytes",
        _photographs(classes=(os.fsdecode(b"caf\xe9"), "dog")),
        Refused("the class name caf.* is not UTF-8 text; rename it"),
    ),
    Input(
        "a very long name",
        _photographs(classes=("q7" * 90, "dog")),
        Refused("tokens and the model takes 77; shorten the class name"),
    ),
    Input(
        "a leak by a link",
        _photographs(
            "train",
            "test",
            change=lambda root: (root / "test" / "cat" / "l.png").symlink_to(root / "train" / "cat" / "0.png"),
        ),
        Refused("test/cat/l.png in test is the photograph"),
    ),
    Input(
        "a leak by a copy",
        _photographs(
            "train",
            "test",
            change=lambda root: shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "c.png"),
        ),
        Read("1 photograph of one part has the same bytes"),
    ),
    Input(
        "a class that is not tested",
        _photographs("train", "test", change=lambda root: shutil.rmtree(root / "test" / "dog")),
        Read("1 class has no test photograph: 'dog'"),
    ),
    Input(
        "a class that is not trained",
        _photographs("train", "test", change=lambda root: shutil.rmtree(root / "train" / "dog")),
        Refused("class 'dog' is not in train; add its"),
    ),
    Input(
        "a pipe", _photographs(change=lambda root: os.mkfifo(root / "cat" / "pipe")), Read("cat, dog; 4 to train on")
    ),
    Input(
        "a dead link",
        _photographs(change=lambda root: (root / "cat" / "dead.png").symlink_to(root / "gone.png")),
        Refused("dead.png"),
    ),
]


# Lists

LISTED = "a.png,cat,train\nb.png,cat,test\nc.png,dog,train\nd.png,dog,test\n"


def _list(text, encoding="utf-8", name="list.csv"):
    """A command on a CSV file beside eight photographs."""

    def make(root):
        for i, letter in enumerate("abcdefgh"):
            _image(root / f"{letter}.png", i)
        (root / name).write_bytes(text.encode(encoding))
        shots = "--config.data.shots=1"
        return _tune(root, "--config.data.source=csv", f"--config.data.split={name}", shots)

    return make


LISTS = [
    Input(
        "header of Split",
        _list(f"path,label,Split\n{LISTED}"),
        Read("cat, dog; 2 to train on, 0 to choose by, 2 to test"),
    ),
    Input(
        "header with blanks",
        _list(f" Path , LABEL, split \n{LISTED}"),
        Read("2 to train on, 0 to choose by, 2 to test"),
    ),
    Input("semicolons", _list(f"path,label,split\n{LISTED}".replace(",", ";")), Read("cat, dog; 2 to train on")),
    Input("a spreadsheet's mark", _list(f"path,label,split\n{LISTED}", "utf-8-sig"), Read("cat, dog; 2 to train on")),
    Input(
        "Windows' lines", _list(f"path,label,split\n{LISTED}".replace("\n", "\r\n")), Read("cat, dog; 2 to train on")
    ),
    Input(
        "a spreadsheet's UTF-16",
        _list(f"path,label\n{LISTED}", "utf-16"),
        Refused("must be UTF-8 text; save it as such"),
    ),
    Input(
        "an unused column",
        _list("path,label,by\na.png,cat,x\nb.png,cat,x\nc.png,dog,x\nd.png,dog,x\n"),
        Read("not used: by"),
    ),
    Input(
        "an unquoted comma",
        _list("path,label\na.png,cat, black\nb.png,dog\n"),
        Refused("line 2: 3 cells, and the first line has 2"),
    ),
    Input(
        "a short line",
        _list("path,label,split\na.png,cat,train\nb.png,dog\n"),
        Refused("line 3: 2 cells, and the first line"),
    ),
    Input(
        "an open quote",
        _list('path,label\na.png,"cat\nb.png,dog\nc.png,cat"\n'),
        Refused("line 2: a cell goes over several lines; close"),
    ),
    Input(
        "a quote never closed",
        _list('path,label\na.png,"cat\nb.png,dog\n'),
        Refused("look for a quote that is not closed"),
    ),
    Input("two labels", _list("path,label,label\na.png,cat,dog\n"), Refused("2 columns are called 'label'; keep one")),
    Input(
        "no header",
        _list("a.png,cat\nb.png,dog\n"),
        Refused("no column 'path'; its first line must name path,label and"),
    ),
    Input("nothing in it", _list(""), Refused("no column 'path'; .* and names nothing")),
    Input("a header alone", _list("path,label\n"), Refused("the list has no image; write path,label a line")),
    Input("an empty label", _list("path,label\na.png,\nb.png,dog\n"), Refused("line 2: label is empty; fill it in")),
    Input(
        "one label",
        _list("path,label\na.png,cat\nb.png,cat\n"),
        Refused("one class only, 'cat'; at least two are needed"),
    ),
    Input(
        "a missing photograph",
        _list("path,label\na.png,cat\nz.png,dog\n"),
        Refused("line 3: .*z.png does not exist; check"),
    ),
    Input(
        "two cases",
        _list("path,label\na.png,Cat\nb.png,cat\nc.png,dog\n"),
        Refused("'Cat' and 'cat', which a prompt cannot tell apart"),
    ),
    Input(
        "a photograph twice",
        _list("path,label\na.png,cat\n./a.png,dog\n"),
        Refused("line 3: ./a.png stands in line 2 already; drop"),
    ),
    Input(
        "a strange part",
        _list("path,label,split\na.png,cat,first\n"),
        Refused("split is 'first'; it must be train, val or test"),
    ),
    Input(
        "no test part in it",
        _list("path,label,split\na.png,cat,train\nb.png,dog,train\n"),
        Refused("must name train and test, each"),
    ),
    Input(
        "absolute paths",
        lambda root: _list(
            f"path,label,split\n{LISTED}".replace("\n", f"\n{root}/").rstrip("/").removesuffix(str(root))
        )(root),
        Read("cat, dog; 2 to train on"),
    ),
    Input(
        "a folder in the place of a list",
        lambda root: (
            (root / "list.csv").mkdir() or _tune(root, "--config.data.source=csv", "--config.data.split=list.csv")
        ),
        Refused("list.csv"),
    ),
    Input(
        "a list that is not there",
        lambda root: _tune(root, "--config.data.source=csv", "--config.data.split=list.csv"),
        Refused("list.csv: no such list; check data.root"),
    ),
    Input(
        "a list that is not named",
        lambda root: _tune(root, "--config.data.source=csv"),
        Refused("data.split is empty; name the list, a CSV file"),
    ),
]


# CoOp's split files


def _rows(path="b.png", label=1, name="dog"):
    return {
        "train": [["a.png", 0, "cat"], [path, label, name]],
        "val": [],
        "test": [["c.png", 0, "cat"], ["d.png", 1, "dog"]],
    }


def _coop(content):
    def make(root):
        for i, letter in enumerate("abcd"):
            _image(root / f"{letter}.png", i)
        (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return _tune(root, "--config.data.source=coop", "--config.data.split=split.json", "--config.data.shots=1")

    return make


def _without(part):
    return {name: rows for name, rows in _rows().items() if name != part}


SPLIT_FILES = [
    Input("as CoOp writes them", _coop(_rows()), Read("cat, dog; 2 to train on, 0 to choose by, 2 to test")),
    Input(
        "names of numbers", _coop(_rows(name="None")), Refused("label 1 is called 'None' and 'dog'; give it one name")
    ),
    Input("null as a name", _coop(_rows(name=None)), Refused("class name None of b.png is no text")),
    Input("true as a label", _coop(_rows(label=True)), Refused("label True of b.png is no whole number")),
    Input("text as a label", _coop(_rows(label="1")), Refused("label '1' of b.png is no whole number")),
    Input(
        "a gap of labels",
        _coop(json.dumps(_rows(label=2)).replace('1, "dog"', '2, "dog"')),
        Refused("must run from 0 to 1 without gaps"),
    ),
    Input(
        "no part of val",
        _coop(_without("val")),
        Refused("split.json: not in CoOp's form; train, val and test must list"),
    ),
    Input(
        "an empty part", _coop({**_rows(), "train": []}), Refused("train and test must each list at least one image")
    ),
    Input("parts of null", _coop({**_rows(), "train": None}), Refused("not in CoOp's form")),
    Input("null", _coop("null"), Refused("not in CoOp's form")),
    Input("no JSON", _coop("{'train': []}"), Refused("split.json: not a readable split file")),
    Input("half of it", _coop(json.dumps(_rows())[:60]), Refused("split.json: not a readable split file")),
    Input("too deep", _coop("[" * 100_000), Refused("not a readable split file")),
    Input("a key twice", _coop('{"train": [], "train": []}'), Refused("a key stands twice in one object")),
    Input(
        "a lost photograph",
        _coop(_rows(path="z.png")),
        Refused("split.json names .*z.png, which does not exist; check"),
    ),
    Input(
        "one photograph in two parts",
        _coop(_rows(path="./c.png")),
        Refused("c.png stands in train and again in test; keep"),
    ),
    Input(
        "one photograph of two labels",
        _coop(_rows(path="a.png")),
        Refused("the same photograph, of label 0; give it one"),
    ),
    Input(
        "names in two cases",
        _coop(json.dumps(_rows()).replace('"dog"', '"CAT"')),
        Refused("'cat' and 'CAT', which a prompt cannot"),
    ),
    Input(
        "no split file",
        lambda root: _tune(root, "--config.data.source=coop", "--config.data.split=s.json"),
        Refused("s.json: no such split file"),
    ),
]


# FGVC's and ImageNet's lists


def _fgvc(variants="A300\nF-16\n", train="a A300\nb F-16\n", absent=""):
    def make(root):
        for i, letter in enumerate("abcde"):
            _image(root / f"{letter}.jpg", i, format="JPEG")
        lists = {"variants": variants, "images_variant_train": train, "images_variant_val": "c F-16\n"}
        for name, text in (lists | {"images_variant_test": "d F-16\ne A300\n"}).items():
            if name != absent:
                (root / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return _tune(root, "--config.data.source=fgvc", "--config.data.split=.", "--config.data.shots=1")

    return make


def _imagenet(names="n01 tench\nn02 goldfish\n", change=lambda root: None):
    def make(root):
        _tree(root, ("train", "val"), ("n01", "n02"), suffix=".JPEG")
        (root / "names.txt").write_text(names)
        change(root)
        return _tune(root, "--config.data.source=imagenet", "--config.data.split=names.txt")

    return make


OTHER_LISTS = [
    Input(
        "an unknown variant",
        _fgvc(train="a A300\nb F-18\n"),
        Refused("b is of variant 'F-18', which variants.txt does not list"),
    ),
    Input(
        "a variant twice",
        _fgvc(variants="A300\na300\nF-16\n"),
        Refused("variants.txt: .*'A300' and 'a300', which a prompt cannot"),
    ),
    Input(
        "a photograph that is not there",
        _fgvc(train="z A300\nb F-16\n"),
        Refused("z.jpg, which does not exist; check data.images"),
    ),
    Input(
        "no list of val",
        _fgvc(absent="images_variant_val"),
        Refused("images_variant_val.txt: no such list; check data.root"),
    ),
    Input(
        "an empty list",
        _fgvc(train="\n"),
        Refused("images_variant_train.txt: the list is empty; take it from the archive"),
    ),
    Input(
        "a line without variant", _fgvc(train="a\n"), Refused("a is of variant '', which variants.txt does not list")
    ),
    Input(
        "a list in Latin-1",
        _fgvc(train="a Caf\u00e9\n".encode("latin-1")),
        Refused("images_variant_train.txt: .* must be UTF-8"),
    ),
    Input(
        "one photograph in FGVC's two parts",
        _fgvc(train="a A300\nd F-16\n"),
        Refused("d.jpg in test is the photograph .*d.jpg in train|same photograph"),
    ),
    Input("ImageNet's", _imagenet(), Read("tench, goldfish; 4 to train on, 0 to choose by, 8 to test")),
    Input(
        "a class without a name", _imagenet("n01 tench\n"), Refused("no class name for .*n02; add a line, or remove it")
    ),
    Input(
        "a name that is empty",
        _imagenet("n01 tench\nn02\n"),
        Refused("no class name for n02; write <folder> <class name> a line"),
    ),
    Input(
        "a class of two names",
        _imagenet("n01 tench\nn01 shark\nn02 cat\n"),
        Refused("n01 is called 'tench' and 'shark'; give it one"),
    ),
    Input(
        "no val",
        _imagenet(change=lambda root: shutil.rmtree(root / "val")),
        Refused("val: no such folder; lay the images out as CoOp"),
    ),
    Input(
        "another class in val",
        _imagenet("n01 a b\nn02 c\nn03 d\n", lambda root: _image(root / "val" / "n03" / "a.JPEG", 9)),
        Refused("n03: this class is not in .*train"),
    ),
]


# Models


def _model(change, *more):
    """A command with a copy of the bundled model that `change` has changed, on the bundled photographs."""

    def make(root):
        change(shutil.copytree(BUNDLED_MODEL, root / "clip"))
        return ["tune", "--config=demo", "--config.query_budget=41", f"--config.black_box.model={root}/clip", *more]

    return make


def _json(name, **entries):
    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | entries))

    return change


def _text(**entries):
    def change(folder):
        content = json.loads((folder / "config.json").read_text())
        content["text_config"] |= entries
        (folder / "config.json").write_text(json.dumps(content))

    return change


def _weights(change):
    def make(folder):
        weights = {name: np.array(value) for name, value in load_file(folder / "model.safetensors").items()}
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return make


def _put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _cut(name, length):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def _gone(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def _nan(weights):
    weights["text_projection.weight"][0, 0] = np.nan


def _on_two_classes(make):
    """A command on the photographs, and with the settings, of the finished run, whose programs are compiled."""
    return lambda root: ["tune", *FINISHED["settings"], *(flag for flag in make(root) if "black_box.model" in flag)]


def _prepared(**entries):
    return _model(_json("preprocessor_config.json", **entries))


PREPARED = "clip': preprocessor_config.json has "
MODELS = [
    Input("a copy", _model(lambda folder: None), Read("24 classes|crab")),
    Input(
        "no config.json",
        _model(_gone("config.json")),
        Refused("config.json: no such file; a model's folder holds config"),
    ),
    Input("half a config.json", _model(_cut("config.json", 99)), Refused("config.json: not readable as JSON")),
    Input(
        "a list as config.json", _model(_put("config.json", b"[]")), Refused("config.json: holds no object of settings")
    ),
    Input(
        "BERT",
        _model(_json("config.json", model_type="bert")),
        Refused("is a model of type bert, and only types clip and siglip"),
    ),
    Input(
        "a CLIP that is called a SigLIP",
        _model(_json("config.json", model_type="siglip")),
        Refused("lacks 15 weights, among them logit_bias"),
    ),
    Input(
        "SigLIP 2 of any image size",
        _model(_json("config.json", model_type="siglip2")),
        Refused("is a SigLIP 2 of the kind NaFlex"),
    ),
    Input(
        "no weights", _model(_gone("model.safetensors")), Refused("no weights; it must hold one of model.safetensors")
    ),
    Input(
        "a pickle",
        _model(lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin")),
        Refused("pytorch_model.bin: no whole archive of PyTorch 1.6 or newer"),
    ),
    Input(
        "half of the weights",
        _model(_cut("model.safetensors", 10_000)),
        Refused("model.safetensors: could not be read"),
    ),
    Input(
        "no safetensors",
        _model(_put("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid")),
        Refused("model.safetensors: could not be read"),
    ),
    Input(
        "a weight less",
        _model(_weights(lambda weights: weights.pop("text_projection.weight"))),
        Refused("lacks 1 weights, among them .*text_projection"),
    ),
    Input(
        "NaN among the weights",
        _on_two_classes(_model(_weights(_nan))),
        Refused("clip answers numbers that are not finite; look at its weights"),
    ),
    Input(
        "other sizes",
        _model(_text(hidden_size=96)),
        Refused(r"has text_\S+ of shape \[.*, and by its config.json it is \["),
    ),
    Input(
        "heads that do not fit", _model(_text(hidden_size=64)), Refused("must be a multiple of num_attention_heads=3")
    ),
    Input(
        "another end of text",
        _model(_text(eos_token_id=7)),
        Refused("eos_token_id=7, which the model's tokenizer never gives"),
    ),
    Input(
        "no tokenizer",
        _model(_gone("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")),
        Refused("lacks CLIP's tokenizer; add vocab.json and merges.txt"),
    ),
    Input("half a tokenizer", _model(_cut("tokenizer.json", 500)), Refused("could not be loaded as a CLIP")),
    Input(
        "a folder without anything",
        lambda root: ["tune", "--config=demo", f"--config.black_box.model={root}"],
        Refused("config.json: no such file"),
    ),
    Input(
        "a picture as a model",
        lambda root: ["tune", "--config=demo", f"--config.black_box.model={_image(root / 'a.png', 0)}"],
        Refused("a.png' is a file, but not of safetensors"),
    ),
    Input(
        "a model that is nowhere",
        lambda root: ["tune", "--config=demo", f"--config.black_box.model={root}/nowhere"],
        Refused("nowhere' could not be loaded as a CLIP .*; give `bundled`"),
    ),
    Input(
        "an open_clip folder in part",
        _model(
            lambda folder: (
                (folder / "config.json").unlink() or (folder / "open_clip_model.safetensors").write_bytes(b"")
            )
        ),
        Refused("clip lacks open_clip_config.json of a ResNet CLIP"),
    ),
    Input(
        "a template without a class",
        _model(lambda folder: None, "--config.black_box.template=a photo"),
        Refused("black_box.template"),
    ),
    Input(
        "a template that is long",
        _model(lambda folder: None, f"--config.black_box.template={'a ' * 80}{{}}"),
        Refused("tokens and the model takes 77; shorten"),
    ),
    Input(
        "a dtype that is none",
        _model(lambda folder: None, "--config.black_box.dtype=float99"),
        Refused("black_box.dtype='?float99'? must be one of"),
    ),
    Input("resized to more", _prepared(size={"shortest_edge": 40}), Read("crab")),
    Input("resized in both", _prepared(size={"height": 32, "width": 32}, do_center_crop=False), Read("crab")),
    Input(
        "a crop that the model does not take",
        _prepared(crop_size=28),
        Refused(PREPARED + "crop_size=28, and the model takes 32 x 32"),
    ),
    Input(
        "no resizing and no crop",
        _prepared(do_resize=False, do_center_crop=False),
        Refused(PREPARED + "do_resize=False and"),
    ),
    Input(
        "a filter that is none", _prepared(resample=9), Refused(PREPARED + "resample=9, which must be one of Pillow's")
    ),
    Input(
        "a deviation of nothing", _prepared(image_std=[0, 0, 0]), Refused(PREPARED + "image_std=.0, 0, 0., by which")
    ),
    Input("two channels", _prepared(image_mean=[0.5, 0.5]), Refused(PREPARED + "image_mean=")),
    Input(
        "another processor",
        _prepared(image_processor_type="ViTImageProcessor"),
        Refused(PREPARED + "image_processor_type='ViT"),
    ),
    Input(
        "no preprocessing",
        _model(_gone("preprocessor_config.json")),
        Refused("lacks preprocessor_config.json, which says how images are prepared"),
    ),
    Input(
        "half a preprocessing",
        _model(_cut("preprocessor_config.json", 40)),
        Refused("preprocessor_config.json: not readable as JSON"),
    ),
]


# What a run has left


def _state(change, *more):
    """The same command on a finished run that `change` has damaged."""

    def make(root):
        change(shutil.copytree(FINISHED["workdir"], root / "run"))
        return ["tune", *FINISHED["settings"], f"--workdir={root}/run", *more]

    return make


def _predict(change, *more):
    """Two photographs to label with a finished run that `change` has damaged."""

    def make(root):
        change(shutil.copytree(FINISHED["workdir"], root / "run"))
        images = [str(_image(root / f"{i}.png", i)) for i in range(2)]
        return ["predict", f"--checkpoint={root}/run", *(more or images)]

    return make


FINISHED = {}  # a run's workdir and settings, once it is made


def _checkpoints(run):
    return sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())


def _unfinished(change):
    def make(run):
        (run / "result.json").unlink()
        change(run)

    return make


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def _damaged(folder):
    for file in (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        _flip(file)


def _format(run):
    for folder in _checkpoints(run):
        (about,) = [file for file in (folder / "about").rglob("*") if b'"format"' in file.read_bytes()]
        about.write_bytes(
            about.read_bytes().replace(b'"format": 6', b'"format": 9').replace(b'"format":6', b'"format":9')
        )


STATES = [
    Input(
        "as it was",
        _state(lambda run: None),
        Runs("holds this run, finished; choose another --workdir to run it again"),
    ),
    Input("half a result", _state(_cut("result.json", 30)), Runs("result.json is damaged; writing it anew")),
    Input("a result of a list", _state(_put("result.json", b"[]")), Runs("result.json is damaged; writing it anew")),
    Input(
        "half a log",
        _state(_unfinished(_cut("metrics.jsonl", 30))),
        Runs("missing or damaged, the first .* written anew from"),
    ),
    Input(
        "no log",
        _state(_unfinished(_gone("metrics.jsonl"))),
        Runs("missing or damaged, the first .* written anew from|deployed"),
    ),
    Input(
        "bytes as a log",
        _state(_unfinished(_put("metrics.jsonl", b"\xff\xfe\0"))),
        Runs("written anew from the checkpoint"),
    ),
    Input(
        "the newest checkpoint damaged",
        _state(_unfinished(lambda run: _damaged(_checkpoints(run)[-1]))),
        Runs("is damaged; falling back to checkpoint"),
    ),
    Input(
        "no checkpoint whole",
        _state(_unfinished(lambda run: [_damaged(folder) for folder in _checkpoints(run)])),
        Refused("checkpoints: no checkpoint can be read .*; choose another --workdir"),
    ),
    Input(
        "of a later version",
        _state(_unfinished(_format)),
        Refused("no checkpoint can be read|checkpoint format 9, and this version"),
    ),
    Input(
        "with another seed",
        _state(lambda run: None, "--config.seed=2"),
        Refused("--workdir=.*/run holds a run with seed=1, not 2; choose another"),
    ),
    Input(
        "with another budget",
        _state(lambda run: None, "--config.query_budget=61"),
        Refused("query_budget=41, not 61: learning rates fall"),
    ),
    Input(
        "with other photographs",
        _state(_unfinished(lambda run: None), "--config.data.split_seed=3"),
        Refused("holds a run with data.split_seed=0, not 3; choose another"),
    ),
    Input(
        "an empty folder of checkpoints",
        _state(_unfinished(lambda run: [shutil.rmtree(folder) for folder in _checkpoints(run)])),
        Runs("deployed"),
    ),
    Input("predict with it", _predict(lambda run: None), Runs("0.png +(cat|dog) +[0-9.]+ %\n.*1.png")),
    Input(
        "predict with the newest damaged",
        _predict(lambda run: _damaged(_checkpoints(run)[-1])),
        Runs("0.png +(cat|dog)"),
    ),
    Input(
        "predict with none whole",
        _predict(lambda run: [_damaged(folder) for folder in _checkpoints(run)]),
        Refused("no checkpoint can be read .*; choose another"),
    ),
    Input(
        "predict without checkpoints",
        _predict(lambda run: shutil.rmtree(run / "checkpoints")),
        Refused("run holds no checkpoints; give the --workdir of a run"),
    ),
]


# What predict is to label


def _kinds(root):
    """Photographs of every kind that a camera, a scanner or a designer's program writes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.effect_noise((12, 9), 50)
    folder = root / "kinds"
    folder.mkdir()
    picture.convert("CMYK").save(folder / "a.jpg")
    picture.convert("LA").save(folder / "b.png")
    picture.convert("1").save(folder / "c.tif")
    picture.convert("RGB").save(folder / "d.jpg", exif=exif)
    Image.fromarray(np.asarray(picture).astype(np.uint16) * 16).save(folder / "e.png")
    picture.save(folder / "f.gif", save_all=True, append_images=[picture.rotate(90)])
    return ["predict", f"--checkpoint={FINISHED['workdir']}", str(folder)]


def _whole(run):
    """Leaves a run as it is."""


LABELLED = [
    Input("kinds of pictures", _kinds, Runs("(?s)a.jpg .*b.png .*c.tif .*d.jpg .*e.png .*f.gif ")),
    Input(
        "an empty list", _predict(_whole, "-"), Refused("the list on standard input is empty; give one image a line")
    ),
    Input("blank lines", _predict(_whole, "-"), Refused("the list on standard input is empty"), stdin="\n  \n\r\n"),
    Input(
        "a list of Windows'",
        _predict(_whole, "-"),
        Runs("image_0001.jpg +(cat|dog)"),
        stdin="\ufeff{one}\r\n\r\n{two}\r\n",
    ),
    Input(
        "a list with a missing file",
        _predict(_whole, "-"),
        Refused("nowhere.jpg: no such image.*\nerror: 1 of 2 images could not"),
        stdin="{one}\nnowhere.jpg\n",
    ),
    Input(
        "a missing photograph to label",
        _predict(_whole, "nowhere.jpg"),
        Refused("nowhere.jpg: no such image; check the path\nerror: 1 of 1"),
    ),
    Input(
        "text to label",
        _predict(_whole, str(REPOSITORY / "setup.cfg")),
        Refused("setup.cfg: not a readable image .*\nerror: 1 of 1 images could"),
    ),
    Input(
        "a folder without photographs",
        _predict(_whole, str(REPOSITORY / "launch")),
        Refused("launch: no image in this folder; add some"),
    ),
    Input(
        "none at all",
        lambda root: ["predict", f"--checkpoint={FINISHED['workdir']}"],
        Refused("a checkpoint and at least one image are needed"),
    ),
    Input(
        "no run",
        lambda root: ["predict", f"--checkpoint={root}/nowhere", "a.jpg"],
        Refused("nowhere holds no checkpoints"),
    ),
    Input(
        "a run at a URL",
        lambda root: ["predict", "--checkpoint=gs://runs/a", "a.jpg"],
        Refused("--checkpoint=gs://runs/a: a URL, and"),
    ),
    Input("of no classes", _predict(_whole, "--top=0", "a.jpg"), Refused("--top=0 must be at least 1")),
    Input(
        "of more classes than there are",
        _predict(_whole, "--top=9", str(REPOSITORY / "nowhere.jpg")),
        Refused("no such image; check the path\nerror: 1 of 1 images could"),
    ),
    Input(
        "with a model that is not there",
        _predict(_whole, "--model=/nowhere", "a.jpg"),
        Refused("'/nowhere' could not be loaded"),
    ),
]


# Arrays, as a script of somebody's gives them


def _arrays(images=None, labels=(0, 1) * 4, names=("cat", "dog"), shots=1):
    images = np.zeros((8, 4, 4, 3), np.uint8) if images is None else images
    pool = craft_jax.from_arrays(images, labels, names)
    _stand_in(None, craft_jax.draw_shots(pool, shots, seed=1))


def _script(**given):
    return lambda root: ["script", lambda: _arrays(**given)]


ARRAYS = [
    Input("arrays", _script(), Read("cat, dog; 2 to train on")),
    Input("labels of one column", _script(labels=np.array([[0], [1]] * 4)), Read("cat, dog; 2 to train on")),
    Input("names of bytes", _script(names=(b"cat", b"dog")), Read("cat, dog; 2 to train on")),
    Input(
        "floats from 0 to 1",
        _script(images=np.zeros((8, 4, 4, 3))),
        Refused("it must be uint8.height, width, 3., from 0"),
    ),
    Input(
        "channels first",
        _script(images=np.zeros((8, 3, 4, 4), np.uint8)),
        Refused("it must be uint8.height, width, 3."),
    ),
    Input("labels of text", _script(labels=["cat", "dog"] * 4), Refused("label")),
    Input("labels from 1", _script(labels=[1, 2] * 4), Refused("label")),
    Input("labels that lack", _script(labels=[0, 1]), Refused("label")),
    Input("labels with a part", _script(labels=[0.5, 1] * 4), Refused("label")),
    Input(
        "labels of NaN", _script(labels=[float("nan"), 1] * 4), Refused("label nan, and class_names has 2; give one")
    ),
    Input("negative labels", _script(labels=[-1, 1] * 4), Refused("label")),
    Input(
        "names that are a set",
        _script(names={"cat", "dog"}),
        Refused("class_names is of type .*; it must list the names"),
    ),
    Input("one name", _script(names=("cat",), labels=[0] * 8), Refused("class")),
    Input("no shots", _script(shots=0), Refused("data.shots=0 must be at least 1")),
    Input("no image", _script(images=np.zeros((0, 4, 4, 3), np.uint8), labels=[]), Refused("image|photograph")),
]


# Settings and flags


def _demo(*more):
    return lambda root: ["tune", "--config=demo:by-class", "--config.query_budget=41", *more]


def _settings_file(text):
    def make(root):
        (root / "mine.py").write_text(text)
        return ["tune", f"--config={root}/mine.py"]

    return make


FLAGS = [
    Input("no flag", lambda root: ["tune"], Refused("--config is missing, .* try --config=demo")),
    Input(
        "no such packaged settings",
        lambda root: ["tune", "--config=dema"],
        Refused("'dema'; did you mean demo[?] there are aircraft"),
    ),
    Input(
        "no such file",
        lambda root: ["tune", "--config=configs/dema.py"],
        Refused("--config could not be loaded: .*dema.py"),
    ),
    Input("no such recipe", lambda root: ["tune", "--config=demo:papr"], Refused("papr")),
    Input("an unknown flag", _demo("--verbose"), Refused("[Uu]nknown .*flag .*verbose")),
    Input(
        "a setting without config",
        _demo("--shots=4"),
        Refused("unknown flag --shots; settings are given as --config.data.shots"),
    ),
    Input("a misspelt setting", _demo("--config.data.shot=4"), Refused("shot.*did you mean .*shots")),
    Input(
        "a word too many", _demo("photos"), Refused("unexpected argument 'photos'; settings are given as --config.NAME")
    ),
    Input("shots that are text", _demo("--config.data.shots=four"), Refused("data.shots=four must be a whole number")),
    Input("shots that are a fraction", _demo("--config.data.shots=2.5"), Refused("shots.* must be a whole number")),
    Input("no shots at all", _demo("--config.data.shots=0"), Refused("data.shots=0 must be at least 1")),
    Input("negative views", _demo("--config.data.views=-1"), Refused("data.views=-1 must be at least 0")),
    Input("a budget of nothing", _demo("--config.query_budget=-5"), Refused("query_budget=-5 must be")),
    Input(
        "a budget below a step",
        _demo("--config.query_budget=5"),
        Refused("query_budget=5 does not pay for one step .*raise"),
    ),
    Input(
        "a budget without end",
        _demo("--config.query_budget=99999999999999999999"),
        Refused("query_budget=9+ .*(too large|at most)"),
    ),
    Input("a sigma that is no number", _demo("--config.search.sigma=nan"), Refused("search.sigma=nan must be")),
    Input("a sigma of infinity", _demo("--config.search.sigma=inf"), Refused("search.sigma=inf must be")),
    Input(
        "an estimator that is none",
        _demo("--config.search.estimator=adam"),
        Refused("search.estimator='?adam'? must be one of"),
    ),
    Input("a seed below nothing", _demo("--config.seed=-1"), Refused("seed=-1 must lie between 0 and")),
    Input(
        "a flag that is no truth",
        _demo("--config.search.guarded=maybe"),
        Refused("search.guarded=maybe must be true or false"),
    ),
    Input("more devices than there are", _demo("--config.run.devices=64"), Refused("run.devices=64")),
    Input("an unknown source", _demo("--config.data.source=zip"), Refused("data.source='?zip'? must be one of")),
    Input(
        "TFDS without a name", _demo("--config.data.source=tfds"), Refused("data.tfds is empty; name the TFDS data set")
    ),
    Input("a file without get_config", _settings_file("x = 1\n"), Refused("mine.py has no function get_config; see")),
    Input(
        "a file of a mistake",
        _settings_file("def get_config():\n    return 1 / 0\n"),
        Refused("mine.py:2: ZeroDivisionError: division"),
    ),
    Input("a file of half a line", _settings_file("def get_config(:\n"), Refused("mine.py:1: SyntaxError")),
    Input(
        "a file that returns a dict",
        _settings_file("def get_config():\n    return {}\n"),
        Refused("get_config returns|mine.py"),
    ),
    Input(
        "a bucket",
        _demo("--workdir=gs://bucket/run"),
        Refused("--workdir=gs://bucket/run: a URL, and runs are written to"),
    ),
    Input(
        "nobody's home", _demo("--workdir=~nobody-here/run"), Refused("--workdir=~nobody-here/run: no such home folder")
    ),
    Input(
        "a file as workdir",
        lambda root: ["tune", "--config=demo", f"--workdir={_image(root / 'a.png', 0)}"],
        Refused("a.png: .*(cannot write|not a folder)"),
    ),
    Input(
        "a workdir in a file",
        lambda root: ["tune", "--config=demo", f"--workdir={_image(root / 'a.png', 0)}/run"],
        Refused("a.png/run: cannot write into"),
    ),
    Input(
        "a workdir in the kernel's",
        _demo("--workdir=/proc/run"),
        Refused("--workdir=/proc/run: cannot write into /proc"),
    ),
    Input("hosts without a count", _demo("--coordinator=localhost:1"), Refused("--process_count .* is missing")),
    Input("help", lambda root: ["tune", "--help"], Runs("usage: python -m craft_jax.main")),
]


# Sweeps


def _sweep(*more):
    return lambda root: ["sweep", f"--workdir={root}/sweep", "--shots=1", "--seeds=1", *more]


SWEEPS = [
    Input("no settings", _sweep(), Refused("--config is missing; try --config=demo")),
    Input(
        "shots of words", _sweep("--config=demo", "--shots=one"), Refused("--shots=one must be whole numbers joined by")
    ),
    Input(
        "a seed twice", _sweep("--config=demo", "--seeds=1,1"), Refused("--seeds=1,1 names a number twice; drop one")
    ),
    Input("a share too many", _sweep("--config=demo", "--array=3/2"), Refused("--array=3/2 must be I/N, such as 3/15")),
    Input(
        "a protocol that is none",
        _sweep("--config=demo", "--protocol=all"),
        Refused("--protocol=all must be one of few_shot"),
    ),
    Input(
        "no targets", _sweep("--config=demo:unified", "--protocol=cross"), Refused("--protocol=cross needs --targets")
    ),
    Input(
        "a prompt a class elsewhere",
        _sweep("--config=demo", "--protocol=base_to_new"),
        Refused("use the variant unified"),
    ),
    Input(
        "shifts of another set",
        _sweep("--config=demo", "--protocol=shift"),
        Refused("--protocol=shift needs data.source=imagenet"),
    ),
    Input(
        "the same settings twice", _sweep("--config=demo,demo"), Refused("two settings files are called demo; rename")
    ),
    Input(
        "shots as a setting",
        _sweep("--config=demo", "--config.data.shots=4"),
        Refused("--config.data.shots is the sweep's own: use"),
    ),
    Input(
        "a set that is not there",
        _sweep("--config=folder", "--config.data.root=/nowhere"),
        Refused("/nowhere: no such folder"),
    ),
    Input("no processes", _sweep("--config=demo", "--parallel=0"), Refused("parallel")),
]


# The environment, each in a process of its own


def _process(make, shell="{}", **environment):
    """A command of `make` in a shell, which the environment and `shell` are for."""

    def line(root):
        module, *arguments = make(root)
        given = shlex.join([sys.executable, "-m", f"craft_jax.{ {'tune': 'main'}.get(module, module) }", *arguments])
        return ["process", environment, shell.format(given)]

    return line


def _small(root):
    return ["tune", *FINISHED["settings"], f"--workdir={root}/run"]


def _named_in_french(root):
    return ["predict", f"--checkpoint={FINISHED['workdir']}", str(_image(root / "\u00e9t\u00e9.png", 1))]


ENVIRONMENTS = [
    Input(
        "no GPU", _process(_small, JAX_PLATFORMS="cuda"), Refused("JAX_PLATFORMS=cuda: JAX finds no such device here")
    ),
    Input(
        "a platform that is none",
        _process(_small, JAX_PLATFORMS="gpus"),
        Refused("JAX_PLATFORMS=gpus: JAX finds no such"),
    ),
    Input("no cache", _process(_named_in_french, XDG_CACHE_HOME="/proc/none"), Runs(".png +(cat|dog)")),
    Input("no way to draw", _process(_small, MPLBACKEND="none"), Runs("deployed:")),
    Input("64 bits", _process(_named_in_french, JAX_ENABLE_X64="1"), Runs(".png +(cat|dog)")),
    Input(
        "a terminal of ASCII", _process(_named_in_french, PYTHONIOENCODING="ascii"), Runs(r"\\xe9t\\xe9.png +(cat|dog)")
    ),
    Input(
        "a reader that leaves",
        _process(lambda root: ["tune", "--help"], "{} | head -1"),
        Runs("usage: python -m craft_jax.main"),
    ),
    Input(
        "a folder that is gone",
        _process(lambda root: _tune(_tree(root)), "mkdir {0}; cd {0}; rmdir {0}; {{}}".format("$TMPDIR/$$-gone")),
        Refused("the folder that you are in is gone; change to another"),
    ),
]


# All of them


@pytest.fixture(scope="module", autouse=True)
def _finished(tmp_path_factory):
    """A short run, with two checkpoints, that rows may damage."""
    root = tmp_path_factory.mktemp("finished")
    _tree(root / "photographs")
    each = [f"--config.run.{name}=1" for name in ("steps_per_call", "eval_every", "checkpoint_every")]
    settings = [*SETTINGS, f"--config.data.root={root / 'photographs'}", "--config.search.population_size=8", *each]
    main.main(["tune", *settings, f"--workdir={root / 'run'}"])
    FINISHED.update(workdir=root / "run", settings=settings)


def _stand_in(black_box, dataset, *_, **__):
    """In the place of training: says what was read."""
    names = ", ".join(dataset.class_names)
    counts = (len(dataset.train), len(dataset.val), len(dataset.test))
    print("{}; {} to train on, {} to choose by, {} to test".format(names, *counts))
    sys.exit(0)


def _script_main(argv):
    argv[1]()


def _in_a_shell(line, environment):
    path = {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(line, shell=True, env={**os.environ, **path, **environment}, timeout=300).returncode


def _given(argv, stdin):
    command, *arguments = argv
    if command == "process":
        environment, line = arguments
        return lambda argv: sys.exit(_in_a_shell(line, environment)), argv
    run = {**COMMANDS, "script": _script_main}[command]
    return (lambda argv: run(argv, io.StringIO(stdin))) if command == "predict" else run, [command, *arguments]


ALL = [
    *FOLDERS,
    *LISTS,
    *SPLIT_FILES,
    *OTHER_LISTS,
    *MODELS,
    *STATES,
    *LABELLED,
    *ARRAYS,
    *FLAGS,
    *SWEEPS,
    *ENVIRONMENTS,
]


@pytest.mark.parametrize("given", ALL, ids=lambda given: given.name)
def test_an_input_is_read_rightly_or_refused_in_one_line(given, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "in").mkdir()
    argv = given.make(tmp_path / "in")
    if argv[0] == "tune" and not any(flag.startswith("--workdir") for flag in argv):
        argv.append(f"--workdir={tmp_path / 'run'}")
    if isinstance(given.expected, Read):
        monkeypatch.setattr(training, "train", _stand_in)
    one, two = (_image(tmp_path / "given" / f"image_000{i}.jpg", i, format="JPEG") for i in (1, 2))
    before = set(tmp_path.rglob("*"))
    capfd.readouterr()
    run, argv = _given(argv, given.stdin.replace("{one}", str(one)).replace("{two}", str(two)))
    status = 0
    try:
        cli.exit_on_user_error(run, argv)
    except SystemExit as end:
        status = end.code or 0
    said = capfd.readouterr()

    assert "Traceback" not in said.out + said.err
    if isinstance(given.expected, Refused):
        assert status == 2, said
        assert re.search(given.expected.line, said.err), said.err
        assert len([line for line in said.err.splitlines() if line.startswith("error: ")]) == 1, said.err
        assert len(said.err.splitlines()) == 1 + given.expected.line.count("\n"), said.err
        assert not {path for path in set(tmp_path.rglob("*")) - before if "run" not in path.parts[-2:-1]}
    else:
        assert status == 0, said
        assert re.search(given.expected.shown, said.out), said
