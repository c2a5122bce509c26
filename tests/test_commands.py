"""The commands as a user types them."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import craft_jax
from craft_jax import cli, labelling, main, prediction, training
from craft_jax.errors import Interrupted, UserError
from craft_jax.training import checkpoints
from craft_jax.tuned_model import TunedModel
from tests.conftest import BUNDLED

REPOSITORY = Path(__file__).parent.parent
PIZZA = BUNDLED / "images" / "pizza"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, coop_root):
    """The workdir of a short run of the main job on the small set."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    main.main(_arguments(coop_root, workdir))
    return workdir


def _arguments(coop_root, workdir, *more):
    return [
        "main", f"--config={REPOSITORY}/configs/caltech.py", f"--workdir={workdir}", f"--config.data.root={coop_root}",
        "--config.black_box.model=bundled", "--config.data.shots=4", "--config.data.views=2",
        "--config.query_budget=61", "--config.search.estimator=antithetic", "--config.search.sigma=1.0",
        "--config.search.population_size=10", "--config.probe.texts=0", *more,
    ]  # fmt: skip


def test_the_main_job_tunes_on_a_folder_in_coops_layout(tuned, capsys, coop_root):
    main.main(_arguments(coop_root, tuned))
    shown = capsys.readouterr().out

    assert "holds this run, finished" in shown
    assert "| tuned prompt + refinement |" in shown
    assert f"report: {tuned / 'report.html'}" in shown
    result = json.loads((tuned / training.RESULT).read_text())
    assert result["split"] == "split_zhou_Caltech101"
    assert (result["shots"], result["queries"], result["seed"], result["black_box"]) == (4, 61, 1, "bundled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config=nowhere.py"], "--config could not be loaded: .*nowhere.py"),
        (["--config=configs/demo.py", "--config.data.shotz=4"], 'shotz; did you mean "shots"'),
        (["--config=configs/demo.py", "--config.data.shots=four"], "--config.data.shots=four"),
        (["--config=configs/demo.py", "--config.data.shots=0"], "data.shots=0 must be at least 1"),
        (["--config=configs/demo.py", "--config.data.shots=99"], "class 'pizza' has 26 training photographs, fewer"),
        (["--config=configs/demo.py:by-class", "--config.query_budget=8"], "query_budget=8 does not pay for one step"),
        (["--config=configs/demo.py:papr"], "no recipe 'papr'; there are craft, probe, api, by-class, unified, paper"),
        (["--config=configs/ucf.py:tfds"], "variant tfds: TensorFlow Datasets has no ucf101"),
        (["--config=configs/demo.py", "--config.data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["--config=configs/demo.py", "--config.black_box.model=/nowhere"], "black_box.model='/nowhere'"),
        (["--config=configs/demo.py", "--workdir=setup.cfg/x"], "--workdir=setup.cfg/x: cannot write into"),
        (["--config=configs/demo.py", "--config.run.devices=64"], "run.devices=64, and JAX finds 8 here"),
        (["--config=configs/demo.py", "--wordkir=x"], "Unknown command line flag 'wordkir'. Did you mean: workdir"),
        (["--config=configs/demo.py", "more"], "unexpected argument 'more'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    if not any(argument.startswith("--workdir") for argument in arguments):
        arguments = [*arguments, f"--workdir={tmp_path}/run"]

    with pytest.raises(UserError, match=message) as error:
        main.main(["main", *arguments])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return DataConfig(shot=4)",
            r"mine.py:4: TypeError: DataConfig.__init__\(\) got an .* keyword argument 'shot'",
        ),
        ("return math.nothing", "mine.py:4: AttributeError: module 'math' has no attribute 'nothing'"),
        ("import nonesuch", "mine.py:4: ModuleNotFoundError: No module named 'nonesuch'"),
        ("return {}['shots']", "mine.py:4: KeyError: 'shots'"),
        ("return open('/nowhere')", r"mine.py:4: FileNotFoundError: .*'/nowhere'"),
        ("raise ValueError('two\\nlines')", "mine.py:4: ValueError: two lines"),
        ("return 1 +", "mine.py:4: SyntaxError: invalid syntax"),
        ("return DataConfig()", "mine.py: get_config returns DataConfig, not a ConfigDict; return config_dict"),
        ("return Config(data=DataConfig(shots=0))", "^data.shots=0 must be at least 1"),
    ],
)
def test_a_mistake_in_a_settings_file_is_named_with_its_line(body, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        f"import math\nfrom craft_jax.config import Config, DataConfig\ndef get_config(variant=''):\n    {body}\n"
    )

    with pytest.raises(UserError, match=message) as error:
        main.main(["main", f"--config={file}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nonesuch\n", "mine.py:1: ModuleNotFoundError: No module named 'nonesuch'"),
        ("shots = 4\n", "mine.py has no function get_config; see configs/folder.py for one"),
        ("def get_config():\n    return {}\n", "parsing config file: TypeError: get_config.* takes 0 positional"),
    ],
)
def test_a_settings_file_without_what_it_needs_says_so(text, message, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # ml_collections loads one file over another
    (tmp_path / "mine.py").write_text(text)

    with pytest.raises(UserError, match=message) as error:
        main.main(["main", f"--config={tmp_path}/mine.py:paper"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "said"), [({}, "interrupted\n"), ({"interrupted": cli.RESUMES}, cli.RESUMES)])
def test_ctrl_c_promises_to_resume_where_a_command_can(given, said, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.exit_on_user_error(interrupt, [], **given)
    assert end.value.code == 130
    assert capsys.readouterr().err.startswith(said)


def test_each_variant_runs_in_a_workdir_of_its_own(coop_root, tmp_path, monkeypatch):
    workdirs = []

    def train(black_box, dataset, config, workdir, **_):
        workdirs.append(workdir)
        raise Interrupted("far enough")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.chdir(tmp_path)
    for variant in ("", ":unified", ":unified,head-only"):
        with pytest.raises(Interrupted):
            main.main(
                [
                    "main", f"--config={REPOSITORY}/configs/caltech.py{variant}", f"--config.data.root={coop_root}",
                    "--config.black_box.model=bundled", "--config.data.shots=4",
                ]
            )  # fmt: skip

    assert workdirs == [Path("runs") / name for name in ("caltech", "caltech-unified", "caltech-unified-head-only")]


def test_an_unreadable_training_photograph_is_named_and_nothing_is_left(tmp_path, coop_root):
    import shutil

    shutil.copytree(coop_root, tmp_path / "data")
    for path in (tmp_path / "data" / "caltech-101" / "101_ObjectCategories" / "sunflower").iterdir():
        path.write_bytes(b"")

    named = (
        r"^10 photographs are missing or not readable: .*sunflower/image_\d+.jpg; .* the first: not a readable image"
    )
    with pytest.raises(UserError, match=named):  # 4 shots, 2 to choose by and 4 to test
        main.main(_arguments(tmp_path / "data", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_user_error_is_one_line_on_standard_error_and_status_2():
    run = subprocess.run(
        [sys.executable, "-m", "craft_jax.main", "--config=configs/demo.py", "--config.data.shots=0"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: data.shots=0 must be at least 1\n"


@pytest.mark.parametrize("command", ["craft_jax.main", "craft_jax.predict", "craft_jax.sweep"])
def test_help_shows_the_usage_and_does_not_wait_for_jax(command):
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", command, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )

    assert run.returncode == 0
    assert run.stdout.startswith(f"usage: python -m {command} ")
    assert " jax\n" not in run.stderr


def _predict(capsys, *arguments, stdin=""):
    prediction.main(["predict", *map(str, arguments)], io.StringIO(stdin))
    return capsys.readouterr().out.splitlines()


def test_predict_prints_label_and_probability_of_each_image(tuned, capsys):
    images = sorted(PIZZA.iterdir())[:2]
    lines = _predict(capsys, f"--checkpoint={tuned}", *images)

    assert [line.split()[0] for line in lines] == [str(image) for image in images]
    assert all(line.endswith(" %") for line in lines)


def test_predict_as_json_lists_the_best_classes_in_order(tuned, capsys):
    (line,) = _predict(capsys, f"--checkpoint={tuned}", "--json", "--top=5", sorted(PIZZA.iterdir())[0])
    answer = json.loads(line)

    assert [set(entry) for entry in answer["top"]] == [{"label", "probability"}] * 3  # three classes in all
    probabilities = [entry["probability"] for entry in answer["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert (answer["label"], answer["probability"]) == (answer["top"][0]["label"], probabilities[0])


def test_predict_takes_a_folder_and_a_list_on_standard_input_and_answers_alike(tuned, capsys):
    images = sorted(PIZZA.iterdir())
    from_folder = _predict(capsys, f"--checkpoint={tuned}", PIZZA)
    from_list = _predict(capsys, f"--checkpoint={tuned}", "-", stdin="".join(f"{image}\n" for image in images))

    assert len(from_folder) == len(images)
    assert from_list == from_folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=/nowhere", "a.jpg"], "/nowhere holds no checkpoints"),
        (["a.jpg"], "a checkpoint and at least one image are needed"),
        (["--checkpoint={tuned}"], "a checkpoint and at least one image are needed"),
        (["--checkpoint={tuned}", "-"], "the list on standard input is empty"),
        (["--checkpoint={tuned}", "nowhere.jpg"], "1 of 1 images could not be read"),
        (["--checkpoint={tuned}", "configs"], "configs: no image in this folder"),
        (["--checkpoint={tuned}", "--top=0", "a.jpg"], "--top=0 must be at least 1"),
        (["--checkpoint={tuned}", "--model=/nowhere", "setup.cfg"], "'/nowhere' could not be loaded .*reaches$"),
    ],
)
def test_a_mistake_in_predict_is_one_line(arguments, message, tuned, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    with pytest.raises(UserError, match=message) as error:
        _predict(capsys, *(argument.format(tuned=tuned) for argument in arguments))
    assert "\n" not in str(error.value)


def test_predict_whose_model_is_gone_names_the_flag_that_says_where_it_is(tuned, tmp_path, capsys):
    made = checkpoints.open_for_prediction(tuned)
    elsewhere = made.tuned._replace(black_box=made.tuned.black_box | {"model": "/gone/clip"})
    with checkpoints.Checkpoints(tmp_path) as kept:
        kept.save(1, made.state, elsewhere, {}, 0.0)
    photograph = sorted(PIZZA.iterdir())[0]

    with pytest.raises(
        UserError, match="'/gone/clip' could not be loaded .*; the checkpoint was made with it: .* --model$"
    ):
        _predict(capsys, f"--checkpoint={tmp_path}", photograph)
    (line,) = _predict(capsys, f"--checkpoint={tmp_path}", "--model=bundled", photograph)
    assert " pizza " in line


@pytest.mark.parametrize("call", [main.main, lambda argv: craft_jax.load_run(argv[-1].partition("=")[2])])
def test_a_message_names_flags_on_the_command_line_and_arguments_in_python(call, tmp_path, coop_root, monkeypatch):
    def train(*_, **__):
        raise UserError("choose another --workdir")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr("craft_jax.training.finished.open_for_prediction", train)
    with pytest.raises(UserError) as error:
        call(_arguments(coop_root, tmp_path / "run", f"--workdir={tmp_path}"))

    assert str(error.value) == f"choose another {'--' * (call is main.main)}workdir"


@pytest.fixture
def mixed(tmp_path):
    """Three readable photographs, and two between them that are not."""
    one, two, three = sorted(PIZZA.iterdir())[:3]
    (tmp_path / "broken.jpg").write_bytes(one.read_bytes()[:300])
    return [one, tmp_path / "nowhere.jpg", two, tmp_path / "broken.jpg", three]


def test_an_image_that_predict_cannot_read_is_a_line_and_the_rest_goes_on(tuned, mixed, capsys, monkeypatch):
    monkeypatch.setattr(labelling, "CHUNK", 2)
    with pytest.raises(UserError, match="^2 of 5 images could not be read$"):
        prediction.main(["predict", f"--checkpoint={tuned}", *map(str, mixed)])
    shown = capsys.readouterr()
    missing, broken = shown.err.splitlines()

    assert [line.split() for line in shown.out.splitlines()] == [
        line.split() for line in _predict(capsys, f"--checkpoint={tuned}", *mixed[::2])
    ]
    assert missing == f"{mixed[1]}: no such image; check the path"
    assert broken.startswith(f"{mixed[3]}: not a readable image (")


def test_predict_as_json_says_in_its_place_why_an_image_cannot_be_read(tuned, mixed, capsys):
    with pytest.raises(UserError, match="2 of 5 images could not be read"):
        _predict(capsys, f"--checkpoint={tuned}", "--json", *mixed)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [answer["image"] for answer in answers] == [str(image) for image in mixed]
    assert [set(answer) - {"image"} for answer in answers[:2]] == [{"label", "probability"}, {"error"}]
    assert answers[1]["error"] == f"{mixed[1]}: no such image; check the path"


def test_predict_prints_each_chunk_as_it_is_done(tuned, capsys, monkeypatch):
    printed, label = [], labelling.answers

    def listening(*arguments, **how):
        printed.append(len(capsys.readouterr().out.splitlines()))
        return label(*arguments, **how)

    monkeypatch.setattr(labelling, "CHUNK", 2)
    monkeypatch.setattr(labelling, "answers", listening)
    last = _predict(capsys, f"--checkpoint={tuned}", *sorted(PIZZA.iterdir())[:5])

    assert [*printed, len(last)] == [0, 2, 2, 1]


def test_predict_passes_over_hidden_files_and_folders_with_an_images_name(tuned, capsys, tmp_path):
    image = sorted(PIZZA.iterdir())[0]
    (tmp_path / "folder.jpg").mkdir()
    shutil.copy(image, tmp_path / "folder.jpg" / "a.jpg")
    (tmp_path / "._a.jpg").write_bytes(b"a resource fork")
    (line,) = _predict(capsys, f"--checkpoint={tuned}", tmp_path)

    assert line.split()[0] == str(tmp_path / "folder.jpg" / "a.jpg")


def test_predict_names_each_image_of_a_folder_that_gets_no_answer(tuned, capsys, tmp_path):
    image = sorted(PIZZA.iterdir())[0]
    for name in ("a.jpg", "b.jfif", "c", os.fsdecode(b"d\xe9.jpg")):
        shutil.copy(image, tmp_path / name)
    for name in ("one.heic", "two.svg"):
        (tmp_path / name).write_bytes(b"no photograph")
    (tmp_path / "list.txt").write_text("no image")
    (tmp_path / "more.tar").symlink_to(tmp_path)
    with pytest.raises(UserError, match="^2 of 6 images could not be read$"):
        prediction.main(["predict", f"--checkpoint={tuned}", str(tmp_path)])
    shown = capsys.readouterr()

    assert [line.split()[0] for line in shown.out.splitlines()] == [
        str(tmp_path / name) for name in ("a.jpg", "b.jfif", "c", "d\\xe9.jpg")
    ]
    assert [line.split(":")[0] for line in shown.err.splitlines()] == [
        str(tmp_path / name) for name in ("one.heic", "two.svg")
    ]


def test_predict_drops_the_byte_order_mark_of_a_list(tuned, capsys):
    image = sorted(PIZZA.iterdir())[0]

    assert len(_predict(capsys, f"--checkpoint={tuned}", "-", stdin=f"\ufeff{image}\n{image}\n")) == 2


def test_predict_from_python_raises_where_an_image_cannot_be_read(small_black_box, mixed):
    tuned = TunedModel(small_black_box.initial_prompt, {}, small_black_box.identity, small_black_box.class_names)

    with pytest.raises(UserError, match="nowhere.jpg: no such image"):
        craft_jax.predict(tuned, small_black_box, mixed)


def test_predict_says_where_the_newest_checkpoint_is_damaged(tuned, capsys, tmp_path):
    kept = tmp_path / "run" / "checkpoints"
    shutil.copytree(tuned, tmp_path / "run")
    (newest,) = kept.iterdir()
    shutil.copytree(newest, kept / "2")
    for path in (newest / "tuned").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:40])
    prediction.main(["predict", f"--checkpoint={tmp_path / 'run'}", str(PIZZA)])

    assert f"checkpoint {newest.name} is damaged; falling back to checkpoint 2" in capsys.readouterr().err


def test_predict_refuses_a_black_box_that_the_checkpoint_was_not_made_for(tuned, capsys, tmp_path):
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL

    shutil.copytree(BUNDLED_MODEL, tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["logit_scale"] = np.asarray(weights["logit_scale"] + np.float16(0.5))
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=r"made for black box bundled \(fingerprint .*load the black box that it was"):
        _predict(capsys, f"--checkpoint={tuned}", f"--model={tmp_path / 'clip'}", sorted(PIZZA.iterdir())[0])


# What `predict` takes from Python


def test_images_are_labelled_alike_in_whatever_form_python_has_them(tuned, small_black_box):
    model = craft_jax.load_run(tuned).tuned
    path = PIZZA / sorted(entry.name for entry in PIZZA.iterdir())[0]
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
        given = [str(path), path, opened, pixels, jnp.asarray(pixels), [path], pixels[None], [opened]]
        answers = [craft_jax.predict(model, small_black_box, images) for images in given]
    arrays = craft_jax.from_arrays([pixels] * 3, [0, 1, 2], model.class_names, test_images=[pixels], test_labels=[0])
    answers += [craft_jax.predict(model, small_black_box, arrays.test)]
    answers += [craft_jax.predict(model, small_black_box, arrays.test[0].image)]

    assert {answer.shape for answer in answers} == {(1, 3)}
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("images", [np.zeros((8, 8, 3)), [np.zeros((8, 8, 4), np.uint8)], [3]])
def test_what_is_no_image_is_refused_with_what_it_must_be(tuned, small_black_box, images):
    with pytest.raises(UserError, match=r"images\[0\] is .*; it must be uint8\[height, width, 3\], from 0 to 255"):
        craft_jax.predict(craft_jax.load_run(tuned).tuned, small_black_box, images)


def test_a_finished_run_is_loaded_as_train_returned_it(tuned):
    outcome = craft_jax.load_run(tuned)
    left = json.loads((tuned / training.RESULT).read_text())

    assert json.loads(json.dumps(dataclasses.asdict(outcome.result))) == left
    assert outcome.tuned.class_names == ("pizza", "grand piano", "sunflower")


def test_a_run_that_is_not_finished_is_not_loaded(tuned, tmp_path):
    unfinished = shutil.copytree(tuned, tmp_path / "run")
    (unfinished / training.RESULT).unlink()

    with pytest.raises(UserError, match="run holds no finished run; call train with it again"):
        craft_jax.load_run(unfinished)


def test_importing_the_command_leaves_the_function_its_name():
    code = "import craft_jax, craft_jax.predict; print(craft_jax.predict.__module__, callable(craft_jax.predict))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["craft_jax.prediction", "True"]


# What stands in the environment


def test_a_device_that_is_not_there_is_one_line(coop_root, tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "-m", "craft_jax.main", *_arguments(coop_root, tmp_path / "x")[1:]]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=cuda: JAX finds no such device here")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_help_needs_no_home_folder():
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    code = (
        "import os; os.path.expanduser = lambda path: path; import craft_jax.folders; print(craft_jax.folders.cache())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )

    assert Path(done.stdout.strip()).name == f"craft_jax-{os.getuid()}"


def test_what_jax_is_told_of_64_bits_changes_no_bit(tuned, small_black_box):
    path = PIZZA / sorted(entry.name for entry in PIZZA.iterdir())[0]
    model = craft_jax.load_run(tuned).tuned
    expected = craft_jax.predict(model, small_black_box, path)
    with jax.enable_x64(True):
        black_box = craft_jax.load_black_box("bundled", model.class_names)
        np.testing.assert_array_equal(craft_jax.predict(model, black_box, path), expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/demoo.py"], "did you mean configs/demo.py"),
        (["--config=configs/zzzzzz.py"], "there are aircraft.py, caltech.py"),
        (["--config=configs/demo.py", "--shots=4"], "unknown flag --shots; settings are given as --config.data.shots"),
        (["--config=configs/demo.py", "--config.data.shots=four"], "--config.data.shots=four must be a whole number"),
        (["--config=configs/demo.py", "--config.search.sigma=nan"], "search.sigma=nan must be a finite number"),
        (["--config=configs/demo.py", "--config.größe=1"], "unknown setting on the command line: größe"),
    ],
)
def test_a_mistake_is_answered_with_what_was_probably_meant(arguments, said, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(UserError) as caught:
        main.main(["main", *arguments])

    assert said in str(caught.value)


def test_a_half_written_entry_of_the_compilation_cache_is_compiled_anew_without_a_word(recwarn):
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    before = set(cache.glob("*"))

    def compiled():
        return jax.jit(lambda x: jnp.sin(x) * 12345.25 + 0.375)(jnp.ones(7))

    first = compiled()
    entries = set(cache.glob("*")) - before
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:50])
    jax.clear_caches()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cli.pay_compilation_once()
        again = compiled()

    assert entries
    np.testing.assert_array_equal(first, again)
    assert not recwarn.list
