"""Collections on a Ray cluster of two nodes, whose actors are killed, and by a command that is killed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is not installed (extra ray)")

import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster

from craft_jax import prediction
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.errors import UserError
from craft_jax.labelling import on_ray, units
from craft_jax.training import checkpoints
from tests import dying, processes
from tests import small_collections as small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, and sockets that it leaves open
]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a processor each."""
    os.environ["XLA_FLAGS"] = processes.xla_flags(1)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for `tests.dying`
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster
    ray.shutdown()
    del os.environ["RAY_ADDRESS"]
    cluster.shutdown()


@pytest.fixture(scope="module")
def checkpoint(tuned, tmp_path_factory):
    with checkpoints.Checkpoints(tmp_path_factory.mktemp("run")) as run:
        run.save(0, {"nothing": np.zeros(1)}, tuned, {}, refined_loss=0.0)
    return run.folder


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Five units: a folder of two, of which an image is damaged, two Parquet files, a tar file."""
    monkeypatch.setattr(units, "IMAGES_A_UNIT", 4)
    root = small.folder(tmp_path / "all", range(6))
    (root / "inner" / "6.png").write_bytes(b"damaged")
    tables = [small.table(tmp_path / f"{i}.parquet", range(10 * i, 10 * i + 3), plain=i == 1) for i in (1, 2)]
    return [str(source) for source in (root, *tables, small.shard(tmp_path / "a.tar", range(40, 44)))]


IMAGES = [f"inner/{i}.png" for i in range(7)], ["0", "1", "2"] * 2, [f"{i:05d}.png" for i in range(40, 44)]


def labelled(folder):
    return parquet.read_table(folder / "labels").to_pylist()


def label(checkpoint, folder, *more):
    prediction.main(["predict", f"--checkpoint={checkpoint}", "--engine=ray", f"--output={folder}", *more])


def test_actors_are_killed_and_every_image_is_labelled_once_as_without_ray(
    cluster, checkpoint, collection, tmp_path, monkeypatch, small_black_box, tuned
):
    monkeypatch.setattr(on_ray, "Actor", dying.Twice)
    with pytest.raises(UserError, match="1 of 17 images could not be read; the column error says why"):
        label(checkpoint, tmp_path / "out", "--top=2", *collection)
    rows = labelled(tmp_path / "out")
    numbers = [int(re.findall(r"\d+", row["key"])[0]) + 10 * int("1.par" in row["source"]) for row in rows]
    numbers = [n + 20 * int("2.par" in row["source"]) for n, row in zip(numbers, rows, strict=True)]
    read = [(n, row) for n, row in zip(numbers, rows, strict=True) if not row["error"]]
    for number in {number for number, _ in read}:
        (tmp_path / f"{number}.png").write_bytes(small.png(number))
    alone = prediction.predict(tuned, small_black_box, [tmp_path / f"{number}.png" for number, _ in read])

    assert len(list((tmp_path / "turns").iterdir())) >= 6
    assert sorted(row["key"] for row in rows) == sorted(key for keys in IMAGES for key in keys)
    assert len({(row["source"], row["key"]) for row in rows}) == len(rows) == 17
    assert [row["key"] for row in rows if row["error"]] == ["inner/6.png"]
    for (_, row), probabilities in zip(read, alone, strict=True):
        assert row["label"] == tuned.class_names[probabilities.argmax()]
        np.testing.assert_allclose(
            [best["probability"] for best in row["top"]], np.sort(probabilities)[:0:-1], rtol=1e-5
        )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["labelling.json", "labels", "plan"]


def test_a_shard_that_kills_every_actor_is_named_and_the_others_are_labelled(
    cluster, checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(on_ray, "Actor", dying.Always)
    sources = [str(small.shard(tmp_path / f"{name}.tar", range(2))) for name in ("doomed", "well")]
    with pytest.raises(UserError, match="1 of 2 parts could not be labelled; the others are"):
        label(checkpoint, tmp_path / "out", *sources)

    assert "doomed.tar: 5 actors were lost at it" in capsys.readouterr().err
    assert {row["source"] for row in labelled(tmp_path / "out")} == {sources[1]}


def test_a_shard_that_cannot_be_read_is_named_and_labelled_once_it_can(cluster, checkpoint, tmp_path, capsys):
    good, bad = (small.table(tmp_path / f"{name}.parquet", range(3)) for name in ("good", "bad"))
    content = bad.read_bytes()
    bad.write_bytes(content[:-100])
    with pytest.raises(UserError, match="1 of 2 parts could not be labelled"):
        label(checkpoint, tmp_path / "out", str(good), str(bad))
    assert "bad.parquet: cannot be read as Parquet" in capsys.readouterr().err
    bad.write_bytes(content)
    label(checkpoint, tmp_path / "out", str(good), str(bad))

    assert capsys.readouterr().out == f"6 images labelled: {tmp_path / 'out' / 'labels'}\n"
    assert sorted((row["source"], row["key"]) for row in labelled(tmp_path / "out")) == [
        (str(file), str(i)) for file in (bad, good) for i in range(3)
    ]


def test_a_command_that_is_killed_goes_on_where_it_was(checkpoint, tmp_path):
    sources = [str(small.shard(tmp_path / f"{i}.tar", range(40 * i, 40 * i + 40))) for i in range(12)]
    command = [sys.executable, "-m", "craft_jax.predict", f"--checkpoint={checkpoint}", "--engine=ray"]
    command += ["--engine_option=concurrency=1", f"--output={tmp_path / 'out'}", *sources]
    environment = processes.environment(RAY_ADDRESS="local")  # a cluster of its own, which dies with it
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        while not list((tmp_path / "out" / "labels").glob("*.parquet")):
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
        child.kill()
        child.communicate()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "labels").glob("*.parquet")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert all(re.fullmatch(r"labelled \d+ of \d+ parts, .* left", line) for line in done.stderr.splitlines())
    assert done.stdout == f"480 images labelled: {tmp_path / 'out' / 'labels'}\n"
    assert 0 < len(before) < 12
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len({(row["source"], row["key"]) for row in labelled(tmp_path / "out")}) == 480


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("foo=1", "Invalid option keyword foo"),
        ("num_cpus=many", "num_cpus"),
        ("concurrency=0", r"concurrency=0 must be a number of actors, or \(least,most\)"),
        ("concurrency=(3,1)", r"concurrency=\(3, 1\) must be a number of actors, or \(least,most\)"),
        ("concurrency=(1,2,3)", r"concurrency=\(1, 2, 3\) must be a number of actors, or \(least,most\)"),
    ],
)
def test_an_option_that_ray_does_not_take_is_one_line_and_nothing_is_begun(option, message, checkpoint, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        label(checkpoint, tmp_path / "out", f"--engine_option={option}", str(small.folder(tmp_path / "all", [1])))

    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_output_among_what_is_labelled_is_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match="which is labelled; choose a folder outside"):
        label(checkpoint, tmp_path / "all" / "out", str(small.folder(tmp_path / "all", [1])))


def test_a_model_behind_an_api_is_refused_with_the_reason(tuned, tmp_path):
    asked = tuned._replace(black_box=tuned.black_box | {"dtype": "remote", "api": "labels"})
    with checkpoints.Checkpoints(tmp_path / "run") as run:
        run.save(0, {"nothing": np.zeros(1)}, asked, {}, refined_loss=0.0)

    with pytest.raises(UserError, match="its ceilings and its rate are kept by one process.*; label without --engine$"):
        label(run.folder, tmp_path / "out", str(small.folder(tmp_path / "all", [1])))
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_ends_the_command(cluster, checkpoint, tmp_path):
    with pytest.raises(UserError, match="could not be loaded as a CLIP"):
        label(checkpoint, tmp_path / "out", "--model=/nowhere", str(small.folder(tmp_path / "all", [1])))


def test_another_model_than_was_tuned_for_is_an_error_of_the_model_and_not_of_each_unit(tuned, tmp_path):
    model = shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
    settings = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    (unit,) = units.plan([units.find(str(small.shard(tmp_path / "a.tar", [1])))], tmp_path)
    actor = on_ray.Actor(tuned, str(model), on_ray.Labels(1, 0.0, "image", ""), tmp_path)
    told = actor({name: np.array([value]) for name, value in unit._asdict().items()})

    assert told["of_model"] == [True]
    assert "the checkpoint was made for black box" in told["error"][0]
