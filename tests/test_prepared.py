"""Caltech101 as TensorFlow Datasets prepares it, read without TensorFlow."""

import sys

import pytest

from craft_jax import data
from craft_jax.config import DataConfig
from craft_jax.data import prepared
from craft_jax.errors import UserError
from tests.conftest import BUNDLED

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own, of its dependencies


@pytest.fixture(scope="module")
def prepared_caltech(tmp_path_factory):
    """A data_dir that TFDS's own writer filled: caltech101/3.0.2 in array_record, two classes."""
    import tensorflow_datasets as tfds

    class Caltech101(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "image/file_name": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=["pizza", "grand_piano"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 6), "test": self._generate_examples(6, 10)}

        def _generate_examples(self, start, stop):
            for name in ("pizza", "grand_piano"):
                for path in sorted((BUNDLED / "images" / name).iterdir())[start:stop]:
                    yield f"{name}/{path.name}", {"image": str(path), "image/file_name": path.name, "label": name}

    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    Caltech101(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_a_prepared_set_is_read_without_tensorflow_and_says_that_its_split_is_tfdss(prepared_caltech):
    config = DataConfig(source="tfds", tfds="caltech101", root=str(prepared_caltech), shots=4)
    few_shots = data.load(config, seed=1)

    assert few_shots.class_names == ("pizza", "grand piano")
    assert sorted(item.label for item in few_shots.train) == [0] * 4 + [1] * 4
    assert len(few_shots.test) == 8
    assert few_shots.split == "TFDS split of caltech101/3.0.2"
    assert min(few_shots.train[0].photograph.open().size) == 64
    assert "tensorflow" not in sys.modules


def test_a_set_that_is_not_prepared_names_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError, match=r"data.tfds='caltech101' is not prepared.*download_and_prepare\(\)"):
        prepared.load("caltech101", str(tmp_path))


def test_an_unknown_set_is_named():
    with pytest.raises(UserError, match="data.tfds='caltech1001' is no data set that TFDS knows"):
        prepared.load("caltech1001", "")
