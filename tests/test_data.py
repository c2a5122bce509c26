"""Sources, draws and pixels."""

import json
import random
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data import FewShotSet, Labelled, draw_shots, pixels
from craft_jax.data.images import ImageFile, ImageRecord
from craft_jax.data.readers import coop
from craft_jax.errors import UserError

SPLIT_FILE = "split_zhou_Caltech101.json"


def _pool(**counts):
    names = tuple(counts)
    train = tuple(
        Labelled(ImageFile(f"{name}/{i}.jpg"), label) for label, name in enumerate(names) for i in range(counts[name])
    )
    return FewShotSet(class_names=names, train=train, val=train, test=train, split="made up")


def _drawn(few_shot_set):
    return [str(item.image.path) for item in few_shot_set.train]


def test_shots_are_the_ones_that_coop_draws():
    """CoOp: random.seed(seed), then random.sample of each class's items in order of first appearance."""
    pool = _pool(cat=10, dog=10)
    random.seed(2)
    expected = [f"{name}/{i}.jpg" for name in ("cat", "dog") for i in random.sample(range(10), 3)]

    assert _drawn(draw_shots(pool, 3, seed=2)) == expected
    assert expected == ["cat/0.jpg", "cat/1.jpg", "cat/8.jpg", "dog/5.jpg", "dog/2.jpg", "dog/4.jpg"]


def test_classes_are_drawn_in_order_of_first_appearance():
    pool = _pool(cat=10, dog=10)
    reversed_pool = FewShotSet(pool.class_names, pool.train[::-1], (), (), "made up")
    random.seed(1)
    expected = [f"{name}/{9 - i}.jpg" for name in ("dog", "cat") for i in random.sample(range(10), 2)]

    assert _drawn(draw_shots(reversed_pool, 2, seed=1)) == expected


def test_a_class_with_too_few_photographs_is_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"class 'dog' has 2 training photographs.*data.with_replacement=True"):
        draw_shots(_pool(cat=5, dog=2), 4, seed=1)


def test_a_class_with_too_few_photographs_is_drawn_with_replacement_where_asked():
    drawn = draw_shots(_pool(cat=5, dog=2), 4, seed=1, with_replacement=True)

    assert len(drawn.train) == 8
    assert set(_drawn(drawn)[4:]) <= {"dog/0.jpg", "dog/1.jpg"}
    assert "1 of 2 classes: class 'dog' has 2" in drawn.notes[0]


def test_the_bundled_set_tests_on_no_training_or_validation_photograph():
    bundled = data.load(DataConfig(), seed=1)
    parts = [{item.image.name for item in part} for part in (bundled.train, bundled.val, bundled.test)]

    assert [len(part) for part in parts] == [24 * 16, 24 * 4, 638]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert not parts[0] & parts[1]


def test_class_names_read_as_words():
    assert "grand piano" in data.load(DataConfig(), seed=1).class_names


@pytest.fixture
def split(tmp_path):
    """Writes a split of two tiny classes, changed by the caller, and returns its loader."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (40, 30), (i, i, i)).save(tmp_path / name / f"{i}.png")

    def load(change):
        rows = {
            part: [[f"{name}/{i}.png", label, name] for label, name in enumerate(("cat", "dog"))]
            for i, part in enumerate(("train", "val", "test"))
        }
        change(rows)
        path = tmp_path / "split.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return coop.load(tmp_path, path)

    return load


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["val"].append(["cat/9.png", 0, "cat"]), "names .*cat/9.png, which does not exist"),
        (lambda rows: rows["test"].append(["cat/0.png", 0, "cat"]), "cat/0.png stands in train and again"),
        (lambda rows: rows["test"].append(["cat/1.png", 0, "cat"]), "cat/1.png stands in val and again in test; keep"),
        (lambda rows: rows["test"].append(["dog/2.png", 1, "fox"]), "label 1 is called 'dog' and 'fox'"),
        (lambda rows: rows["test"].append(["dog/2.png", 3, "fox"]), "labels must run from 0 to 2 without gaps"),
        (lambda rows: rows["train"].append(["dog/2.png", 2, "_dog"]), "labels 1 and 2 are both called 'dog'"),
        (lambda rows: rows.pop("val"), "not in CoOp's form"),
        (lambda rows: rows["train"].clear(), "train and test must each list at least one image"),
    ],
)
def test_a_bad_split_is_refused_in_one_line_that_names_it(split, change, message):
    with pytest.raises(UserError, match=rf"split\.json.*{message}"):
        split(change)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.json: no such split file"):
        coop.load(tmp_path, tmp_path / "nowhere.json")


@pytest.fixture
def archived(coop_root, tmp_path):
    """A set in CoOp's layout, its split file, and its images in an archive, deflated."""
    images, split_file = (coop_root / "caltech-101" / name for name in ("101_ObjectCategories", SPLIT_FILE))
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(images.rglob("*.jpg")):
            made.write(path, path.relative_to(images).as_posix())
    return images, split_file, archive


def test_an_archive_holds_the_set_that_its_folder_does(archived):
    images, split_file, archive = archived
    in_folder, in_archive = coop.load(images, split_file), coop.load(archive, split_file)
    one, other = in_folder.test[0].image, in_archive.test[0].image
    data.check_readable([item.image for item in in_archive.test])

    assert in_archive.content() == in_folder.content()
    assert other.name == f"{archive}/{one.path.relative_to(images)}"
    np.testing.assert_array_equal(np.asarray(other.open()), np.asarray(one.open()))


def test_an_archive_that_is_written_anew_is_read_anew(archived):
    _, split_file, archive = archived
    image = coop.load(archive, split_file).train[0].image
    before = image.fingerprint()
    archive.unlink()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(image.member, b"another")

    assert image.fingerprint() != before
    with pytest.raises(UserError, match=r"images.zip/pizza/image_\d+.jpg: not a readable image"):
        data.check_readable([image])
    with pytest.raises(UserError, match=rf"{SPLIT_FILE} names pizza/image_\d+.jpg, which is not in \S+images.zip"):
        coop.load(archive, split_file)


def test_an_archive_that_is_damaged_or_missing_is_named(archived):
    _, split_file, archive = archived
    image, content = coop.load(archive, split_file).train[0].image, archive.read_bytes()
    with zipfile.ZipFile(archive) as whole:
        files = whole.start_dir  # the list of files follows them
    archive.write_bytes(bytes(files) + content[files:])
    with pytest.raises(UserError, match=r"images.zip/pizza/image_\d+.jpg: not readable \("):
        image.open()
    archive.write_bytes(content[:5000])
    with pytest.raises(UserError, match=r"images.zip: not a readable zip archive \(.*check data.images"):
        coop.load(archive, split_file)
    archive.unlink()
    with pytest.raises(UserError, match=r"images.zip: not a readable zip archive \(.*No such file"):
        coop.load(archive, split_file)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_photograph_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    if content is None:
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:400])
    else:
        path.write_bytes(content)

    with pytest.raises(UserError, match="broken.jpg: not a readable image"):
        ImageFile(path).open()


def test_an_avif_whose_pixels_are_damaged_is_named(tmp_path):
    path = tmp_path / "broken.avif"
    Image.effect_noise((64, 64), 50).save(path)
    before, mark, pixels = path.read_bytes().partition(b"mdat")
    path.write_bytes(before + mark + bytes(40) + pixels[40:])

    with pytest.raises(UserError, match="broken.avif: not a readable image"):
        ImageFile(path).open()


def test_all_unreadable_photographs_are_named_and_each_is_opened_once(tmp_path, monkeypatch):
    many = [ImageFile(tmp_path / f"{i:02d}.jpg") for i in range(14)]
    for image in many[:13]:
        Image.effect_noise((64, 64), 50).save(image.path)
    many[3].path.write_bytes(many[3].path.read_bytes()[:400])
    with pytest.raises(UserError, match="03.jpg: not a readable image"):
        data.check_readable(many[:5])

    with pytest.raises(
        UserError, match=r"^2 photographs are .*: \S+03.jpg, \S+13.jpg; replace .*: not a readable image"
    ):
        data.check_readable([*many, *many])
    monkeypatch.setattr(ImageFile, "check", lambda image: pytest.fail(f"{image} was opened again"))
    data.check_readable(many[4:13])
    monkeypatch.undo()
    many[3].path.write_bytes(many[4].path.read_bytes())
    data.check_readable(many[:5])
    for image in many:
        image.path.write_bytes(b"none")
    with pytest.raises(UserError, match=r"^14 photographs .*09.jpg and 4 more; replace"):
        data.check_readable(many)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey_keep_their_upper_eight(tmp_path, suffix):
    ramp = np.arange(0, 2**16, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / f"grey.{suffix}")
    opened = np.asarray(ImageFile(tmp_path / f"grey.{suffix}").open())

    np.testing.assert_array_equal(opened, np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_which_fewer_are_in_use_do_not_come_out_black(tmp_path, suffix, bits):
    ramp = (np.arange(256, dtype=np.uint16) << (bits - 8)).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / f"grey.{suffix}")
    opened = np.asarray(ImageFile(tmp_path / f"grey.{suffix}").open())

    np.testing.assert_array_equal(opened[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bits_of_colour_of_which_fewer_are_in_use_do_not_come_out_black(tmp_path, bits):
    colours = np.random.default_rng(0).integers(0, 2**bits, (8, 9, 3))
    colours[0, 0] = 2**bits - 1
    (tmp_path / "colours.png").write_bytes(_png_of_16_bits(colours))

    np.testing.assert_array_equal(np.asarray(ImageFile(tmp_path / "colours.png").open()), colours >> (bits - 8))


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [4, 2, 1])
def test_sixteen_bits_with_transparency_are_on_white_and_not_black(tmp_path, bits, channels):
    shape = np.random.default_rng(0).integers(0, 2**bits - 1, (8, 9, channels))
    shape[0, 0] = 2**bits - 2
    seen, more = np.ones((8, 9), bool), ()
    if channels == 1:  # PNG may name one grey as transparent
        seen = shape[..., 0] != shape[3, 3, 0]
        more = ((b"tRNS", struct.pack(">H", shape[3, 3, 0])),)
    else:
        shape[..., -1] = 2**16 - 1
        shape[:, 4:, -1] = 0
        seen[:, 4:] = False
    (tmp_path / "shape.png").write_bytes(_png_of_16_bits(shape, *more))
    opened = np.asarray(ImageFile(tmp_path / "shape.png").open())

    expected = np.broadcast_to(shape[..., : 3 if channels == 4 else 1] >> (bits - 8), (8, 9, 3))
    np.testing.assert_array_equal(opened, np.where(seen[..., None], expected, 255))


def test_what_formats_hold_beside_colours_of_eight_bits_comes_out_as_a_person_sees_it(tmp_path):
    colours = np.stack(np.meshgrid(np.arange(0, 240, 16), np.arange(0, 240, 24), [90]), axis=-1)[:, :, 0].astype(
        np.uint8
    )
    image = Image.fromarray(colours)
    grey, dark = image.convert("L"), Image.new("RGB", image.size)
    palette = image.quantize(16)
    hole = int(np.asarray(palette)[2, 2])
    with_hole = np.where(np.asarray(palette)[..., None] == hole, 255, np.asarray(palette.convert("RGB")))
    image.convert("CMYK").save(tmp_path / "print.tif")
    palette.save(tmp_path / "hole.gif", transparency=hole)
    palette.save(tmp_path / "hole.png", transparency=hole)
    image.convert("1").save(tmp_path / "ink.png")
    palette.save(tmp_path / "moving.gif", save_all=True, append_images=[dark.quantize(2)], duration=50)
    image.save(tmp_path / "moving.webp", save_all=True, append_images=[dark], lossless=True)
    image.save(tmp_path / "moving.png", save_all=True, append_images=[dark])
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[dark])
    deep = (np.asarray(grey).astype(int) * 4095 // 255).astype(">u2")
    (tmp_path / "deep.pgm").write_bytes(b"P5 %d %d 4095\n" % image.size + deep.tobytes())
    seen = {
        "print.tif": colours, "hole.gif": with_hole, "hole.png": with_hole,
        "ink.png": np.asarray(image.convert("1").convert("RGB")), "moving.gif": np.asarray(palette.convert("RGB")),
        "moving.webp": colours, "moving.png": colours, "pages.tif": colours,
        "deep.pgm": np.asarray(grey.convert("RGB")),
    }  # fmt: skip

    for name, expected in seen.items():
        opened = np.asarray(ImageFile(tmp_path / name).open()).astype(int)
        assert abs(opened - expected).max() <= (name == "deep.pgm"), name


def _png_of_16_bits(colours, *more):
    """Pillow writes none of several channels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, channels = colours.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused_with_the_remedy(tmp_path, dtype):
    grey = np.ones((8, 8), dtype)
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    record = ImageRecord([{"image": grey}], 0, "made up:train")

    for image in (ImageFile(tmp_path / "grey.tif"), record):
        with pytest.raises(UserError, match=r"(grey.tif|\[0\]): pixels of 32 bits .*; save it with 8 or 16 bits"):
            image.open()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (90, 90, 90, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    given = {"transparency": (0, 0, 0)} if mode == "RGB" else {}  # PNG may name one colour as transparent
    image.convert(mode).save(tmp_path / "shape.png", **given)
    opened = np.asarray(ImageFile(tmp_path / "shape.png").open())

    assert (opened[:, :4] == 90).all()
    assert (opened[:, 4:] == 255).all()
    if mode == "RGBA":
        record = ImageRecord([{"image": np.asarray(image)}], 0, "made up:train")
        np.testing.assert_array_equal(np.asarray(record.open()), opened)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_photograph_is_turned_upright_as_its_exif_says(tmp_path, suffix):
    image = Image.new("RGB", (40, 20), "white")
    image.paste((200, 0, 0), (0, 0, 40, 10))  # red above white as the sensor saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor's top is on the right
    image.save(tmp_path / f"portrait.{suffix}", exif=exif)
    opened = ImageFile(tmp_path / f"portrait.{suffix}").open()

    assert opened.size == (20, 40)
    assert np.asarray(opened)[:, 12:, 1].max() < 100
    assert np.asarray(opened)[:, :8, 1].min() > 200


def test_exif_that_cannot_be_read_is_passed_over(tmp_path):
    image = Image.new("RGB", (40, 20))
    image.save(tmp_path / "broken.jpg", exif=b"Exif\0\0no EXIF at all")

    assert ImageFile(tmp_path / "broken.jpg").open().size == (40, 20)


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (32, 32), (31, 97), (500, 333)])
def test_the_centre_crop_is_clips_own_preprocessing(size):
    from transformers import CLIPImageProcessor

    from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL

    processor = CLIPImageProcessor.from_pretrained(BUNDLED_MODEL)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    own = np.asarray(pixels.centre_crop(image, 32), np.float32) / 255
    own = (own - np.array(processor.image_mean)) / np.array(processor.image_std)

    np.testing.assert_allclose(own.transpose(2, 0, 1), processor(image)["pixel_values"][0], atol=1e-6)


def test_a_view_is_the_same_in_every_run_and_differs_between_views_images_and_seeds():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8))

    def view(*counters):
        return np.asarray(pixels.view_crop(*counters)(image, 32))

    np.testing.assert_array_equal(view(1, 2, 3), view(1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (view(1, 2, 3) != view(*other)).any()


def test_batches_keep_the_order_and_pad_the_last(small_set):
    images = [item.image for item in small_set.train]
    batches = list(pixels.batches(images, [[pixels.centre_crop]] * 12, 32, batch_size=5))

    assert [batch.shape for batch in batches] == [(5, 32, 32, 3)] * 3
    whole = np.concatenate(batches)
    for position, image in enumerate(images):
        np.testing.assert_array_equal(whole[position], np.asarray(pixels.centre_crop(image.open(), 32)))
