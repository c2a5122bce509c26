"""Folders that a user names, and the locks that keep two processes out of one."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import craft_jax
from craft_jax import files, folders, prediction
from craft_jax.errors import UserError
from craft_jax.main import main
from craft_jax.sweep import command

CONFIG = "--config=configs/demo.py"


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "https://host/run", "file:///tmp/run"])
@pytest.mark.parametrize(
    "command",
    [
        lambda url: main(["main", CONFIG, f"--workdir={url}"]),
        lambda url: command.main(["sweep", CONFIG, f"--workdir={url}"]),
        lambda url: prediction.main(["predict", f"--checkpoint={url}", "photo.jpg"]),
    ],
    ids=["main", "sweep", "predict"],
)
def test_a_url_is_refused_as_a_folder_before_anything_is_asked_or_made(command, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(Path(__file__).parent.parent / "configs")
    with pytest.raises(UserError, match=f"^--(workdir|checkpoint)={url}: a URL.*mounted"):
        command(url)

    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


@pytest.mark.parametrize("workdir", ["gs://bucket/run", Path("gs://bucket/run")])
def test_training_from_python_refuses_a_url_too(workdir, small_black_box, small_set, small_config):
    with pytest.raises(UserError, match="a URL"):
        craft_jax.train(small_black_box, small_set, small_config, workdir)


@pytest.mark.parametrize("folder", ["runs/demo", "c:/runs", "a:b/c", "/data/x=1/y", "run:1/seed:2"])
def test_folders_with_unusual_names_are_none_the_less_folders(folder):
    assert folders.named(folder, "--workdir") == Path(folder)


def test_a_folder_whose_path_is_not_utf_8_is_refused_before_anything_is_asked(tmp_path, monkeypatch):
    inside = tmp_path / os.fsdecode(b"w\xe9")
    inside.mkdir()
    with pytest.raises(
        UserError, match=r"^--workdir=.*w\\xe9: the path .* is not UTF-8 text; choose or rename a folder"
    ):
        main(["main", CONFIG, f"--workdir={inside}"])
    monkeypatch.chdir(inside)
    with pytest.raises(UserError, match=r"^workdir=run: the path .*w\\xe9/run is not UTF-8 text"):
        folders.named("run", "--workdir")
    assert not list(inside.iterdir())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert folders.named("~/runs", "--workdir") == tmp_path / "runs"
    root = Path(__file__).parent.parent
    config = f"--config={root}/configs/demo.py"

    for attempt in (
        lambda: main(["main", config, "--workdir=~/file/run"]),
        lambda: command.main(["sweep", config, "--workdir=~/file/run", "--shots=1", "--seeds=1"]),
        lambda: prediction.main(["predict", "--checkpoint=~/file", "photo.jpg"]),
    ):
        with pytest.raises((UserError, OSError)) as caught:
            attempt()
        assert str(tmp_path / "file") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(UserError, match="^workdir=~nobody-here/x: no such home folder"):
        folders.named("~nobody-here/x", "--workdir")


def _append_alone(path):
    """Reads, waits and writes: what two at once would lose is seen in the sum."""
    for _ in range(20):
        with files.sole_writer(path, busy=lambda: None):
            count = int((path / "count").read_text())
            time.sleep(0.001)
            (path / "count").write_text(str(count + 1))


def test_a_lock_leaves_no_file_and_is_never_had_by_two(tmp_path):
    (tmp_path / "count").write_text("0")
    workers = [threading.Thread(target=_append_alone, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)

    assert (tmp_path / "count").read_text() == "80"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    path = str(tmp_path / ".writing")
    hold = f"import filelock; lock = filelock.FileLock({path!r}); lock.acquire(); print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(UserError, match="another run is writing into"), files.sole_writer(tmp_path):
        raise AssertionError
    other.kill()
    other.communicate()

    with files.sole_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".writing"]
    assert list(tmp_path.iterdir()) == []
