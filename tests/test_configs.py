"""Every settings file runs end to end on a miniature of the layout that it expects."""

import dataclasses
import json
from pathlib import Path

import pytest

from craft_jax import main, training
from craft_jax.config import config_dict, from_config_dict
from craft_jax.config.published import PUBLISHED, SHOTS, query_budget
from craft_jax.errors import UserError
from tests import miniatures

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = [
    "--config.prompt.std=0.01",
    "--config.black_box.model=bundled", "--config.data.shots=3", "--config.data.views=1", "--config.query_budget=8",
    "--config.search.population_size=8", "--config.refinement.hidden=8", "--config.run.devices=1",
]  # fmt: skip
SPLITS = {
    "caltech": "split_zhou_Caltech101", "pets": "split_zhou_OxfordPets", "cars": "split_zhou_StanfordCars",
    "flowers": "split_zhou_OxfordFlowers", "food": "split_zhou_Food101", "sun": "split_zhou_SUN397",
    "dtd": "split_zhou_DescribableTextures", "eurosat": "split_zhou_EuroSAT", "ucf": "split_zhou_UCF101",
    "aircraft": "FGVC-Aircraft's own lists", "imagenet": "ImageNet's train and validation images",
    "folder": "automatic split",
}  # fmt: skip


def _settings(stem, variant=""):
    module = {}
    exec(compile((CONFIGS / f"{stem}.py").read_text(), stem, "exec"), module)
    return from_config_dict(module["get_config"](variant))


def test_there_is_a_miniature_of_every_settings_file_but_the_demos():
    assert {path.stem for path in CONFIGS.glob("*.py")} - {"demo"} == set(miniatures.NAMES) == set(SPLITS)


# The sets in CoOp's plain layout differ in names alone.
QUICK = ("caltech", "aircraft", "imagenet", "folder")


@pytest.mark.parametrize(
    "stem", [stem if stem in QUICK else pytest.param(stem, marks=pytest.mark.slow) for stem in miniatures.NAMES]
)
def test_a_settings_file_runs_end_to_end_on_its_layout(stem, tmp_path):
    root = miniatures.make(tmp_path / "data", stem)
    main.main([
        "main", f"--config={CONFIGS}/{stem}.py", f"--config.data.root={root}", f"--workdir={tmp_path}/run", *TINY
    ])  # fmt: skip
    result = json.loads((tmp_path / "run" / training.RESULT).read_text())

    assert result["split"].startswith(SPLITS[stem])
    assert (result["classes"], result["train_images"], result["test_images"]) == (3, 9, 12)


@pytest.mark.parametrize("stem", [stem for stem in miniatures.NAMES if stem != "folder"])
def test_every_field_set_has_the_published_settings_as_a_variant(stem):
    plain, paper = _settings(stem), _settings(stem, "paper")
    its = PUBLISHED[plain.data.name]["settings"]

    assert paper.data == dataclasses.replace(plain.data, views=32)
    assert (paper.prompt.std, paper.prompt.bound, paper.consistency.weight) == (
        its["std"],
        its["bound"],
        its["consistency"],
    )
    assert paper.consistency.head_share == 1 / its["n"]
    assert paper.refinement.batch_size == its["batch_size"]
    assert paper.black_box.model == "RN50"


def test_variants_combine():
    both = _settings("caltech", "paper,tfds")

    assert (both.data.source, both.data.tfds, both.data.split) == ("tfds", "caltech101", "")
    assert both.black_box.model == "RN50"


@pytest.mark.parametrize("stem", ["imagenet", "ucf", "aircraft"])
def test_a_set_that_tfds_cannot_stand_in_for_says_why(stem):
    with pytest.raises(UserError, match="variant tfds: .* of still images whose class names a prompt can read; leave"):
        _settings(stem, "tfds")


@pytest.mark.filterwarnings("ignore")  # TFDS's own, of its dependencies
def test_the_version_of_food101_is_one_that_names_its_images(tmp_path):
    import tensorflow_datasets as tfds

    builder = tfds.builder(_settings("food", "tfds").data.tfds, data_dir=tmp_path)

    assert (str(builder.version), "id" in builder.info.features) == ("2.1.0", True)


def test_a_set_of_ones_own_takes_the_published_search_and_head_and_keeps_its_model():
    plain, paper = _settings("folder"), from_config_dict(config_dict(_settings("folder"), "paper").to_dict())

    assert (paper.search.estimator, paper.prompt.std, paper.refinement.dropout) == ("cma-es", 0.2, 0.0)
    assert paper.black_box == plain.black_box


def test_the_published_tables_are_whole_and_their_means_are_the_papers():
    assert len(PUBLISHED) == 11
    means = [sum(its["accuracy"][k] for its in PUBLISHED.values()) / 11 for k in SHOTS]
    zero_shot = sum(its["zero_shot"] for its in PUBLISHED.values()) / 11

    assert zero_shot == pytest.approx(58.77, abs=0.006)
    assert means == pytest.approx([59.49, 61.87, 65.26, 68.44, 71.22], abs=0.006)


def test_the_query_budget_is_the_published_one():
    assert [query_budget(k) for k in SHOTS] == [2000, 4000, 4000, 8000, 8000]
