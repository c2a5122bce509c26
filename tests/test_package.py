"""The command craft-jax, and what comes with the package, away from the repository."""

import subprocess
import sys
from pathlib import Path

import pytest

from craft_jax import __main__, main
from craft_jax.config import packaged
from craft_jax.errors import UserError
from craft_jax.sweep import plan

CONFIGS = Path(__file__).parent.parent / "configs"


def _run(capsys, monkeypatch, *arguments):
    """Exit status, standard output and standard error of craft-jax."""
    monkeypatch.setattr(sys, "argv", ["craft-jax", *arguments])
    try:
        __main__.main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize("command", ["tune", "predict", "sweep", "clients", "serve"])
def test_each_command_is_listed_and_shows_its_usage(command, capsys, monkeypatch):
    assert f"\n  {command} " in _run(capsys, monkeypatch, "--help")[1]

    status, shown, _ = _run(capsys, monkeypatch, command, "--help")
    assert status == 0
    assert shown.startswith(f"usage: craft-jax {command} --")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a command is missing; there are tune, predict, compare, export, sweep, clients, serve"),
        (["tuna"], "craft-jax has no command 'tuna'; did you mean tune? there are"),
        (["tune"], "--config is missing, or its get_config returns nothing; try --config=demo"),
        (["tune", "--config=demmo"], "no settings are called 'demmo'; did you mean demo? there are aircraft, caltech,"),
        (["tune", "--config", "demo:papr"], "no recipe 'papr'"),
        (["tune", "--config=demo", "--config.data.shots=0"], "data.shots=0 must be at least 1"),
        (
            ["tune", "--config=configs/demo.py"],
            "'configs/demo.py'; the one that comes with the package is --config=demo",
        ),
        (["sweep", "--config=demo,pets:paper,catech"], "no recipe 'catech'"),
        (["sweep", "--config=demo,catech"], "no settings are called 'catech'; did you mean caltech?"),
        (["predict", "a.jpg"], "a checkpoint and at least one image are needed; usage: craft-jax predict"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, shown, told = _run(capsys, monkeypatch, *arguments)

    assert (status, shown) == (2, "")
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1


def test_help_and_version_wait_for_nothing():
    code = (
        "import sys; from craft_jax.__main__ import main\n"
        "for asked in ('--help', '--version'):\n    sys.argv = ['craft-jax', asked]; main()\n"
        "print(sorted({'jax', 'numpy', 'ml_collections', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usage, *_, version, loaded = done.stdout.splitlines()

    assert usage == "usage: craft-jax COMMAND [--help] ..."
    assert version.startswith("craft_jax 0.")
    assert loaded == "[]"


def test_what_some_runs_alone_need_is_not_imported_by_the_others_and_missed_in_one_line():
    code = """
import importlib, pkgutil, sys
for missing in ("evosax", "matplotlib", "tensorflow_datasets"):
    sys.modules[missing] = None
import craft_jax
for module in pkgutil.walk_packages(craft_jax.__path__, "craft_jax."):
    if not module.name.endswith(("__main__", "on_ray")):  # Ray's own command alone imports the latter
        importlib.import_module(module.name)
from craft_jax.sweep import plot
def told(what):
    try:
        what()
    except craft_jax.UserError as error:
        print(error)
told(lambda: craft_jax.load_dataset(craft_jax.DataConfig(source="tfds", tfds="caltech101"), seed=1))
told(lambda: craft_jax.method.estimators.check_installed(craft_jax.SearchConfig(estimator="cma-es")))
told(lambda: plot.draw([], __import__("pathlib").Path("table.png")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [(line.split(" needs ")[0], line.split("; ")[-1]) for line in done.stdout.splitlines()] == [
        ("data.source=tfds", "pip install tensorflow-datasets"),
        ("search.estimator=cma-es", "pip install evosax"),
        ("table.png", "pip install matplotlib"),
    ]


def test_settings_are_found_by_name_and_a_file_of_ones_own_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert packaged.names() == sorted(path.stem for path in CONFIGS.glob("*.py"))
    assert packaged.found("demo:paper") == f"{packaged.FOLDER}/demo.py:paper"
    assert Path(packaged.found("caltech")).samefile(CONFIGS / "caltech.py")
    assert [packaged.found(file) for file in ("mine.py:zip", "configs/demo.py")] == ["mine.py:zip", "configs/demo.py"]
    (tmp_path / "demo").write_text("")
    assert packaged.found("demo") == "demo"


def test_the_sweep_takes_names_and_files_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text((CONFIGS / "demo.py").read_text())
    found = plan.read_settings("demo:unified,head-only,mine.py:paper,caltech:tfds,paper,pets", [])

    assert list(found) == ["demo-unified-head-only", "mine-paper", "caltech-tfds-paper", "pets"]
    assert found["caltech-tfds-paper"].data.source == "tfds"


def test_a_name_is_the_same_settings_and_the_same_workdir_as_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(main, "_load", lambda config: seen.append(config) or (_ for _ in ()).throw(UserError("seen")))
    for file in ("demo:paper", f"{CONFIGS}/demo.py:paper"):
        with pytest.raises(UserError, match="seen"):
            main.main(["main", f"--config={file}"])

    assert seen[0] == seen[1]
    assert main.label_of(packaged.found("demo:paper")) == "demo-paper"
