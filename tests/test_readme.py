"""What README, CONTRIBUTING and the pages of docs/ show runs as it stands."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from craft_jax.config import recipes
from craft_jax.sweep import plan
from tests import processes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]}
ALL = README + "".join(PAGES.values())

_CODE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL)
SNIPPETS = [
    pytest.param(code, printed, id=f"{name}-{number}")
    for name, page in PAGES.items()
    if name != "export.md"  # needs a run; test_export.py runs it, without craft_jax
    for number, (code, printed) in enumerate(_CODE.findall(page))
]


@pytest.mark.slow
def test_the_readmes_snippet_tunes_evaluates_and_predicts(tmp_path):
    ((snippet, _),) = _CODE.findall(README)
    # In a process of its own, with the one device that a user's machine has.
    snippet += (
        "\nimport json\n"
        "print(json.dumps([run.result.zero_shot, run.result.refined, probabilities.sum(axis=-1).tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path, env=processes.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    zero_shot, refined, sums = json.loads(done.stdout.splitlines()[-1])

    assert refined > zero_shot
    assert sums == pytest.approx([1.0] * 3, abs=1e-5)


@pytest.mark.parametrize(("code", "printed"), SNIPPETS)
def test_a_pages_snippet_runs_and_prints_what_the_page_says(code, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "RECIPES", dict(recipes.RECIPES))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})

    assert not printed or out.getvalue() == printed


_BLOCKS = "".join(re.findall(r"```sh\n(.*?)```", ALL, flags=re.DOTALL)).replace("\\\n", "")


def test_a_newcomer_reads_the_readme_in_two_minutes():
    assert len(README.split()) < 900


def test_commands_need_the_environment_to_be_entered_once():
    assert README.count("source .venv/bin/activate") == 1
    assert ".venv/bin/python" not in README
    assert "#" not in _BLOCKS  # not every shell takes comments that are pasted


@pytest.mark.parametrize(
    "command", re.findall(r"craft-jax (?:tune|sweep) .*|python -m craft_jax\.(?:main|sweep) .*", _BLOCKS)
)
def test_every_command_has_settings_that_there_are(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)
    (files,) = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]

    assert plan.read_settings(files, [argument for argument in arguments if argument.startswith("--config.")])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:configs|benchmarks|docs|craft_jax)/[\w./]+\w", ALL))))
def test_every_file_that_a_page_names_is_there(path):
    assert (ROOT / path).exists()
