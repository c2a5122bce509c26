"""What a sweep plans, and the mistakes that it finds before anything is run."""

import dataclasses
import json
from pathlib import Path

import pytest

from craft_jax.config import DataConfig, identity
from craft_jax.errors import UserError
from craft_jax.sweep import command, plan, results

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"


def _plan(workdir, *, configs, overrides=(), shots=(3,), seeds=(1,)):
    return plan.plan(configs, overrides, shots=shots, seeds=seeds, workdir=workdir, protocol="few_shot", targets="")


def test_a_plan_has_a_run_for_each_set_number_of_shots_and_seed(tmp_path):
    runs = _plan(tmp_path, configs=f"{CONFIGS}/pets.py,{CONFIGS}/caltech.py:paper,tfds", shots=(1, 16), seeds=(1, 2))

    assert [str(run.workdir.relative_to(tmp_path)) for run in runs[:5]] == [
        "pets/1-shots-seed-1",
        "pets/1-shots-seed-2",
        "pets/16-shots-seed-1",
        "pets/16-shots-seed-2",
        "caltech-paper-tfds/1-shots-seed-1",
    ]
    assert len(runs) == 8
    assert (runs[3].config.data.shots, runs[3].config.seed, runs[3].config.data.source) == (16, 2, "coop")
    assert (runs[4].config.data.source, runs[4].config.black_box.model) == ("tfds", "RN50")


def test_the_budget_is_the_published_one_for_the_shots_unless_given(tmp_path):
    caltech, shots = f"{CONFIGS}/caltech.py", (1, 2, 4, 8, 16)
    published = _plan(tmp_path, configs=caltech, shots=shots)
    given = _plan(tmp_path, configs=caltech, shots=shots, overrides=["--config.query_budget=8000"])

    assert [run.config.query_budget for run in published] == [2000, 4000, 4000, 8000, 8000]
    assert [run.config.query_budget for run in given] == [8000] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing; try --config=demo"),
        (["--config=configs/nowhere.py"], "--config could not be loaded: .*nowhere.py"),
        (["--config=configs/demo.py,configs/demo.py"], "two settings files are called demo"),
        (["--config=configs/demo.py", "--shots=1,two"], "--shots=1,two must be whole numbers joined by commas"),
        (["--config=configs/demo.py", "--seeds=1,1"], "--seeds=1,1 names a number twice"),
        (["--config=configs/demo.py", "--config.seed=2"], "--config.seed is the sweep's own: use --seeds"),
        (["--config=configs/demo.py", "--config.data.shots=2"], "--config.data.shots is the sweep's own: use --shots"),
        (["--config=configs/demo.py", "--config.data.shotz=2"], 'shotz; did you mean "shots"'),
        (["--config=configs/demo.py", "--array=4/3"], "--array=4/3 must be I/N, such as 3/15"),
        (["--config=configs/demo.py", "--protocol=few"], "--protocol=few must be one of few_shot, base_to_new"),
        (["--config=configs/demo.py", "--protocol=cross"], "--protocol=cross needs --targets"),
        (["--config=configs/demo.py", "--protocol=shift"], "--protocol=shift needs data.source=imagenet, not coop"),
        (["--config=configs/imagenet.py", "--protocol=shift"], "none of imagenetv2/.* is there; lay them out"),
        (["--config=configs/demo.py", "--shots=16,99"], "class 'pizza' has 26 training photographs, fewer than"),
        (["--config=configs/demo.py,configs/pets.py"], "data.root=data: no such folder"),
        (["--config=configs/demo.py", "more"], "unexpected argument 'more'"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_line_before_anything_is_run(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    with pytest.raises(UserError, match=message) as error:
        command.main(["sweep", *arguments, f"--workdir={tmp_path}/sweep"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_the_demo_may_be_swept(tmp_path):
    runs = _plan(tmp_path, configs=f"{CONFIGS}/demo.py", shots=(1, 16))

    assert runs[0].config.data == DataConfig(shots=1)


def test_the_published_figures_stand_where_the_paper_has_them(tmp_path):
    run = _plan(tmp_path, configs=f"{CONFIGS}/imagenet.py", shots=(16,))[0]

    assert results._published(run, "shift", "accuracy", "imagenet-r") == 75.52
    assert results._published(run, "shift", "zero_shot", "imagenet-a") == 47.77
    assert results._published(run, "few_shot", "refined", "test") == 61.33
    assert results._published(run, "few_shot", "prompt_only", "test") is None


# What is done


def _planned(workdir, *, protocol, **data):
    overrides = [f"--config.data.{name}={value}" for name, value in data.items()]
    overrides += ["--config.prompt.context=unified", "--config.search.estimator=antithetic"]
    return plan.plan(
        f"{CONFIGS}/pets.py", overrides, shots=(3,), seeds=(1,), workdir=workdir, protocol=protocol,
        targets=f"{CONFIGS}/dtd.py",
    )[0]  # fmt: skip


def _finish(run, own, others):
    run.workdir.mkdir(parents=True)
    (run.workdir / plan.SETTINGS).write_text(json.dumps(identity.learnt_by(run.config)))
    (run.workdir / "result.json").write_text(json.dumps(own))
    for name, row in others.items():
        plan.transfer_file(run, name).write_text(json.dumps(row | {"data": identity.tested_on(run.transfers[name])}))


@pytest.mark.parametrize("texts", [0, 30])
def test_a_finished_run_is_done_whether_or_not_it_asked_texts(texts, tmp_path):
    overrides = [f"--config.probe.texts={texts}", "--config.search.estimator=antithetic"]
    (run,) = plan.plan(
        f"{CONFIGS}/demo.py", overrides, shots=(1,), seeds=(1,), workdir=tmp_path, protocol="", targets=""
    )
    _finish(run, {}, {})

    assert plan.is_done(run)


def test_a_test_on_other_data_than_now_planned_is_not_done(tmp_path):
    run = _planned(tmp_path, protocol="cross")
    _finish(run, {}, {"dtd": {"zero_shot": 40.0, "accuracy": 50.0}})
    target = run.transfers["dtd"]
    moved = dataclasses.replace(target, data=dataclasses.replace(target.data, split="another.json"))

    assert plan.is_done(run)
    assert not plan.is_done(run._replace(transfers={"dtd": moved}))


def test_a_test_that_does_not_say_its_data_is_not_done(tmp_path):
    run = _planned(tmp_path, protocol="cross")
    _finish(run, {}, {})
    plan.transfer_file(run, "dtd").write_text(json.dumps({"zero_shot": 40.0, "prompt_only": 50.0}))

    assert not plan.is_done(run)


def test_base_to_new_reports_the_deployed_model_alone_on_both_halves(tmp_path):
    run = _planned(tmp_path, protocol="base_to_new")
    # Tuned to 90 %, and zero-shot deployed: the new classes' 40 % belong to the base classes' 60 %.
    own = {"zero_shot": 60.0, "prompt_only": 90.0, "refined": 95.0, "accuracy": 60.0, "split": "base classes"}
    _finish(run, own, {plan.NEW: {"zero_shot": 40.0, "accuracy": 40.0}})
    found = {(entry.measure, entry.target): entry.mean for entry in results.collect([run], "base_to_new")}

    assert {measure for measure, _ in found} == {"zero_shot", "accuracy"}
    assert found["accuracy", "base"] == 60
    assert found["accuracy", "harmonic mean"] == found["zero_shot", "harmonic mean"] == pytest.approx(48)


def test_a_budget_that_the_settings_file_names_stays_whatever_it_is(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from craft_jax.config import Config, config_dict\n"
        "def get_config(variant=''):\n    return config_dict(Config(query_budget=8000), variant)\n"
    )

    assert [run.config.query_budget for run in _plan(tmp_path, configs=str(file), shots=(1, 16))] == [8000, 8000]


def test_a_settings_file_without_get_config_does_not_have_that_of_the_file_before(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")

    with pytest.raises(UserError, match="mine.py has no function get_config"):
        plan.read_settings(f"demo,{tmp_path}/mine.py", [])
