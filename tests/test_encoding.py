"""Views and centre crops through the black box, and what is kept of them between runs."""

import io
import itertools
import multiprocessing
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import struct

import craft_jax
from craft_jax import encoding
from craft_jax.blackbox import Metered
from craft_jax.data import ImageFile, pixels
from craft_jax.distributed.devices import Spread
from craft_jax.encoding import Encoder, feature_cache
from craft_jax.progress import EncodingProgress


@pytest.fixture
def images(small_set):
    return [item.image for item in small_set.train]


def _views(black_box, images, cache=None, **changes):
    metered = Metered(black_box, budget=None)
    settings = {"views": 3, "seed": 1} | changes
    handle = Encoder(metered, cache).training_views(images, **settings)
    return np.asarray(handle), metered.meter.ledger.images_encoded


def test_each_view_is_the_encoded_crop_of_its_photograph(small_black_box, images):
    handle, encoded = _views(small_black_box, images)

    assert handle.shape[:2] == (3, 12)
    assert encoded == 36
    for view, i in ((0, 0), (2, 5), (1, 11)):
        square = np.asarray(pixels.view_crop(1, view, i)(images[i].open(), 32))
        np.testing.assert_allclose(handle[view, i], small_black_box.encode_images(square[None])[0], atol=1e-5)


def test_without_views_training_sees_the_centre_crop(small_black_box, images):
    handle, encoded = _views(small_black_box, images, views=0)
    centre = Encoder(Metered(small_black_box, budget=None)).centre_crops(images)

    np.testing.assert_array_equal(handle, np.asarray(centre)[None])
    assert encoded == 12


def test_a_second_run_encodes_nothing_and_sees_the_same_bits(small_black_box, images, tmp_path):
    first, encoded = _views(small_black_box, images, tmp_path)
    again, encoded_again = _views(small_black_box, images, tmp_path)

    assert (encoded, encoded_again) == (36, 0)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("changes", [{"seed": 2}, {"views": 2}, {"views": 0}])
def test_other_views_are_encoded_anew(small_black_box, images, tmp_path, changes):
    _views(small_black_box, images, tmp_path)

    assert _views(small_black_box, images, tmp_path, **changes)[1] > 0


@pytest.mark.parametrize(("what", "version"), [("PIL.__version__", "0"), ("craft_jax.data.pixels.VERSION", 0)])
def test_pixels_of_another_version_are_encoded_anew(small_black_box, images, tmp_path, monkeypatch, what, version):
    _views(small_black_box, images, tmp_path)
    monkeypatch.setattr(what, version)

    assert _views(small_black_box, images, tmp_path)[1] == 36


class _MeanColour(struct.PyTreeNode):
    """A black box of any image size, whose answers need nothing but an image's mean colour."""

    image_size: int = struct.field(pytree_node=False)
    resizing: pixels.Resizing = struct.field(pytree_node=False, default=pixels.USUAL)
    identity = {"fingerprint": "mean colour", "dtype": "float32"}

    def encode_images(self, images):
        return jax.numpy.asarray(images, jax.numpy.float32).mean((1, 2))


def test_another_image_size_is_encoded_anew(images, tmp_path):
    assert _views(_MeanColour(32), images, tmp_path)[1] == 36
    assert _views(_MeanColour(48), images, tmp_path)[1] == 36
    assert _views(_MeanColour(32), images, tmp_path)[1] == 0
    assert _views(_MeanColour(32, pixels.Resizing((28,))), images, tmp_path)[1] == 36


def test_the_cache_is_looked_at_before_anything_is_made_for_each_view(images, tmp_path, monkeypatch):
    _views(_MeanColour(32), images, tmp_path)
    monkeypatch.setattr(pixels, "host_generator", lambda *_: pytest.fail("a generator was made"))

    assert _views(_MeanColour(32), images, tmp_path)[1] == 0


@pytest.mark.parametrize(
    ("backend", "image_size", "images"),
    [("cpu", 448, 32), ("gpu", 224, 256), ("tpu", 64, 256), ("gpu", 448, 64), ("gpu", 1344, 16)],
)
def test_larger_images_are_encoded_fewer_at_once_beside_a_cpu(monkeypatch, backend, image_size, images):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    assert encoding.batch_size(image_size) == images


def test_a_changed_photograph_is_encoded_anew(small_black_box, images, tmp_path):
    path = tmp_path / "copy.jpg"
    path.write_bytes(images[0].path.read_bytes())
    changed = [ImageFile(path), *images[1:]]
    _views(small_black_box, changed, tmp_path / "cache")
    assert _views(small_black_box, changed, tmp_path / "cache")[1] == 0

    path.write_bytes(images[-1].path.read_bytes())
    assert _views(small_black_box, changed, tmp_path / "cache")[1] == 36


@pytest.mark.parametrize("left", [0, 1000])
def test_a_damaged_entry_is_encoded_anew(small_black_box, images, tmp_path, left):
    first, _ = _views(small_black_box, images, tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:left])
    again, encoded = _views(small_black_box, images, tmp_path)

    assert encoded == 36
    np.testing.assert_array_equal(first, again)


class _CountedImage:
    """A photograph that notes when it is decoded."""

    def __init__(self, image, decoded):
        self.open = lambda: decoded.append(image) or image.open()


@pytest.mark.parametrize(("views", "at_most"), [(1, 8 + 16), (8, 1 + 2)])
def test_decoding_runs_ahead_of_the_tower_but_never_by_much(images, views, at_most):
    decoded = []
    many = [_CountedImage(image, decoded) for image in images * 20]
    crops = [[pixels.centre_crop] * views] * len(many)
    batches = pixels.batches(many, crops, size=32, batch_size=8, threads=2)
    next(batches)

    assert len(decoded) <= at_most  # those of the batch in hand, and two batches ahead
    assert sum(len(batch) for batch in batches) + 8 == 240 * views
    assert len(decoded) == 240


def _encode_with_a_cache(folder, images, answers):
    black_box = craft_jax.load_black_box("bundled", ("pizza", "grand piano"))
    images = [ImageFile(path) for path in images]
    answers.put(_views(black_box, images, folder)[0])


@pytest.mark.slow
def test_two_processes_that_encode_at_once_share_a_cache(images, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    arguments = (tmp_path, [image.path for image in images], answers)
    workers = [spawn.Process(target=_encode_with_a_cache, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    first, second = (answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()

    np.testing.assert_array_equal(first, second)
    assert len(list(tmp_path.iterdir())) == 1


def _write_often(path, value):
    for _ in range(30):
        feature_cache.write(path, np.full((500, 64), value, np.float32))


def test_a_reader_never_sees_a_half_written_entry_of_two_writers(tmp_path):
    path, like = tmp_path / "entry.npz", jax.ShapeDtypeStruct((500, 64), np.float32)
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_often, args=(path, value)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.append(feature_cache.read(path, like))
    for writer in writers:
        writer.join()

    assert seen
    assert all(entry is not None and len(np.unique(np.asarray(entry))) == 1 for entry in seen)
    assert [file.name for file in tmp_path.iterdir()] == ["entry.npz"]


def test_a_cache_that_cannot_be_written_stops_nothing(small_black_box, images):
    assert _views(small_black_box, images, Path("/proc/nowhere"))[1] == 36


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_any_number_of_devices_encodes_to_the_same_bits(small_black_box, images, devices, monkeypatch):
    monkeypatch.setattr("craft_jax.encoding.encoder.batch_size", lambda _: 5)
    one, _ = _views(small_black_box, images)
    metered = Metered(small_black_box, budget=None)
    spread = Spread(jax.devices()[:devices])
    several = Encoder(metered, spread=spread).training_views(images, views=3, seed=1)

    np.testing.assert_array_equal(several, one)
    assert metered.meter.ledger.images_encoded == 36


def test_an_encoder_shows_how_far_it_is(small_black_box, images, monkeypatch):
    monkeypatch.setattr("craft_jax.progress._BETWEEN_LINES", 0)
    monkeypatch.setattr("craft_jax.encoding.encoder.batch_size", lambda _: 16)
    stream = io.StringIO()
    encoder = Encoder(Metered(small_black_box, budget=None), stream=stream)
    encoder.training_views(images, views=3, seed=1)

    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        f"encoded {done} of 36 images" for done in (16, 32, 36)
    ]


def test_a_long_encoding_says_how_far_it_is():
    stream, now = io.StringIO(), itertools.chain([0.0], *((at, at) for at in (4.0, 12.0, 15.0, 30.0)))
    with EncodingProgress(6400, stream, clock=lambda: next(now)) as progress:
        for done in (800, 1600, 2400, 6400):
            progress.show(done)

    assert stream.getvalue().splitlines() == [
        "encoded 1,600 of 6,400 images, 00:48 left",
        "encoded 6,400 of 6,400 images, 00:00 left",
    ]
