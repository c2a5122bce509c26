"""Sources of photographs: what each reads, and what it says of bad input."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import craft_jax
from craft_jax import data
from craft_jax.config import Config, DataConfig, ProbeConfig, PromptConfig, RefinementConfig, RunConfig, SearchConfig
from craft_jax.data import arrays, fewshot
from craft_jax.data.readers import fgvc, imagenet
from craft_jax.errors import UserError
from tests import miniatures
from tests.conftest import BUNDLED


def _names(items):
    return [Path(item.image.name).name for item in items]


# Draws


def test_the_shots_of_the_bundled_set_are_the_ones_that_coops_rule_draws():
    """CoOp's rule, by itself: seed Python's generator, then sample each class's rows in order of first appearance."""
    rows = json.loads((BUNDLED / "split_caltech24_64px.json").read_text())["train"]
    by_label = {}
    for path, label, _ in rows:
        by_label.setdefault(label, []).append(path)
    random.seed(3)
    expected = [path for paths in by_label.values() for path in random.sample(paths, 2)]
    drawn = data.load(DataConfig(shots=2), seed=3).train

    assert [item.image.member for item in drawn] == expected
    assert expected[:4] == [
        "pizza/image_0046.jpg",
        "pizza/image_0006.jpg",
        "Motorbikes/image_0731.jpg",
        "Motorbikes/image_0503.jpg",
    ]


def test_base_and_new_classes_are_the_halves_by_label_of_the_same_draw():
    whole, base, new = (data.load(DataConfig(shots=2, classes=classes), seed=1) for classes in ("all", "base", "new"))

    assert base.class_names + new.class_names == whole.class_names
    assert len(base.class_names) == 12
    assert _names(base.train + new.train) == _names(whole.train)
    assert [item.label + 12 for item in new.test] == [item.label for item in whole.test if item.label >= 12]
    assert base.split.endswith(", base classes")


def test_the_odd_class_is_a_base_class(small_set):
    assert fewshot.half(small_set, "base").class_names == ("pizza", "grand piano")
    assert fewshot.half(small_set, "new").class_names == ("sunflower",)


def test_a_class_that_a_split_only_tests_has_no_training_photograph(tmp_path):
    miniatures.make(tmp_path, "pets")
    split = tmp_path / "oxford_pets" / "split_zhou_OxfordPets.json"
    rows = json.loads(split.read_text())
    split.write_text(json.dumps({**rows, "train": [row for row in rows["train"] if row[2] != "boxer"]}))
    config = DataConfig(root=str(tmp_path), images="oxford_pets/images", split="oxford_pets/" + split.name, shots=2)

    with pytest.raises(UserError, match="class 'boxer' has no training photograph; add some or drop it"):
        data.load(config, seed=1)


# FGVC


@pytest.fixture
def aircraft(tmp_path):
    miniatures.make(tmp_path, "aircraft")
    return tmp_path / "fgvc_aircraft"


def test_fgvc_is_read_by_its_own_lists(aircraft):
    read = fgvc.load(aircraft / "images", aircraft)

    assert read.class_names == miniatures.VARIANTS
    assert [len(part) for part in (read.train, read.val, read.test)] == [18, 6, 12]
    assert read.train[6].label == 1


def test_an_fgvc_variant_may_hold_spaces_and_slashes(aircraft):
    for path in aircraft.glob("*.txt"):
        path.write_text(path.read_text().replace("CRJ", "F/A-18 Hornet"))

    assert fgvc.load(aircraft / "images", aircraft).class_names[1] == "F/A-18 Hornet"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "variants.txt",
            lambda text: text.replace("CRJ\n", ""),
            "is of variant 'CRJ', which variants.txt does not list",
        ),
        ("variants.txt", lambda text: text + "ATR\n", "labels 0 and 3 are both called 'ATR'"),
        ("images_variant_val.txt", lambda text: "", "images_variant_val.txt: the list is empty"),
        ("images_variant_test.txt", lambda text: text + "9999999 ATR\n", "9999999.jpg, which does not exist"),
    ],
)
def test_a_bad_fgvc_list_is_named(aircraft, file, change, message):
    (aircraft / file).write_text(change((aircraft / file).read_text()))

    with pytest.raises(UserError, match=message):
        fgvc.load(aircraft / "images", aircraft)


def test_an_fgvc_list_in_another_encoding_says_that_it_must_be_utf_8(aircraft):
    (aircraft / "variants.txt").write_bytes("Épervier\n".encode("latin-1"))

    with pytest.raises(UserError, match=r"variants.txt: the list must be UTF-8 text; save it as such"):
        fgvc.load(aircraft / "images", aircraft)


def test_a_missing_fgvc_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"variants.txt: no such list; check data.root and data.split"):
        fgvc.load(tmp_path, tmp_path)


# ImageNet


@pytest.fixture
def imagenet_root(tmp_path):
    miniatures.make(tmp_path, "imagenet")
    miniatures.make_shifts(tmp_path)
    return tmp_path


def _imagenet_paths(root):
    return root / "imagenet" / "images", root / "imagenet" / "classnames.txt"


def test_imagenet_is_tested_on_its_validation_images(imagenet_root):
    read = imagenet.load(*_imagenet_paths(imagenet_root))

    assert read.class_names == ("tench", "hen", "missile")
    assert [len(part) for part in (read.train, read.val, read.test)] == [18, 0, 12]
    assert {item.image.path.parent.parent.name for item in read.test} == {"val"}


def test_two_classes_of_imagenet_may_have_the_same_name(imagenet_root):
    names = imagenet_root / "imagenet" / "classnames.txt"
    names.write_text(names.read_text().replace("hen", "missile"))

    assert imagenet.load(*_imagenet_paths(imagenet_root)).class_names == ("tench", "missile", "missile")


@pytest.mark.parametrize(
    ("shift", "labels"), [("imagenetv2", {0, 1, 2}), ("imagenet-sketch", {0, 1, 2}), ("imagenet-a", {1, 2})]
)
def test_a_shifted_imagenet_has_imagenets_labels(imagenet_root, shift, labels):
    items = imagenet.load_shift(imagenet_root / imagenet.SHIFTS[shift], *_imagenet_paths(imagenet_root))

    assert {item.label for item in items} == labels
    assert len(items) == 2 * len(labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, names: names.unlink(), "classnames.txt: no such file of class names; put CoOp's"),
        (lambda images, names: names.write_text("n01440764 tench\n"), "no class name for .*n01514668; add a line"),
        (
            lambda images, names: names.write_bytes(b"n01440764 caf\xe9\n"),
            "classnames.txt: .* must be UTF-8 text; save",
        ),
        (lambda images, names: names.write_text("n01440764\n"), "no class name for n01440764"),
        (lambda images, names: (images / "val" / "n9").mkdir(), "val/n9: this class is not in .*train; add its"),
        (lambda images, names: (images / "train").rename(images / "x"), "train: no such folder; lay the images out"),
    ],
)
def test_a_bad_imagenet_layout_is_named(imagenet_root, change, message):
    images, names = _imagenet_paths(imagenet_root)
    change(images, names)

    with pytest.raises(UserError, match=message):
        imagenet.load(images, names)


def test_a_folder_of_a_shifted_imagenet_that_is_no_class_is_named(imagenet_root):
    shift = imagenet_root / imagenet.SHIFTS["imagenet-r"]
    (shift / "n00000000").mkdir()

    with pytest.raises(UserError, match="imagenet-r/n00000000: classnames.txt lists no such class; remove the folder"):
        imagenet.load_shift(shift, *_imagenet_paths(imagenet_root))


# Arrays


def _images(count, size=(40, 32, 3)):
    return np.random.default_rng(0).integers(0, 256, (count, *size), np.uint8)


@pytest.mark.slow
def test_arrays_train_and_their_tuned_model_evaluates(tmp_path):
    names = ("pizza", "sunflower", "grand piano")
    pool = craft_jax.from_arrays(_images(12), [0, 1, 2] * 4, names, test_images=_images(12), test_labels=[0, 1, 2] * 4)
    few = craft_jax.draw_shots(pool, 3, seed=1)
    black_box = craft_jax.load_black_box("bundled", names)
    config = Config(
        query_budget=8,
        data=DataConfig(shots=3, views=1),
        prompt=PromptConfig(std=0.01),
        probe=ProbeConfig(texts=0),
        search=SearchConfig(estimator="antithetic", sigma=1.0, population_size=8),
        refinement=RefinementConfig(hidden=8),
        run=RunConfig(devices=1, reuse_features=False),
    )
    tuned, result = craft_jax.train(black_box, few, config, tmp_path / "run")

    assert (result.split, result.train_images, result.test_images) == ("arrays", 9, 12)
    assert craft_jax.evaluate(tuned, black_box, few.test).deployed == result.accuracy


def test_arrays_may_bring_their_own_test_images_of_any_size_and_in_grey():
    own = craft_jax.from_arrays(
        [np.zeros((8, 9), np.uint8), np.ones((30, 20, 3), np.uint8)],
        np.array([0, 1]),
        ("cat", "dog"),
        test_images=_images(2),
        test_labels=[1, 0],
    )

    assert [item.label for item in own.test] == [1, 0]
    assert own.train[0].image.open().size == (9, 8)
    assert own.train[0].image.open().mode == "RGB"
    assert own.train[0].image.fingerprint() != own.train[1].image.fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_images(3), [0, 1], "images: 3 images and 2 labels; give one label an image"),
        (_images(2), [0, 2], r"images\[1\] has label 2, and class_names has 2; labels count from 0"),
        (_images(2) / 255, [0, 1], r"images\[0\] is float64\[40, 32, 3\]; it must be uint8"),
        (_images(2, (40, 32, 4)), [0, 1], r"images\[0\] is uint8\[40, 32, 4\]"),
        (_images(2), ["cat", "dog"], r"images\[0\] has label 'cat', and class_names has 2"),
        ([], [], "images: no image"),
        (_images(2), [0, 0], "images: none of class 'dog'; add some, or take the name out of class_names"),
    ],
)
def test_arrays_that_do_not_match_are_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        arrays.from_arrays(images, labels, ("cat", "dog"))


def test_test_images_without_labels_are_refused():
    with pytest.raises(UserError, match="test_images and test_labels belong together"):
        arrays.from_arrays(_images(2), [0, 1], ("cat", "dog"), test_images=_images(1))
