"""Labels of many images: as CSV, sorted into folders, and unsure below a threshold."""

import csv
import sys

import pytest
from PIL import Image

from craft_jax import labelling, prediction
from craft_jax.errors import UserError
from craft_jax.reporting import sort_into
from craft_jax.reporting.labelled import folder_name
from craft_jax.training import checkpoints


@pytest.fixture(scope="module")
def checkpoint(tuned, tmp_path_factory):
    with checkpoints.Checkpoints(tmp_path_factory.mktemp("run")) as run:
        run.save(0, {"nothing": prediction.np.zeros(1)}, tuned, {}, refined_loss=0.0)
    return run.folder


def photographs(folder, *names):
    folder.mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (40, 40), (90 * i, 30, 200 - 60 * i)).save(folder / name)
    return folder


def test_labels_go_to_a_csv_and_copies_to_folders_and_nothing_is_moved(checkpoint, tmp_path, capsys):
    images = photographs(tmp_path / "images", "=a.png", "b.png")
    (images / "c\x1b[31m\n.png").write_bytes(b"")
    command = ["predict", f"--checkpoint={checkpoint}", f"--csv={tmp_path / 'out.csv'}", f"--sort={tmp_path / 'by'}"]
    with pytest.raises(UserError, match="1 of 3 images could not be read"):
        prediction.main([*command, str(images)])
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    copies = {path.relative_to(tmp_path / "by").as_posix() for path in (tmp_path / "by").rglob("*.png")}

    out, err = capsys.readouterr()
    assert out == f"2 images labelled: {tmp_path / 'out.csv'}\n"
    assert f"{images}/c\\x1b[31m\\n.png" in err
    assert len([line for line in err.splitlines() if not line.startswith("labelled ")]) == 1
    assert [row["error"] != "" for row in rows] == [False, False, True]
    assert copies == {f"{row['label']}/{name}" for row, name in zip(rows, ["=a.png", "b.png"], strict=False)}
    assert {path.name for path in images.iterdir()} == {"=a.png", "b.png", "c\x1b[31m\n.png"}


def test_what_is_less_likely_than_the_threshold_is_unsure(checkpoint, tmp_path, capsys):
    images = photographs(tmp_path / "images", "a.png")
    prediction.main(
        ["predict", f"--checkpoint={checkpoint}", "--threshold=1", f"--sort={tmp_path / 'by'}", "--link", str(images)]
    )

    assert " unsure " in capsys.readouterr().out
    assert (tmp_path / "by" / "unsure" / "a.png").readlink() == images / "a.png"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threshold=2"], "must be a probability"),
        (["--link"], "give --sort=FOLDER with it"),
        (["--csv=out.csv", "--json"], "--json prints; give one of them"),
        (["--csv=out.csv", "--top=3"], "--top=3 prints; give one of them"),
        (["--sort=a/by"], "--sort=a/by lies in a, whose images are labelled; choose a folder outside"),
        (["--sort=."], r"--sort=. holds \., whose images are labelled; choose a folder outside"),
        (["--output=out"], "--output needs --engine=ray"),
        (["--engine_option=num_gpus=1"], "--engine_option needs --engine=ray"),
        (["--engine=ray"], "--engine=ray needs --output=FOLDER"),
        (["--engine=ray", "--output=out", "--csv=a.csv"], "--csv does not go with --engine=ray, which writes Parquet"),
        (["--engine=ray", "--output=out", "--engine_option=gpus"], "--engine_option=gpus must be NAME=VALUE"),
        (["--engine=ray", "--output=s3://bucket/out"], "--output=s3://bucket/out: a URL"),
        (["--sort=~nobody-of-this-name/x"], "no such home folder; write the path in full"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message, checkpoint):
    with pytest.raises(UserError, match=message):
        prediction.main(["predict", f"--checkpoint={checkpoint}", *flags, "a"])


def test_a_model_beside_the_command_is_the_same_for_actors_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "bundled"):
        (tmp_path / name).mkdir()

    assert prediction._in_full("clip") == str(tmp_path / "clip")
    assert [prediction._in_full(name) for name in ("", "bundled", "openai/clip")] == ["", "bundled", "openai/clip"]


def test_ray_that_is_not_installed_is_one_line_with_the_remedy(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "craft_jax.labelling.on_ray", raising=False)
    monkeypatch.delattr(labelling, "on_ray", raising=False)

    with pytest.raises(UserError, match=r"--engine=ray needs ray\[data\], .*; pip install ray\[data\]$"):
        prediction.main(["predict", f"--checkpoint={checkpoint}", "--engine=ray", "--output=out", "a"])


def test_another_image_of_the_same_name_is_kept_beside_and_the_same_is_put_once(tmp_path):
    one, other = (photographs(tmp_path / name, "x.png", "y.png") for name in ("one", "other"))
    (other / "y.png").replace(other / "x.png")
    places = [
        sort_into(tmp_path / "by", folder / "x.png", "cat", link=False).name for folder in (one, other, one, other)
    ]

    assert places == ["x.png", "x-2.png", "x.png", "x-2.png"]


@pytest.mark.parametrize(
    ("label", "name"),
    [("../etc", "__etc"), ("a/b", "a_b"), (".hidden", "_hidden"), ("two\nlines", "two_nlines"), ("", "_")],
)
def test_a_label_makes_one_folder_wherever_it_points(label, name):
    assert folder_name(label) == name


def test_long_labels_make_folders_apart():
    names = {folder_name("ش" * 300 + end) for end in "ab"}

    assert len(names) == 2
    assert all(len(name.encode()) < 255 for name in names)
