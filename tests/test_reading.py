"""Photographs as people keep them: what a set's reader takes, refuses, or passes over with a word."""

import dataclasses
import errno
import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data.readers import imagenet
from craft_jax.errors import UserError
from tests import miniatures


def _image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def _tree(root, parts=("",), classes=("cat", "dog"), each=4):
    """A folder a class in each part, every photograph another."""
    seed = 0
    for part in parts:
        for name in classes:
            for i in range(each):
                seed += 1
                _image(root / part / name / f"{i}.png", seed)
    return root


def _read(root, **settings):
    return data.read(DataConfig(source="folder", root=str(root), **settings))


def _list(root, text, name="list.csv"):
    (root / name).write_text(text)
    return data.read(DataConfig(source="csv", root=str(root), split=name))


def _coop(root, content):
    (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return data.read(DataConfig(source="coop", root=str(root), split="split.json"))


def _used(read):
    return [item.image.path for part in (read.train, read.val, read.test) for item in part]


# Parts


@pytest.mark.parametrize(
    "parts",
    [("Train", "Test"), ("TRAIN", "TEST"), ("Training", "Testing"), ("train_set", "test_set"), ("trainset", "Eval")],
)
def test_the_folders_of_a_split_go_by_their_usual_names_in_any_case(tmp_path, parts):
    read = _read(_tree(tmp_path, parts))

    assert read.class_names == ("cat", "dog")
    assert {path.relative_to(tmp_path).parts[0] for path in _used(read)} == set(parts)
    assert {item.image.path.parent.parent.name for item in read.test} == {parts[1]}


@pytest.mark.parametrize("validation", ["Val", "VALID", "dev", "Validation", "validation_set"])
def test_the_validation_folder_goes_by_its_usual_names_in_any_case(tmp_path, validation):
    assert len(_read(_tree(tmp_path, ("Training", "Test", validation))).val) == 8


@pytest.mark.parametrize(
    "parts",
    [("Train", "Val"), ("Train", "Test", "Testing"), ("Train", "Training", "Test"), ("Training", "Test", "more")],
)
def test_parts_that_are_no_whole_split_are_one_line_in_any_case(tmp_path, parts):
    with pytest.raises(UserError, match="a split has train and test"):
        _read(_tree(tmp_path, parts))


def test_train_and_test_without_classes_in_them_are_one_line(tmp_path):
    with pytest.raises(UserError, match="train and test must each hold a sub-folder"):
        _read(_tree(tmp_path, classes=("Train", "Test")))


@pytest.mark.parametrize(
    "parts", [("seg_train", "seg_test"), ("train2017", "test2017"), ("Train", "Test 1"), ("photos-trn", "photos-tst")]
)
def test_a_part_may_be_one_word_of_its_folders_name_where_the_classes_are_the_same(tmp_path, parts):
    read = _read(_tree(tmp_path, parts))

    assert read.class_names == ("cat", "dog")
    assert [
        {path.parts[-3] for path in _used(dataclasses.replace(read, **{other: ()}))} for other in ("test", "train")
    ] == [
        {parts[0]},
        {parts[1]},
    ]


def test_a_train_station_and_a_test_tube_are_classes(tmp_path):
    _tree(tmp_path, ("train_station",), ("east", "west"))
    _tree(tmp_path, ("test_tube",), ("full",))

    assert _read(tmp_path).class_names == ("test tube", "train station")


def test_classes_one_folder_further_down_are_one_line_that_says_where(tmp_path):
    with pytest.raises(
        UserError, match=r"one sub-folder only, data, with Test, Train in it; set data\.root to .*/data$"
    ):
        _read(_tree(tmp_path, ("data/Train", "data/Test")))


def test_classes_within_classes_are_told_to_be_none(tmp_path):
    (note,) = _read(_tree(tmp_path, ("animals", "cars"))).notes

    assert note.endswith(
        "folders within a class are not taken as classes, as in 'animals' (cat, dog); where they are, move them up"
    )


@pytest.mark.parametrize("name", ["train", "Training", "Train", "Dev"])
def test_a_class_may_be_called_as_a_part_is(tmp_path, name):
    assert set(_read(_tree(tmp_path, classes=("car", "plane", name))).class_names) == {"car", "plane", name}


def test_train_and_test_within_each_class_are_told_to_be_no_split(tmp_path):
    (note,) = _read(_tree(tmp_path, ("cat", "dog"), ("train", "test"))).notes

    assert "folders train and test within a class, as in 'cat', are not taken as the split" in note


# Lists


@pytest.fixture
def listed(tmp_path):
    for i, name in enumerate("abcdefgh"):
        _image(tmp_path / f"{name}.png", i)
    return tmp_path


_SPLIT = "a.png,cat,{0}\nb.png,cat,{1}\nc.png,dog,{0}\nd.png,dog,{1}\n"


@pytest.mark.parametrize("header", ["path,label,Split", "path,label,split ", " Path,LABEL, SPLIT"])
@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "TEST"), ("training", "testing")])
def test_headers_and_parts_are_read_in_any_case_and_without_blanks(listed, header, parts):
    read = _list(listed, f"{header}\n{_SPLIT.format(*parts)}")

    assert [path.name for path in _used(read)] == ["a.png", "c.png", "b.png", "d.png"]
    assert read.split == "splits of list.csv"
    assert read.notes == ()


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_part_cells_too(listed, mark):
    text = f"path,label,split\n{_SPLIT.format('train', 'test')}".replace(",", mark)

    assert _list(listed, text).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "text",
    [
        "\npath,label,split\n{}",
        "sep=,\npath,label,split\n{}",
        "path,label,split\n{}\n,,\n   \n",
        "path,label,split\r{}",
    ],
)
def test_lines_that_say_nothing_are_passed_over(listed, text):
    read = _list(listed, text.format(_SPLIT.format("train", "test")))

    assert (read.class_names, len(read.train), len(read.test)) == (("cat", "dog"), 2, 2)


def test_a_column_that_is_not_used_may_have_cells_of_several_lines(listed):
    rows = 'a.png,cat,"one,\ntwo"\nb.png,cat,x\nc.png,dog,y\nd.png,dog,z\n'

    assert len(_used(_list(listed, f"path,label,caption\n{rows}"))) == 4


def test_a_list_whose_name_is_not_utf_8_gives_a_label_that_is(listed):
    name = os.fsdecode(b"l\xe9.csv")
    read = _list(listed, f"path,label,split,by\n{_SPLIT.format('train,', 'test,')}", name)
    automatic = _list(listed, "path,label\na.png,cat\nb.png,cat\nc.png,dog\nd.png,dog\n", name)

    assert read.split == r"splits of l\xe9.csv"
    assert "\n".join([*read.notes, automatic.split]).encode()


def test_columns_that_are_not_used_are_named_in_a_note(listed):
    read = _list(listed, "path,label,Splits,,by\na.png,cat,x,0,me\nb.png,cat,x,1,\nc.png,dog,x,2,\nd.png,dog,x,3,me\n")

    assert read.notes[0] == "columns of list.csv that are not used: splits, one without a name, by"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,cat, black\nb.png,dog\n", "line 2: 3 cells, and the first line has 2"),
        ("path,label,split\na.png,cat,train\nb.png,dog\n", "line 3: 2 cells, and the first line has 3"),
        ("path,label,label\na.png,cat,dog\n", "2 columns are called 'label'; keep one"),
        ("path,label,Label \na.png,cat,dog\n", "2 columns are called 'label'; keep one"),
        ("path,label,split,Split\na.png,cat,train,test\n", "2 columns are called 'split'; keep one"),
        ('path,label\na.png,"cat\nb.png,dog\nc.png,cat"\n', "line 2: a cell goes over several lines; close its quote"),
        ('path,label\na.png,"cat\nb.png,dog\n', "not a readable CSV file .*look for a quote that is not closed"),
        ('path,label,by\na.png,cat,"me\nb.png,dog,x"\n', "line 2: a cell goes over several lines; close its quote"),
        (f"path,label\n{'a' * 5000},cat\nb.png,dog\n", "line 2: .* does not exist; check the path"),
        ('path,label\na.png,"cat"s\nb.png,dog\n', "line 2: not a readable CSV file"),
        ("path,label\na.png,Cat\nb.png,cat\nc.png,dog\n", "'Cat' and 'cat', which a prompt cannot tell apart"),
        ("path,label\na.png,cat\nb.png,dog\n./a.png,cat\n", r"line 4: \./a.png stands in line 2 already; drop one"),
        ("path,label\na.png,cat\nb.png,dog\nlink.png,cat\n", "a.png and .*link.png are one photograph; keep one"),
    ],
)
def test_a_list_that_would_be_misread_is_one_line(listed, text, message):
    (listed / "link.png").symlink_to(listed / "a.png")

    with pytest.raises(UserError, match=rf"list\.csv.*{message}") as error:
        _list(listed, text)
    assert "\n" not in str(error.value)


def test_empty_cells_at_the_end_of_a_line_are_no_cells(listed):
    assert _list(listed, "path,label\na.png,cat,\nb.png,cat,\nc.png,dog,\n").class_names == ("cat", "dog")


# CoOp's split files


def _rows(name="dog", label=1, path="b.png"):
    return {
        "train": [["a.png", 0, "cat"], [path, label, name]],
        "val": [],
        "test": [["c.png", 0, "cat"], ["d.png", 1, "dog"]],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_rows(name=None), "class name None of b.png is no text"),
        (_rows(path=None), "image path None is no text"),
        (_rows(label=None), "label None of b.png is no whole number"),
        (_rows(label=True), "label True of b.png is no whole number"),
        (_rows(label=1.0), "label 1.0 of b.png is no whole number"),
        (_rows(label="1"), "label '1' of b.png is no whole number"),
        ({**_rows(), "train": None}, "not in CoOp's form"),
        ("null", "not in CoOp's form"),
        ({**_rows(), "train": [None]}, "not in CoOp's form"),
        ('{"train": [], "train": []}', "a key stands twice"),
        ("[" * 100_000, "not a readable split file"),
        (_rows(path="b" * 5000), "which does not exist; check data.images"),
        (
            _rows(path="a.png"),
            "a.png in train is of label 1, and .*a.png, the same photograph, of label 0; give it one",
        ),
        (_rows(name=""), "the class name of label 1 is empty|is called"),
        (json.loads(json.dumps(_rows(name="CAT")).replace('"dog"', '"CAT"')), "'cat' and 'CAT', which a prompt cannot"),
        (_rows(path="./c.png"), "c.png stands in train and again in test; keep it in one"),
    ],
)
def test_a_split_file_that_would_be_misread_is_one_line(listed, content, message):
    with pytest.raises(UserError, match=message) as error:
        _coop(listed, content)
    assert "\n" not in str(error.value)


def test_a_photograph_that_stands_twice_in_one_part_is_told_in_a_note(listed):
    content = _rows()
    content["train"] += [["./a.png", 0, "cat"], ["a.png", 0, "cat"]]
    (note,) = _coop(listed, content).notes

    assert note.startswith("1 photograph stands more than once in one part, such as ")


def test_a_split_file_whose_name_is_not_utf_8_gives_a_label_that_is(listed):
    name = os.fsdecode(b"s\xe9.json")
    (listed / name).write_text(json.dumps(_rows()))

    assert data.read(DataConfig(source="coop", root=str(listed), split=name)).split == r"s\xe9"


# FGVC-Aircraft's lists


def _fgvc(root, variant, train):
    for i, name in enumerate("abcd"):
        _image(root / f"{name}.jpg", i)
    lists = {"variants": f"{variant}\nF-16\n", "images_variant_train": train}
    lists |= {"images_variant_val": "c F-16\n", "images_variant_test": "d F-16\n"}
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    return data.read(DataConfig(source="fgvc", root=str(root), split="."))


@pytest.mark.parametrize("line", ["a\tCaf\u00e9 1", "a Cafe\u0301 1", "a  Caf\u00e9  1"])
def test_a_variant_matches_whichever_way_its_accents_and_blanks_are_written(tmp_path, line):
    assert [item.label for item in _fgvc(tmp_path, "Caf\u00e9 1", f"{line}\nb F-16\n").train] == [0, 1]


def test_an_image_of_two_variants_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"a\.jpg in train is of label 1, and .*a\.jpg, the same photograph, of label 0"
    ):
        _fgvc(tmp_path, "Caf\u00e9", "a Caf\u00e9\na F-16\nb F-16\n")


# Names


_TOKENIZER = Tokenizer.from_file(str(miniatures.ASSETS / "tiny_clip" / "tokenizer.json"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("t-shirt", "t - shirt"), ("boeing 747", "Boeing747"), ("737", "7 37"), ("cat's eye", "cat 's eye")],
)
def test_names_of_the_same_tokens_are_one_line(one, other):
    assert _TOKENIZER.encode(one).ids == _TOKENIZER.encode(other).ids
    with pytest.raises(UserError, match="which a prompt cannot tell apart"):
        _arrays((one, other))


@pytest.mark.parametrize(
    ("one", "other"), [("seahorse", "sea horse"), ("cat's", "cats"), ("t-shirt", "t shirt"), ("737-200", "737-300")]
)
def test_names_of_other_tokens_are_two_classes(one, other):
    assert _TOKENIZER.encode(one).ids != _TOKENIZER.encode(other).ids
    assert _arrays((one, other)).class_names == (one, other)


@pytest.mark.parametrize("names", [{"cat", "dog"}, {"cat": 0, "dog": 1}, "cd", b"cd", None])
def test_names_without_an_order_to_count_labels_by_are_one_line(names):
    with pytest.raises(UserError, match="class_names is of type .*; it must list the names in the labels' order"):
        _arrays(names)


@pytest.mark.parametrize(
    "names",
    [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("sea horse", "Sea_Horse"), ("a  b", "a b"), ("cat", "cat\u200b")],
)
def test_names_that_a_prompt_cannot_tell_apart_are_one_line(names):
    with pytest.raises(UserError, match="class_names: labels 0 and 1 are (both )?called"):
        _arrays(names)


@pytest.mark.parametrize("name", ["", "  ", "_", "\u200b"])
def test_empty_names_are_one_line(name):
    with pytest.raises(UserError, match="the class name of label 1 is empty; give it a name"):
        _arrays(("cat", name))


def test_one_class_alone_is_one_line():
    images = np.zeros((8, 4, 4, 3), np.uint8)

    with pytest.raises(UserError, match="one class only, 'cat'; at least two are needed"):
        data.from_arrays(images, [0] * 8, ["cat"])


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 0.5])
def test_a_label_that_is_no_whole_number_is_one_line(label):
    with pytest.raises(UserError, match="and class_names has 2; give one whole number an image"):
        data.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), [label, 1] * 4, ["cat", "dog"])


def test_names_may_be_bytes():
    assert _arrays(("caf\u00e9".encode(), b"dog")).class_names == ("caf\u00e9", "dog")


@pytest.mark.parametrize(("name", "shown"), [(7, "7"), (None, "None"), (b"caf\xe9", r"caf\\xe9")])
def test_names_that_are_no_text_are_one_line(name, shown):
    with pytest.raises(UserError, match=shown):
        _arrays(("cat", name))


@pytest.mark.parametrize(
    "names",
    [
        ("n01440764", "n01443537"),
        ("0", "1"),
        ("3.5", "4"),
        ("n02085620-Chihuahua", "n02085782-Spaniel"),
        ("001.Albatross", "-2"),
    ],
)
def test_names_that_are_codes_are_told_in_a_note(names):
    assert _arrays(("cat", "dog")).notes == ()
    assert (
        _arrays(names)
        .notes[0]
        .startswith("2 of 2 class names are bare numbers or WordNet ids, or begin with one, such")
    )
    assert repr(names[0]) in _arrays(names).notes[0]


def _arrays(names):
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    return data.from_arrays(images, [0, 1] * 4, names)


def test_folders_match_whichever_way_their_accents_are_written(tmp_path):
    _tree(tmp_path, ("train",), ("caf\u00e9", "dog"))
    _tree(tmp_path, ("test",), (unicodedata.normalize("NFD", "caf\u00e9"), "dog"))
    read = _read(tmp_path)

    assert read.class_names == ("caf\u00e9", "dog")
    assert sorted(item.label for item in read.test) == [0] * 4 + [1] * 4


def test_a_class_of_imagenet_with_two_names_is_one_line(tmp_path):
    (tmp_path / "classnames.txt").write_text("n01 tench\nn01 shark\n")

    with pytest.raises(UserError, match="n01 is called 'tench' and 'shark'; give it one name"):
        imagenet.read_class_names(tmp_path / "classnames.txt")


# One photograph in two parts


def test_a_photograph_linked_from_one_part_into_another_is_one_line(tmp_path):
    _tree(tmp_path, ("train", "test"))
    (tmp_path / "test" / "cat" / "link.png").symlink_to(tmp_path / "train" / "cat" / "0.png")

    with pytest.raises(UserError, match="test/cat/link.png in test is the photograph .*train/cat/0.png in train"):
        _read(tmp_path)


def test_a_photograph_linked_within_a_folder_that_is_split_is_one_line(tmp_path):
    _tree(tmp_path)
    (tmp_path / "cat" / "link.png").symlink_to(tmp_path / "cat" / "0.png")

    with pytest.raises(UserError, match="cat/0.png and .*cat/link.png are one photograph; keep one of them"):
        _read(tmp_path)


@pytest.mark.parametrize("copy", [shutil.copy, os.link])
def test_the_same_bytes_in_two_parts_are_told_in_a_note(tmp_path, copy):
    _tree(tmp_path, ("train", "test", "val"))
    assert _read(tmp_path).notes == ()
    copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "copy.png")
    (note,) = _read(tmp_path).notes

    assert note.startswith("1 photograph of one part has the same bytes as one of another part, such as ")


# What lies in a folder


def test_linked_folders_are_followed_once_and_loops_are_guarded(tmp_path):
    _tree(tmp_path / "photos")
    _tree(tmp_path / "disk", classes=("more",))
    (tmp_path / "photos" / "cat" / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "photos" / "cat" / "again").symlink_to(tmp_path / "disk" / "more")
    (tmp_path / "photos" / "cat" / "loop").symlink_to(tmp_path / "photos" / "cat")
    (tmp_path / "photos" / "dog" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "disk" / "more" / "back").symlink_to(tmp_path / "disk")
    read = _read(tmp_path / "photos")

    assert len(_used(read)) == 12
    assert len({os.path.realpath(path) for path in _used(read)}) == 12


def test_files_without_an_extension_are_read_by_their_content(tmp_path):
    _tree(tmp_path)
    for path in list(tmp_path.glob("*/*.png")):
        path.rename(path.with_suffix(""))
    (tmp_path / "cat" / "README").write_text("no photograph")
    read = _read(tmp_path)

    assert len(_used(read)) == 8
    assert all(item.image.open().size == (8, 8) for item in read.test)


def test_a_named_pipe_is_no_photograph_and_is_not_waited_for(tmp_path):
    _tree(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe")

    assert len(_used(_read(tmp_path))) == 8


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    _tree(tmp_path)
    (tmp_path / "cat" / "more").mkdir()
    listed = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list any folder
    with pytest.raises(UserError, match=r"cat/more: cannot be listed \(Permission denied\); make it readable"):
        _read(tmp_path)


def test_a_class_whose_images_are_all_of_a_format_that_is_not_read_says_which(tmp_path):
    _tree(tmp_path)
    for path in (tmp_path / "cat").iterdir():
        path.rename(path.with_suffix(".HEIC"))

    with pytest.raises(
        UserError, match=r"cat: no image in this folder of a format that is read, only \.heic; add some"
    ):
        _read(tmp_path)


@pytest.mark.parametrize(
    "suffix",
    [".jpe", ".JFIF", ".pgm", ".pnm", ".tga", ".jp2", ".avif", ".heic", ".svg", ".ico", ".xcf", ".jpg_original", ".1"],
)
def test_images_of_any_suffix_are_read_or_counted_in_a_note(tmp_path, suffix):
    _tree(tmp_path, classes=("cat", "dog"))
    added = tmp_path / "cat" / f"one{suffix}"
    formats = {".tga": "TGA", ".jp2": "JPEG2000", ".avif": "AVIF", ".pgm": "PPM", ".pnm": "PPM"}
    Image.new("RGB", (8, 8)).save(added, format=formats.get(suffix, "JPEG"))
    read = _read(tmp_path)

    if added in _used(read):
        assert next(item for item in read.train + read.val + read.test if item.image.path == added).image.open()
    else:
        assert f"these formats are not read: 1 file in {suffix.lower()};" in " ".join(read.notes)


@pytest.mark.parametrize(
    "hidden",
    [
        "@eaDir",
        "__MACOSX",
        ".thumbnails",
        "#recycle",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        "@__thumb",
    ],
)
def test_folders_of_a_system_are_hidden_and_counted_where_they_hold_images(tmp_path, hidden):
    _tree(tmp_path)
    (tmp_path / hidden).mkdir()
    assert _read(tmp_path).notes == ()
    _image(tmp_path / "cat" / hidden / "deep" / "thumbnail.jpg", 100)
    _image(tmp_path / hidden / "thumbnail.jpg", 101)
    read = _read(tmp_path)

    assert read.class_names == ("cat", "dog")
    assert len(_used(read)) == 8
    assert read.notes[0].endswith(f": 2 images in hidden folders ({hidden})")


def test_images_beside_the_classes_folders_are_counted_in_a_note(tmp_path):
    _tree(tmp_path)
    _image(tmp_path / "loose.jpg", 100)

    assert _read(tmp_path).notes[0].endswith(": 1 image beside the classes' folders, in none of them")


def test_a_class_without_a_photograph_in_a_part_is_named(tmp_path):
    _tree(tmp_path, ("train",), ("cat", "dog", "owl"))
    _tree(tmp_path / "more", ("test", "val"), ("cat",))
    for part in ("test", "val"):
        (tmp_path / "more" / part).rename(tmp_path / part)
    shutil.rmtree(tmp_path / "more")
    notes = _read(tmp_path).notes

    assert "2 classes have no test photograph: 'dog', 'owl'" in notes
    assert "2 classes have no validation photograph: 'dog', 'owl'" in notes


@pytest.mark.parametrize(("each", "found"), [(2, "1 training photograph, fewer"), (4, "2 training photographs, fewer")])
def test_one_photograph_is_told_as_one(tmp_path, each, found):
    with pytest.raises(UserError, match=f"class 'cat' has {found}"):
        data.load(DataConfig(source="folder", root=str(_tree(tmp_path, each=each)), shots=3), seed=1)


# Names that are not UTF-8


def test_a_class_folder_whose_name_is_not_utf_8_is_one_line(tmp_path):
    _tree(tmp_path)
    os.rename(tmp_path / "cat", os.fsencode(tmp_path) + b"/caf\xe9")

    with pytest.raises(UserError, match=r"class name caf\\xe9 is not UTF-8 text; rename it") as error:
        _read(tmp_path)
    assert str(error.value).encode()


def test_photographs_whose_names_are_not_utf_8_are_read_and_shown_escaped(tmp_path):
    _tree(tmp_path / "photos")
    root = tmp_path / os.fsdecode(b"f\xf6lder")
    os.rename(tmp_path / "photos", root)
    os.rename(root / "cat" / "0.png", os.fsencode(root) + b"/cat/\xe9.png")
    _image(root / ".thumbnails" / "x.png", 100)
    read = _read(root)
    names = [item.image.name for item in read.train + read.val + read.test]

    assert sum(name.endswith(r"cat/\xe9.png") for name in names) == 1
    assert "\n".join([*names, *read.notes, read.split]).encode()
    assert all(item.image.open() for item in read.test)
