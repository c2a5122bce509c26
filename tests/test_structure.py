"""The rooms of the house: imports run downward only, and the public names are there."""

import ast
from pathlib import Path

import pytest

import craft_jax

PACKAGE = Path(craft_jax.__file__).parent

# Left to right as data flows; a room imports only rooms before it.
ROOMS = [
    "errors", "folders", "atomic", "preemption", "entry", "validation", "config", "identity", "published", "recipes",
    "variants", "randomness", "data", "blackbox", "prompt", "estimators", "searches", "divergence", "objectives",
    "refinement", "hosts", "meeting", "devices", "collaborative", "progress", "feature_cache", "encoding",
    "checkpoints", "evaluation", "calibration", "choice", "assembly", "protocols", "metrics_log", "report", "record",
    "training", "main", "plan", "execution", "results", "plot", "table", "fanout", "sweep", "prediction", "predict",
]  # fmt: skip
MATHEMATICS = ["prompt", "estimators", "objectives", "refinement"]


def _imports(path):
    """Every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(room):
    folder = PACKAGE / room
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def _rooms_imported(room):
    modules = (module.split(".") for file in _files(room) for module in _imports(file))
    return {parts[1] for parts in modules if parts[0] == "craft_jax" and len(parts) > 1} & set(ROOMS) - {room}


def test_every_module_has_its_room():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert found - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    assert _rooms_imported(room) <= set(ROOMS[: ROOMS.index(room)])


@pytest.mark.parametrize("room", MATHEMATICS)
def test_the_mathematics_does_not_know_the_black_box(room):
    assert "blackbox" not in _rooms_imported(room)


def test_only_the_black_boxs_room_imports_transformers():
    importers = {
        room
        for room in ROOMS
        for file in _files(room)
        for module in _imports(file)
        if module.startswith("transformers")
    }

    assert importers == {"blackbox"}


@pytest.mark.parametrize("name", craft_jax.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(craft_jax, name).__doc__
