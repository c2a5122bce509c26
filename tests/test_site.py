"""The documentation builds as a site, whole and without a network."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import craft_jax
from craft_jax.config import Config, flat_settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the command that users have; a broken link or reference ends it with an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={folder}"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def _page(site, name):
    return (site / name / "index.html").read_text()


def test_the_first_page_is_the_readme_with_its_picture(site):
    shown = _page(site, ".")

    assert "a vision-language model that you can only" in shown
    assert (site / re.search(r'<img [^>]*src="([^"]*demo_sweep[^"]*)"', shown)[1]).exists()


def test_no_page_fetches_anything_from_another_host(site):
    fetched = re.compile(r'(?:<link rel="(?!canonical)[^>]*href|\bsrc)="(?:https?:)?//')

    assert not [path for path in site.rglob("*.html") if fetched.search(path.read_text())]


def test_every_setting_is_in_the_reference(site):
    shown = _page(site, "settings")
    names = flat_settings(dataclasses.asdict(Config()))

    assert not [name for name in names if f'<h3 id="{name.replace(".", "")}">' not in shown]
    assert "<code>16</code> by default; at least 1" in shown


def test_every_public_name_is_in_the_python_reference(site):
    shown = re.findall(r"^::: craft_jax\.(?:\w+\.)*(\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)

    assert sorted(shown) == sorted(craft_jax.__all__)


def test_every_page_of_the_docs_is_in_the_navigation(site):
    navigation = (ROOT / "mkdocs.yml").read_text()

    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f" {path.name}\n" not in navigation]
