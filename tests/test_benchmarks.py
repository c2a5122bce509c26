"""The benchmarks' own reckoning: what they count, and that the committed page shows the committed figures."""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import command, one_step, page, run, sizes, speed, timing
from benchmarks.caltech_names import NAMES


def test_caltechs_names_have_the_tokens_of_clips_own_encoding():
    assert collections.Counter(map(len, NAMES)) == {1: 61, 2: 31, 3: 8}
    assert ("bron", "to", "saurus") in NAMES


COMMANDS = command.commands()


@pytest.mark.parametrize("module", COMMANDS)
def test_a_benchmark_answers_help_and_refuses_a_flag_it_does_not_have(module, capsys):
    with pytest.raises(SystemExit) as asked:
        command.answer(["python", "-m", module, "--help"])
    assert asked.value.code == 0
    assert capsys.readouterr().out.strip() == COMMANDS[module]

    with pytest.raises(SystemExit) as mistaken:
        command.answer(["python", "-m", module, "--nope=1"])
    assert mistaken.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown flag --nope; ")


def test_a_benchmark_takes_what_its_usage_names(capsys):
    for fitting in (["serve", "--requests=3"], ["search.study", "zip", "bbt"], ["one_step", *"123456"], ["speed"]):
        command.answer(["python", "-m", f"benchmarks.{fitting[0]}", *fitting[1:]])
    for wrong in (["speed", "fast"], ["one_step", "1", "2"]):
        with pytest.raises(SystemExit):
            command.answer(["python", "-m", f"benchmarks.{wrong[0]}", *wrong[1:]])

    errors = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in errors] == [
        "error: unknown argument fast", "error: CANDIDATES VIEWS DEVICES ROUNDS is missing",
    ]  # fmt: skip


def test_a_benchmark_answers_before_jax_is_imported():
    called = [sys.executable, "-X", "importtime", "-m", "benchmarks.speed", "--help"]
    done = subprocess.run(called, check=True, capture_output=True, text=True, cwd=speed.RESULTS.parent.parent)

    assert "make bench" in done.stdout
    assert not [name for name in (" jax", " numpy", " transformers") if f"|{name}\n" in done.stderr]


def test_the_studies_list_every_benchmark():
    listed = (speed.RESULTS.parent.parent / "docs" / "studies.md").read_text()

    assert not [module for module in COMMANDS if f"`python -m {module}`" not in listed]


def test_captions_name_every_class_once_and_keep_shared_words_shared():
    captions = sizes.captions(100)

    assert len({tuple(caption) for caption in captions}) == 100
    assert sum(map(len, captions)) == 100 * (1 + 4 + 2) + 147
    first_name_tokens = collections.Counter(caption[5] for caption in captions)
    assert first_name_tokens.most_common(1)[0][1] == 2  # cougar body, cougar face


def test_the_published_way_does_some_twenty_times_the_work():
    assert 23 < sizes.published_flops(100) / sizes.useful_flops(100) < 24


def test_contenders_take_turns_and_keep_their_best():
    calls = []
    best = timing.best({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)

    assert calls == ["a", "b"] * 4  # the first turn compiles
    assert set(best) == {"a", "b"}


def test_more_views_cost_a_run_more_and_the_centre_crop_as_much_as_one():
    speedups = run.speedups(step=2.0, image=0.02, published_query=3.0, published_image=0.04)

    assert speedups["0"] == speedups["1"] == pytest.approx(200 * (40 * 3.0 + 64) / (200 * 2.0 + 32))
    assert list(speedups.values()) == sorted(speedups.values(), reverse=True)


def test_parts_of_a_step_add_up_to_it():
    shares = run.shares({"step": 4.0, "text": 3.0, "image": 0.4, "head": 0.2, "estimator": 0.0})

    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["overhead"] == pytest.approx(0.1)


def test_a_childs_peak_memory_is_not_that_of_a_large_parent():
    large = np.ones(150_000_000)  # 1.2 GB
    script = "from benchmarks.one_step import peak_gigabytes as peak; print(peak())"
    child = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert one_step.peak_gigabytes() > large.nbytes / 2**30
    assert 0.05 < float(child.stdout) < 0.8


@pytest.fixture
def figures():
    """As the last `make bench` left them."""
    return json.loads((speed.RESULTS / "latest.json").read_text())


def test_the_committed_figures_are_complete(figures):
    named = ["per_query_speedup", "features_max_error", "gemm_share", "overhead_share", "run_speedup", "peak_memory_gb"]

    assert all(figures[name] > 0 for name in named)
    assert figures["features_max_error"] < 1e-5


def test_the_committed_page_shows_the_committed_figures(figures):
    assert (speed.RESULTS / "speed.md").read_text() == page.markdown(figures)
