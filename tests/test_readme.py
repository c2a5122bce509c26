"""What the README shows runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_snippet_tunes_evaluates_and_predicts(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)

    assert names["result"]["refined"] > names["result"]["zero_shot"]
    assert names["probabilities"].sum(axis=-1) == pytest.approx([1.0] * 3, abs=1e-5)
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:configs|benchmarks|docs|craft_jax)/[\w./]+\w", README))))
def test_every_file_that_the_readme_names_is_there(path):
    assert (Path(__file__).parent.parent / path).exists()
