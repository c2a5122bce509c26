"""A user's own photographs: folders, lists, the automatic split, and mistakes through the command line."""

import shutil

import pytest
from PIL import Image

from craft_jax import data, main
from craft_jax.config import DataConfig
from craft_jax.data import automatic, fewshot
from craft_jax.data.readers import csv_file, folder
from craft_jax.errors import UserError
from tests import miniatures


def _names(items):
    return [item.image.path.name for item in items]


# Folders


@pytest.fixture
def photos(tmp_path):
    return miniatures.make(tmp_path / "photos", "folder")


def test_a_folder_is_split_by_a_seed_class_by_class(photos):
    read = folder.load(photos, split_seed=0)
    parts = [{item.image.path for item in part} for part in (read.train, read.val, read.test)]

    assert read.class_names == ("lion", "panda", "sea horse")
    assert [len(part) for part in parts] == [18, 6, 12]
    assert len(set.union(*parts)) == 36
    assert [sum(item.label == label for item in read.test) for label in range(3)] == [4, 4, 4]
    assert read.split.startswith("automatic split (50 % train, 20 % validation, 30 % test, seed 0)")


def test_nested_folders_and_suffixes_in_capitals_count_and_other_files_do_not(photos):
    paths = [item.image.path for item in folder.load(photos, 0).train + folder.load(photos, 0).test]

    assert {path.suffix for path in paths} == {".JPG", ".jpeg"}
    assert not any(path.name.startswith(".") for path in paths)
    assert len(folder.images_below(photos / "lion" / "more")) == 2


def test_another_split_seed_splits_otherwise_and_the_runs_seed_leaves_the_test_images(photos):
    one, other = folder.load(photos, split_seed=0), folder.load(photos, split_seed=1)
    config = DataConfig(source="folder", root=str(photos), shots=2)

    assert set(_names(one.test[:4])) != set(_names(other.test[:4]))
    assert data.load(config, seed=1).test == data.load(config, seed=2).test


def test_more_images_of_one_class_leave_the_split_of_the_others(photos):
    before = folder.load(photos, split_seed=0)
    Image.new("RGB", (8, 8)).save(photos / "lion" / "new.png")
    after = folder.load(photos, split_seed=0)

    assert [item for item in before.test if item.label > 0] == [item for item in after.test if item.label > 0]


def test_folders_train_and_test_are_taken_as_they_are(photos, tmp_path):
    parted = tmp_path / "parted"
    for part in ("train", "test"):
        (parted / part).mkdir(parents=True)
    for name in ("lion", "panda"):
        (photos / name).rename(parted / "train" / name)
    (photos / "sea_horse").rename(parted / "test" / "panda")
    read = folder.load(parted, split_seed=0)

    assert read.class_names == ("lion", "panda")
    assert {item.label for item in read.test} == {1}
    assert (len(read.train), len(read.val), len(read.test)) == (24, 0, 12)


def test_images_in_formats_that_are_not_read_are_counted_in_a_note(photos):
    assert folder.load(photos, split_seed=0).notes == ()
    for name in ("lion/one.HEIC", "lion/more/two.heic", "panda/three.svg", "panda/.four.svg"):
        (photos / name).write_bytes(b"unread")
    (note,) = data.load(DataConfig(source="folder", root=str(photos), shots=1), seed=1).notes

    assert note.endswith("photos, for these formats are not read: 3 files in .heic, .svg; convert them to .jpg or .png")


def test_a_split_without_validation_photographs_says_that_nothing_is_chosen_by_them(photos, tmp_path):
    without, whole = (
        folder.load(_parted(photos, tmp_path / name, parts), 0)
        for name, parts in (("without", ("train", "test")), ("whole", ("train", "test", "val")))
    )

    assert data.notes_of(whole, "validation") == ()
    assert data.notes_of(without, "shots") == ()
    (note,) = data.notes_of(without, "validation")
    assert "nothing is chosen by held_out=validation" in note
    assert note.endswith("add some, or set held_out=shots")


def _parted(photos, parted, parts):
    """Every class's photographs in each of the parts."""
    for part in parts:
        for name in ("lion", "panda"):
            shutil.copytree(photos / name, parted / part / name)
    return parted


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_the_validation_folder_of_a_split_goes_by_any_of_its_names(photos, tmp_path, validation):
    read = folder.load(_parted(photos, tmp_path / "parted", ("train", "test", validation)), 0)

    assert read.class_names == ("lion", "panda")
    assert {item.image.path.parts[len(tmp_path.parts) + 1] for item in read.val} == {validation}
    assert [len(part) for part in (read.train, read.val, read.test)] == [24, 24, 24]


@pytest.mark.parametrize(
    "parts", [("train", "val"), ("train",), ("test", "valid"), ("train", "test", "val", "valid"), ("train", "lion")]
)
def test_parts_that_are_no_whole_split_are_no_classes(photos, tmp_path, parts):
    with pytest.raises(UserError, match=r"parted: sub-folders .*; a split has train and test, perhaps one of val"):
        folder.load(_parted(photos, tmp_path / "parted", parts), 0)


def test_a_class_may_be_called_train(photos):
    shutil.rmtree(photos / "lion" / "more")
    (photos / "lion").rename(photos / "train")

    assert folder.load(photos, 0).class_names == ("panda", "sea horse", "train")


def test_hidden_folders_within_a_class_are_passed_over(photos):
    before = folder.images_below(photos / "lion")
    shutil.copytree(photos / "panda", photos / "lion" / ".thumbnails" / "large")

    assert folder.images_below(photos / "lion") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda photos: (photos / "empty").mkdir(), "photos/empty: no image in this folder; add some"),
        (lambda photos: [p.rename(photos / f".{p.name}") for p in photos.glob("*")], "photos: no sub-folder; put the"),
        (lambda photos: [(photos / n).rename(photos / f".{n}") for n in ("lion", "panda")], "one sub-folder only"),
        (lambda photos: (photos / "lion").rename(photos / "sea horse"), "are both called 'sea horse'; rename one"),
        (lambda photos: photos.rename(photos.parent / "x"), "data.root=.*photos: no such folder"),
    ],
)
def test_a_bad_folder_is_named_with_its_remedy(photos, change, message):
    change(photos)

    with pytest.raises(UserError, match=message):
        data.read(DataConfig(source="folder", root=str(photos)))


def test_a_class_that_is_only_tested_has_no_training_image(photos, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "parted" / part).mkdir(parents=True)
    (photos / "lion").rename(tmp_path / "parted" / "train" / "lion")
    (photos / "panda").rename(tmp_path / "parted" / "test" / "panda")

    with pytest.raises(UserError, match="test/panda: class 'panda' is not in train; add its images there"):
        folder.load(tmp_path / "parted", 0)


@pytest.mark.parametrize(("found", "parts"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (5, 2, 3))])
def test_a_class_of_any_size_keeps_a_training_image(found, parts):
    items = [fewshot.Labelled(None, 0)] * found + [fewshot.Labelled(None, 1)] * 10
    split = automatic.automatic_split(items, ("a", "b"), 0, split="")

    assert tuple(sum(item.label == 0 for item in part) for part in (split.train, split.val, split.test)) == parts


# Lists


def _listing(root, text):
    (root / "list.csv").write_text(text)
    return data.read(DataConfig(source="csv", root=str(root), split="list.csv"))


def test_a_list_is_split_automatically(tmp_path):
    miniatures.make_listing(tmp_path)
    read = csv_file.load(tmp_path, tmp_path / "list.csv", 0)

    assert read.class_names == ("lion", "panda", "sea horse")
    assert [len(part) for part in (read.train, read.val, read.test)] == [18, 6, 12]
    assert read.split.startswith("automatic split")


def test_a_list_may_say_its_split(tmp_path):
    miniatures.make_listing(tmp_path, with_split=True)
    read = csv_file.load(tmp_path, tmp_path / "list.csv", 0)

    assert [len(part) for part in (read.train, read.val, read.test)] == [18, 6, 12]
    assert read.split == "splits of list.csv"
    assert {item.image.path.parent.name for item in read.val} == {"inside"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.png,cat\n", "no column 'label'; its first line must name path,label and names path,class"),
        ("", "no column 'path'; its first line must name path,label and names nothing"),
        ("path,label\n", "the list has no image; write path,label a line"),
        ("path,label\na.png,cat\nb.png,\n", "line 3: label is empty; fill it in"),
        ("path,label\na.png,cat\nb.png\n", "line 3: 1 cell, and the first line has 2; quote a cell that holds"),
        ("path,label\na.png,cat\nc.png,dog\n", "line 3: .*c.png does not exist; check the path or data.images"),
        ("path,label\na.png,cat\na.png,dog\n", "line 3: a.png stands in line 2 already; drop one"),
        ("path,label\na.png,cat\nb.png,cat\n", "one class only, 'cat'"),
        ("path,label,split\na.png,cat,train\nb.png,dog,tset\n", "line 3: split is 'tset'; it must be train, val or"),
        ("path,label,split\na.png,cat,train\nb.png,dog,train\n", "the column split must name train and test"),
        ("path,label\na.png,sea_horse\nb.png,sea horse\n", "are both called 'sea horse'"),
    ],
)
def test_a_bad_list_is_named_with_its_line_and_remedy(tmp_path, text, message):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    with pytest.raises(UserError, match=rf"list\.csv.*{message}") as error:
        _listing(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_list_in_another_encoding_says_that_it_must_be_utf_8(tmp_path):
    (tmp_path / "list.csv").write_bytes("path,label\na.png,café\n".encode("latin-1"))

    with pytest.raises(UserError, match=r"list\.csv: the list must be UTF-8 text; save it as such"):
        csv_file.load(tmp_path, tmp_path / "list.csv", 0)


def test_a_source_without_its_split_says_what_to_name(tmp_path):
    with pytest.raises(UserError, match=r"data.split is empty; name the list, a CSV file with the columns path,label"):
        data.read(DataConfig(source="csv", root=str(tmp_path)))


# Through the command line


def _run(tmp_path, *arguments):
    main.main(["main", "--config=configs/folder.py", f"--workdir={tmp_path}/run", "--config.run.devices=1", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.root={root}/empty"], "empty: no sub-folder; put the images of each class into"),
        (["--config.data.root={root}", "--config.data.shots=9"], "class 'lion' has 6 training photographs, fewer than"),
        (["--config.data.root={root}", "--config.data.source=csv", "--config.data.split=bad.csv"], "no column 'label'"),
        (["--config.data.root={root}", "--config.data.source=tfds"], "data.tfds is empty; name the TFDS data set"),
        (["--config.data.root={root}", "--config.black_box.model=bundled"], r"photo_\d+\..*: not a readable image"),
    ],
)
def test_bad_data_is_one_line_with_its_remedy_and_leaves_nothing(photos, tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(miniatures.ASSETS.parents[1])
    (photos / "bad.csv").write_text("path,class\n")
    for path in folder.images_below(photos / "lion"):
        path.path.write_bytes(path.path.read_bytes()[:300])
    (photos.parent / "empty").mkdir()
    root = photos.parent if "empty" in arguments[0] else photos

    with pytest.raises(UserError, match=message) as error:
        _run(tmp_path, *(argument.format(root=root) for argument in arguments))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
