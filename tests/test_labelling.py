"""Collections in units: what is found, planned, read and written, on one machine and without Ray."""

import io
import tarfile

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra ray)")

from craft_jax.errors import UserError
from craft_jax.labelling import output, reading, units
from craft_jax.labelling.answers import Answer
from craft_jax.labelling.reading import Columns
from tests import small_collections as small


def planned(tmp_path, *sources):
    (tmp_path / "plan").mkdir(exist_ok=True)
    return units.plan([units.find(str(source)) for source in sources], tmp_path / "plan")


def read(unit, image="image", key="", size=3):
    return [item for chunk in reading.chunks(unit, Columns(image, key), size) for item in chunk]


def test_a_folder_of_images_and_shards_is_found_whole_but_for_what_is_hidden(tmp_path):
    root = small.folder(tmp_path / "all", range(3))
    small.shard(root / "a.tar", range(2))
    small.table(root / "inner" / "b.parquet", range(2))
    small.folder(root / ".hidden", [9])
    (root / "photo.heic").write_bytes(b"of a format that is not read")
    (root / "notes.txt").touch()
    found = units.find(str(root))

    assert found.images == ["inner/0.png", "inner/1.png", "inner/2.png", "photo.heic"]
    assert [path for path, _ in found.shards] == [str(root / "a.tar"), str(root / "inner" / "b.parquet")]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_every_image_of_a_folder_is_in_one_unit(scheme, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "IMAGES_A_UNIT", 2)
    root = small.folder(tmp_path / "all", range(5))
    (root / "inner" / "5.png").write_bytes(b"damaged")
    found = planned(tmp_path, f"{scheme}{root}")
    items = [item for unit in found for item in read(unit)]
    items[0].image.open()

    assert len(found) == 3
    assert [(item.source, item.key) for item in items] == [(f"{scheme}{root}", f"inner/{i}.png") for i in range(6)]
    with pytest.raises(UserError, match="5.png: not a readable image"):
        items[5].image.open()


def test_images_that_came_later_make_units_of_their_own_and_those_before_keep_theirs(tmp_path):
    root = small.folder(tmp_path / "all", range(3))
    before = planned(tmp_path, root)
    small.folder(root, [7, 1])
    after = planned(tmp_path, root, root)

    assert after[: len(before)] == before
    assert [item.key for unit in after[len(before) :] for item in read(unit)] == ["inner/7.png"]
    assert planned(tmp_path, root) == after


def test_an_image_that_was_listed_and_is_gone_says_so(tmp_path):
    root = small.folder(tmp_path / "all", range(2))
    (unit,) = planned(tmp_path, root)
    (root / "inner" / "0.png").unlink()

    with pytest.raises(UserError, match="0.png: no such image; check the path"):
        read(unit)[0].image.open()


@pytest.mark.parametrize("plain", [False, True])
def test_parquets_rows_have_their_numbers_or_a_column_as_keys(plain, tmp_path):
    file = small.table(tmp_path / "a.parquet", range(5), plain=plain)
    (unit,) = planned(tmp_path, file)
    sizes = {item.image.open().size for item in read(unit)}

    assert [item.key for item in read(unit)] == ["0", "1", "2", "3", "4"]
    assert [item.key for item in read(unit, key="id")] == [f"id-{i}" for i in range(5)]
    assert sizes == {(50, 40)}


def test_a_shards_images_have_their_members_names(tmp_path):
    (unit,) = planned(tmp_path, small.shard(tmp_path / "a.tar", range(4)))

    assert [item.key for item in read(unit)] == [f"{i:05d}.png" for i in range(4)]


def test_a_member_whose_name_is_no_text_is_labelled_under_an_escaped_one(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo("\udcff.png")
        member.size = len(small.png(1))
        archive.addfile(member, io.BytesIO(small.png(1)))
    (item,) = read(*planned(tmp_path, file))
    (tmp_path / "out").mkdir()
    output.begin(tmp_path / "out", {})
    output.write(tmp_path / "out", "x.parquet", [output.row(item, Answer([("cat", 0.75)], ""))])

    assert item.key == r"\xff.png"
    assert output.count(tmp_path / "out") == (1, 0, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "picture"}, "--image_column=picture: .*a.parquet has no such column; it has image, id$"),
        ({"key": "name"}, "--key_column=name: .*a.parquet has no such column; it has image, id$"),
        (
            {"image": "id"},
            "--image_column=id: .*a.parquet holds .*string there; name the column with the images' bytes",
        ),
    ],
)
def test_a_wrong_column_is_one_line_with_those_there_are(columns, message, tmp_path):
    (unit,) = planned(tmp_path, small.table(tmp_path / "a.parquet", range(2)))

    with pytest.raises(UserError, match=message):
        read(unit, **columns)


def test_a_shard_that_is_cut_off_is_one_line(tmp_path):
    tar, table = small.shard(tmp_path / "a.tar", range(3)), small.table(tmp_path / "b.parquet", range(3))
    for file in (tar, table):
        file.write_bytes(file.read_bytes()[:-11000])

    for unit in planned(tmp_path, tar, table):
        with pytest.raises(UserError, match="make the shard anew"):
            read(unit)


@pytest.mark.parametrize("damage", ["a header", "cut in a header", "cut at a header"])
def test_a_tar_file_is_not_taken_for_whole_where_it_is_damaged_between_members(damage, tmp_path):
    file = small.shard(tmp_path / "a.tar", range(4))
    content = file.read_bytes()
    with tarfile.open(file) as archive:
        third = archive.getmember("00002.png").offset
    changed = {
        "a header": content[:third] + b"\xff" * 100 + content[third + 100 :],
        "cut in a header": content[: third + 100],
        "cut at a header": content[:third],
    }
    file.write_bytes(changed[damage])
    (unit,) = planned(tmp_path, file)

    with pytest.raises(UserError, match="a.tar: cannot be read as a tar file .*; make the shard anew"):
        read(unit)


@pytest.mark.parametrize("name", ["what?", "what"])
def test_an_images_source_is_its_folder_whatever_that_is_called(name, tmp_path):
    root = small.folder(tmp_path / name, range(1))
    (unit,) = planned(tmp_path, root)

    assert read(unit)[0].source == str(root)


def test_a_url_may_name_a_user_without_a_key():
    assert units.opened("gs://anonymous@bucket/shards")[1] == "bucket/shards"


def test_a_shard_that_is_named_twice_is_one_unit(tmp_path):
    root = small.folder(tmp_path / "all", [])
    root.mkdir()
    file = small.shard(root / "a.tar", range(3))

    assert len(units.missing(planned(tmp_path, root, file, file), [])) == 1


def test_a_shard_that_changed_since_it_was_labelled_is_refused(tmp_path):
    file = small.shard(tmp_path / "a.tar", range(3))
    done = [unit.part for unit in planned(tmp_path, file)]

    assert units.missing(planned(tmp_path, file), done) == []
    small.shard(file, range(30))
    with pytest.raises(UserError, match="a.tar: has changed since it was labelled; give another --output"):
        units.missing(planned(tmp_path, file), done)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such file or folder; check the path"),
        ("empty", "holds no image and no shard"),
        ("all/inner/0.png", "labels folders and shards"),
        ("s3://key:secret@bucket/x", "a source's URL has a key in it"),
        ("nonsense://x", "nonsense://x: cannot be opened"),
        ("\udcff.tar", "this name is not UTF-8 text, which Parquet wants; rename it"),
    ],
)
def test_a_source_that_is_none_is_one_line(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.folder(tmp_path / "all", range(1))
    (tmp_path / "empty").mkdir()

    with pytest.raises(UserError, match=message) as error:
        units.find(source)
    assert "\n" not in str(error.value)


def test_a_plan_or_a_part_that_is_damaged_is_one_line(tmp_path):
    root = small.folder(tmp_path / "all", range(1))
    planned(tmp_path, root)
    (tmp_path / "out").mkdir()
    output.begin(tmp_path / "out", {})
    for file in (tmp_path / "plan" / "images-0000.parquet", tmp_path / "out" / "labels" / "x.parquet"):
        file.write_bytes(b"damaged")

    with pytest.raises(UserError, match="images-0000.parquet: damaged; name a new --output"):
        planned(tmp_path, root)
    with pytest.raises(UserError, match="a part is damaged .*x.parquet.*; delete it, and give the same command again"):
        output.count(tmp_path / "out")


def test_labels_made_otherwise_are_refused_and_an_output_without_labels_is_not(tmp_path):
    about = {"checkpoint": "a", "threshold": 0.5}
    output.begin(tmp_path, about | {"threshold": 0.2})
    output.begin(tmp_path, about)
    item = reading.Item("s", "k", reading.Unread("s", "gone"))
    output.write(
        tmp_path, "x.parquet", [output.row(item, Answer([("cat", 0.75)], "")), output.row(item, Answer([], "!"))]
    )
    output.begin(tmp_path, about)

    assert output.count(tmp_path) == (2, 1, 0)
    with pytest.raises(UserError, match="its labels were made with checkpoint=a, and now it is b; give the same"):
        output.begin(tmp_path, about | {"checkpoint": "b"})


def test_a_folder_with_other_files_is_no_output(tmp_path):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(UserError, match="holds other files, and no labelling.json; name a new folder"):
        output.begin(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
