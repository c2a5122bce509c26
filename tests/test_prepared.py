"""Caltech101 as TensorFlow Datasets prepares it, read without TensorFlow."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craft_jax import data, main
from craft_jax.config import DataConfig
from craft_jax.data.readers import tfds
from craft_jax.errors import UserError
from tests.conftest import BUNDLED

CONFIGS = Path(__file__).parent.parent / "configs"
pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own, of its dependencies


def _prepare(
    folder, file_format="array_record", file_ids=("image/file_name",), parts=("train", "test"), numbered=False
):
    """Lets TFDS's own writer fill `folder`: small_caltech/3.0.2, two classes of ten images, the last four for test.

    Where they are `numbered`, the images of each part go by numbers from 1, as in Stanford Cars.
    """
    import tensorflow_datasets as tfds

    class SmallCaltech(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "small_caltech"  # one that TFDS does not know, so that it is read from its files alone
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                **dict.fromkeys(file_ids, tfds.features.Text()),
                "label": tfds.features.ClassLabel(names=["pizza", "grand_piano"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            ranges = {"train": (0, 6), "test": (6, 10)} if "test" in parts else {"train": (0, 10)}
            return {part: self._generate_examples(*ranges[part]) for part in parts}

        def _generate_examples(self, start, stop):
            number = 0
            for name in ("pizza", "grand_piano"):
                for path in sorted((BUNDLED / "images" / name).iterdir())[start:stop]:
                    number += 1
                    yield (
                        f"{name}/{path.name}",
                        {
                            "image": str(path),
                            **dict.fromkeys(file_ids, f"{number:05d}" if numbered else path.name),
                            "label": name,
                        },
                    )

    SmallCaltech(data_dir=folder, file_format=file_format).download_and_prepare()
    return folder


@pytest.fixture(scope="module")
def prepared_caltech(tmp_path_factory):
    """The set as array_record, its records naming their files."""
    return _prepare(tmp_path_factory.mktemp("tensorflow_datasets"))


def _split_file(folder, train=5, names=("pizza", "grand_piano")):
    """A split in CoOp's form that differs from TFDS's: it trains on the last images of each class."""
    rows = {"train": [], "val": [], "test": []}
    for label, name in enumerate(names):
        for i, path in enumerate(sorted((BUNDLED / "images" / name).iterdir())[:10]):
            part = "train" if i >= 10 - train else "val" if i == 0 else "test"
            rows[part].append([f"{name}/{path.name}", label, name])
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(rows))
    return rows


def test_a_prepared_set_is_read_without_tensorflow_and_says_that_its_split_is_tfdss(prepared_caltech):
    config = DataConfig(source="tfds", tfds="small_caltech", root=str(prepared_caltech), shots=4)
    few_shots = data.load(config, seed=1)

    assert few_shots.class_names == ("pizza", "grand piano")
    assert sorted(item.label for item in few_shots.train) == [0] * 4 + [1] * 4
    assert len(few_shots.test) == 8
    assert few_shots.split == "TFDS split of small_caltech/3.0.2"
    assert min(few_shots.train[0].image.open().size) == 64
    assert "tensorflow" not in sys.modules


def test_records_are_joined_to_a_split_in_coops_form_by_class_and_file(prepared_caltech):
    rows = _split_file(prepared_caltech)
    config = DataConfig(
        source="tfds", tfds="small_caltech", root=str(prepared_caltech), split="split_zhou_Caltech101.json", shots=5
    )
    joined = data.load(config, seed=1)

    assert joined.split == "split_zhou_Caltech101, joined to TFDS's small_caltech/3.0.2"
    assert [len(part) for part in (joined.train, joined.val, joined.test)] == [10, 2, 8]
    for item, (path, label, _) in zip(joined.test, rows["test"], strict=True):
        assert item.label == label
        np.testing.assert_array_equal(
            np.asarray(item.image.open()), np.asarray(Image.open(BUNDLED / "images" / path).convert("RGB"))
        )
    assert "tensorflow" not in sys.modules


def test_a_set_without_a_test_split_can_follow_a_split_file(tmp_path):
    folder = _prepare(tmp_path, parts=("train",))
    _split_file(folder)

    with pytest.raises(UserError, match="has no test split, only train; set data.split to a split file in CoOp's form"):
        tfds.load("small_caltech", str(folder))
    assert len(tfds.load_joined("small_caltech", str(folder), folder / "split_zhou_Caltech101.json").test) == 8


def test_images_numbered_from_1_in_each_part_are_joined_by_part(tmp_path):
    folder = _prepare(tmp_path, file_ids=("id",), numbered=True)
    rows = {
        "train": [["cars_test/00001.jpg", 0, "pizza"], ["cars_train/00012.jpg", 1, "piano"]],
        "val": [],
        "test": [["cars_train/00001.jpg", 0, "pizza"]],
    }
    (folder / "split.json").write_text(json.dumps(rows))
    joined = tfds.load_joined("small_caltech", str(folder), folder / "split.json")
    pizzas, pianos = (sorted((BUNDLED / "images" / name).iterdir()) for name in ("pizza", "grand_piano"))

    items = [*joined.train, *joined.test]
    for item, path in zip(items, (pizzas[6], pianos[5], pizzas[0]), strict=True):
        np.testing.assert_array_equal(np.asarray(item.image.open()), np.asarray(Image.open(path).convert("RGB")))


def test_a_set_may_be_named_with_its_version(prepared_caltech):
    assert len(tfds.load("small_caltech:3.0.2", str(prepared_caltech)).test) == 8


def test_two_classes_that_read_the_same_are_refused(prepared_caltech, monkeypatch):
    monkeypatch.setattr(tfds, "_label_names", lambda *_: ["grand_piano", "grand piano"])

    with pytest.raises(UserError, match="data.tfds='small_caltech': labels 0 and 1 are both called 'grand piano'"):
        tfds.load("small_caltech", str(prepared_caltech))


def test_a_split_file_of_other_images_is_refused(prepared_caltech, tmp_path):
    _split_file(tmp_path, names=("pizza", "sunflower"))

    with pytest.raises(UserError, match=r"10 of its 20 images are found .* give the split file of this set"):
        tfds.load_joined("small_caltech", str(prepared_caltech), tmp_path / "split_zhou_Caltech101.json")


def test_records_that_do_not_name_their_files_cannot_be_joined(tmp_path):
    folder = _prepare(tmp_path, file_ids=())
    _split_file(folder)

    with pytest.raises(UserError, match="does not say which file a record came from.*leave data.split empty"):
        tfds.load_joined("small_caltech", str(folder), folder / "split_zhou_Caltech101.json")


def test_a_set_prepared_as_parquet_is_read_too(tmp_path):
    assert len(tfds.load("small_caltech", str(_prepare(tmp_path, file_format="parquet"))).test) == 8


def test_a_set_prepared_in_a_format_without_random_access_says_how_to_prepare_it(tmp_path):
    folder = _prepare(tmp_path)
    for info in folder.rglob("dataset_info.json"):
        info.write_text(info.read_text().replace("array_record", "tfrecord"))

    with pytest.raises(UserError, match=r"cannot be read record by record .*file_format='array_record'.*prepare\(\)"):
        tfds.load("small_caltech", str(folder))


@pytest.mark.parametrize(
    ("name", "read"), [("/a/apse/indoor", "indoor apse"), ("/a/abbey", "abbey"), ("grand_piano", "grand piano")]
)
def test_sun397s_class_names_read_from_their_end(name, read):
    assert tfds._class_name(name) == read


def test_a_set_that_is_not_prepared_names_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError, match=r"data.tfds='caltech101' is not prepared.*download_and_prepare\(\)"):
        tfds.load("caltech101", str(tmp_path))


def test_the_main_job_says_in_one_line_that_a_set_is_not_prepared(tmp_path):
    (tmp_path / "tfds").mkdir()
    arguments = [f"--config={CONFIGS}/caltech.py:tfds", f"--config.data.root={tmp_path}/tfds"]
    with pytest.raises(UserError, match="data.tfds='caltech101' is not prepared in .*download_and_prepare") as error:
        main.main(["main", *arguments, f"--workdir={tmp_path}/run"])

    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_set_is_named():
    with pytest.raises(UserError, match="data.tfds='caltech1001' is no data set that TFDS knows"):
        tfds.load("caltech1001", "")
