import dataclasses
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

import craft_jax
from craft_jax.config import Config, from_config_dict, to_config_dict
from craft_jax.errors import UserError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


def test_settings_survive_the_round_trip_through_a_config_dict():
    config = Config(seed=3, query_budget=2000)

    assert from_config_dict(to_config_dict(config)) == config


def test_every_group_of_settings_is_public():
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.type):
            assert getattr(craft_jax, field.type.__name__) is field.type
            assert field.type.__name__ in craft_jax.__all__


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_holds_valid_settings(path):
    module = {}
    exec(compile(path.read_text(), path, "exec"), module)

    assert from_config_dict(module["get_config"]()).steps >= 1


BY_CLASS = {"probe": {"texts": 0}, "search": {"estimator": "antithetic", "population_size": 10}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn": "probes", "probe": {"texts": 0}}, "learn=probes asks texts, and probe.texts=0 allows none"),
        ({"probe": {"texts": 0}}, "search.estimator=gauss-newton fits prompts to the probes' head; raise probe.texts"),
        ({"prompt": {"context": "unified"}}, "search.estimator=gauss-newton needs prompt.context=class, not unified"),
        ({"search": {"population_size": 4}}, "search.population_size=4 must be at least 5"),
        ({"data": {"shotz": 4}}, "unknown setting data.shotz; did you mean shots?"),
        ({"data": 4}, "data is a group of settings"),
        ({"seed": "1"}, "seed='1' must be a whole number, not str"),
        ({"seed": True}, "seed=True must be a whole number, not bool"),
        ({"data": {"shots": 0}}, "data.shots=0 must be at least 1"),
        ({"search": {"sigma": float("nan")}}, "search.sigma=nan must be a finite number"),
        ({"search": {"estimator": "antithetic", "population_size": 7}}, "search.population_size=7 must be even"),
        ({"search": {"directions": "sideways"}}, "search.directions='sideways' must be one of orthogonal, gaussian"),
        (
            {**BY_CLASS, "query_budget": 30},
            "query_budget=30 does not pay for one step of search.population_size=10 and 21 prompts that measure "
            "prompt.std; raise query_budget to 31 at least or lower search.population_size to 8 at most",
        ),
        (
            {**BY_CLASS, "query_budget": 22},
            "query_budget=22 does not pay for one step of search.population_size=10 and 21 prompts that measure "
            "prompt.std; raise query_budget to 31 at least",
        ),
        ({"query_budget": 10**20 - 1}, "query_budget=99999999999999999999 is too large"),
        ({"refinement": {"hidden": 2**63}}, "refinement.hidden=9223372036854775808 is too large"),
        ({"search": {"sigma": 10**400}}, "search.sigma=a number of 1329 bits is too large"),
        ({**BY_CLASS, "prompt": {"intrinsic_dim": 4}}, "orthogonal directions have room for 4 pairs"),
        ({"search": {"clip": -2.0}}, "search.clip=-2.0 must be 0, above 0, or -1"),
        ({"search": {"estimator": "spsa"}}, "search.estimator=spsa moves all coordinates by one loss"),
        (
            {"prompt": {"context": "unified"}, "search": {"estimator": "cma-es"}},
            "search.estimator=cma-es adapts its own steps",
        ),
        ({"black_box": {"template": "{}"}}, "black_box.template='{}' must hold {} once, with words before it"),
        ({"run": {"eval_every": 3, "steps_per_call": 2}}, "run.eval_every=3 must be a multiple"),
    ],
)
def test_a_bad_setting_is_named_with_its_remedy(changes, message):
    with pytest.raises(UserError, match="^" + message.replace(".", r"\.").replace("?", r"\?").replace("{}", r"\{\}")):
        from_config_dict(changes)


def test_a_whole_number_will_do_for_a_setting_that_is_a_number():
    assert from_config_dict({"search": {"sigma": 1}}).search.sigma == 1


def test_the_command_line_overrides_a_nested_setting():
    argv = ["main", f"--config={CONFIGS[0]}", "--config.data.shots=4"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)

    assert from_config_dict(values.config).data.shots == 4
