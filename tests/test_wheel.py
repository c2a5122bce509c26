"""The wheel, installed in an environment of its own and used from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "build", "runs", "dist", "__pycache__", "*.egg-info")


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# Without PYTHONPATH, which would lead to the repository.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}


def _call(*command, cwd):
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # From a copy: what an earlier build left in build/ would go into the wheel.
    sources, made = tmp_path_factory.mktemp("sources") / "craft", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, sources, symlinks=True, ignore=LEFT_OUT)
    done = _call(*PIP, "wheel", "--quiet", "--no-deps", f"--wheel-dir={made}", sources, cwd=made)
    assert done.returncode == 0, done.stderr
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Calls craft-jax of an environment that has the wheel, and this one's other packages, from an empty folder."""
    place, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty")
    venv.create(place)
    python = place / "bin" / "python"
    done = _call(*PIP, f"--python={python}", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (own,) = place.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def call(*arguments):
        return _call(place / "bin" / "craft-jax", *arguments, cwd=folder)

    call.folder = folder
    return call


def test_the_wheel_holds_the_package_its_settings_and_what_is_bundled_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.split("/")[0].split("-")[0] for name in names} == {"craft_jax"}
    settings = sorted(name.split("/")[2] for name in names if name.startswith("craft_jax/configs/"))
    assert settings == sorted(path.name for path in (ROOT / "configs").glob("*.py"))
    modules = {name for name in names if name.endswith(".py")}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "craft_jax").rglob("*.py")}
    assert own <= modules
    assert {"craft_jax/py.typed", "craft_jax/assets/README.md", "craft_jax/assets/caltech24/images.zip"} <= set(names)
    assert len(names) < 300  # the photographs lie in one archive
    assert 12e6 < wheel.stat().st_size < 17e6  # 11 MB of it are the bundled CLIP, 5 MB the bundled photographs


def test_the_command_tunes_and_predicts_away_from_the_repository(wheel, installed):
    assert installed("--version").stdout == f"craft_jax {wheel.name.split('-')[1]}\n"

    tuned = installed(
        "tune", "--config=demo", "--config.query_budget=8", "--config.search.population_size=8",
        "--config.data.shots=1", "--config.data.views=1", "--config.prompt.std=0.01", "--config.refinement.hidden=8",
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    assert "report: runs/demo/report.html" in tuned.stdout
    assert json.loads((installed.folder / "runs" / "demo" / "result.json").read_text())["test_images"] == 638

    image = ROOT / "docs" / "photographs" / "pizza.jpg"
    predicted = installed("predict", "--checkpoint=runs/demo", image)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith(f"{image}  ")
    assert predicted.stdout.endswith(" %\n")


def test_a_typo_lists_the_settings_that_come_with_the_wheel(installed):
    told = installed("tune", "--config=catech")

    assert told.returncode == 2
    assert told.stderr.startswith("error: no settings are called 'catech'; did you mean caltech? there are aircraft, ")
    assert installed("sweep", "--config=caltech:nosuch").stderr.startswith("error: no recipe 'nosuch'")
    # Its own settings are found, not the repository's.
    missing = installed("tune", "--config=caltech", "--config.data.root=nowhere").stderr
    assert missing == "error: data.root=nowhere: no such folder; set it to the one that holds the data\n"
