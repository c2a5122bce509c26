"""The rooms of the house: doors that name what others may use, imports that run one way, files that stay small."""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest

import craft_jax

PACKAGE = Path(craft_jax.__file__).parent

# Left to right as data flows; a room imports only rooms before it. Those with a folder are entered by their door.
ROOMS = [
    "errors", "files", "folders", "cli", "randomness", "precision", "config", "data", "blackbox", "method",
    "distributed", "progress", "encoding", "tuned_model", "evaluation", "language", "reporting", "training", "watch",
    "labelling", "prediction", "predict", "export", "main", "sweep", "clients", "serve", "__main__",
]  # fmt: skip
MOST_FILES, MOST_LINES = 12, 300


def _files(room):
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


FILES = [(room, file) for room in ROOMS for file in _files(room)]


def _imports(path):
    """Every import of the package's own, at any depth, as (module, name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def _own_imports(path):
    """(room, what is imported from it, whether by its door) of the package's own."""
    for module, name in _imports(path):
        parts = module.split(".")
        if parts[0] != "craft_jax" or (len(parts) == 1 and name not in ROOMS):
            continue
        yield (name, None, True) if len(parts) == 1 else (parts[1], name, len(parts) == 2)


def _door(room):
    """What a room's door names."""
    for node in ast.parse((PACKAGE / room / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _of(found):
    return [pytest.param(*item, id=str(item[1].relative_to(PACKAGE))) for item in found]


def test_every_module_has_its_room():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert found - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    imported = {other for file in _files(room) for other, _, _ in _own_imports(file)} - {room}

    assert imported <= set(ROOMS[: ROOMS.index(room)])


@pytest.mark.parametrize(("room", "file"), _of(FILES))
def test_other_rooms_are_entered_by_their_doors(room, file):
    for other, name, by_door in _own_imports(file):
        if other == room or not (PACKAGE / other).is_dir():
            continue
        assert by_door, f"craft_jax.{other} is entered past its door for {name}"
        assert name is None or name in _door(other), f"the door of craft_jax.{other} does not name {name}"


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_a_door_says_what_its_room_is_for(room):
    docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))

    assert docstring
    assert len(docstring.splitlines()) <= 4


@pytest.mark.parametrize("folder", sorted({file.parent for _, file in FILES}), ids=lambda path: path.name)
def test_no_room_has_more_files_than_a_reader_takes_in(folder):
    assert len([file for file in folder.glob("*.py") if not file.name.startswith("__")]) <= MOST_FILES


@pytest.mark.parametrize(("room", "file"), _of(FILES))
def test_no_module_is_longer_than_a_reader_takes_in(room, file):
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_the_method_knows_no_file_screen_or_host():
    own = {other for file in _files("method") for other, _, _ in _own_imports(file)}
    others = {module.split(".")[0] for file in _files("method") for module, _ in _imports(file)}

    assert own <= {"errors", "randomness", "config", "blackbox", "method"}
    assert not others & {"os", "pathlib", "sys", "json", "tqdm", "orbax", "matplotlib"}


def test_only_the_black_boxs_room_imports_transformers():
    importers = {room for room, file in FILES for module, _ in _imports(file) if module.startswith("transformers")}

    assert importers == {"blackbox"}


# What asks the model: the room of the black box, the server of its owner, and what `Metered.program` books as a whole.
ASKS = {"method/collaborative.py", "method/candidates.py", "clients/searching/steps.py", "encoding/encoder.py"}
QUESTIONS = {"encode_images", "predict", "predict_texts", "predict_texts_in_parts", "predict_for_study"}


def _asked_without_cost(path):
    """The questions that a file calls, or hands on, without the keyword `cost`, but for those inside `program(...)`."""
    tree = ast.parse(path.read_text())
    booked = set()
    for call in (
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ):
        if call.func.attr == "program":
            booked |= {id(node) for argument in call.args for node in ast.walk(argument)}
        if any(keyword.arg == "cost" for keyword in call.keywords):
            booked.add(id(call.func))
    asked = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in QUESTIONS)
    return [node.attr for node in asked if id(node) not in booked]


@pytest.mark.parametrize(("room", "file"), _of(FILES))
def test_every_question_to_a_black_box_says_what_it_costs(room, file):
    if room in ("blackbox", "serve") or str(file.relative_to(PACKAGE)) in ASKS:
        return
    assert _asked_without_cost(file) == []


@pytest.mark.parametrize("name", craft_jax.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(craft_jax, name).__doc__


def test_no_module_stands_in_the_way_of_a_public_name():
    import craft_jax.predict
    from craft_jax.prediction import predict

    assert craft_jax.predict is predict  # though it is a command as a module: python -m craft_jax.predict
    assert set(craft_jax.__all__) & set(ROOMS) == {"predict"}


def test_what_a_user_may_name_is_all_that_is_listed():
    assert set(dir(craft_jax)) == {*craft_jax.__all__, "__version__"}
    assert craft_jax.__version__ == importlib.metadata.version("craft_jax")


def test_the_architectures_tree_has_every_room_in_its_order():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    tree = re.findall(r"^      (\w+)(?:\.py|/) ", page, flags=re.MULTILINE)

    assert tree == [*ROOMS, "configs", "assets"]


def test_what_the_architecture_names_is_there():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)+\w+\.py|\w+\.py)`", page)

    assert not [path for path in named if not any((root / path).exists() for root in (PACKAGE, PACKAGE.parent))]
