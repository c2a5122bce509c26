"""What the README shows runs as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from craft_jax.sweep import plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = README + "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))


def test_the_python_snippet_tunes_evaluates_and_predicts(tmp_path):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    # In a process of its own, with the one device that a user's machine has.
    snippet += "\nimport json\nprint(json.dumps([result, probabilities.sum(axis=-1).tolist()]))"
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    result, sums = json.loads(done.stdout.splitlines()[-1])

    assert result["refined"] > result["zero_shot"]
    assert sums == pytest.approx([1.0] * 3, abs=1e-5)


_BLOCKS = "".join(re.findall(r"```sh\n(.*?)```", PAGES, flags=re.DOTALL)).replace("\\\n", "")


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
    monkeypatch.chdir(Path(__file__).parent.parent)
    arguments = shlex.split(command)
    (files,) = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]

    assert plan.read_settings(files, [argument for argument in arguments if argument.startswith("--config.")])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:configs|benchmarks|docs|craft_jax)/[\w./]+\w", PAGES))))
def test_every_file_that_the_readme_names_is_there(path):
    assert (Path(__file__).parent.parent / path).exists()
