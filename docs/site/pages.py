"""The site's pages that have their source elsewhere: README, results, a notebook, and settings from their docstrings.

MkDocs calls the `on_` functions while it builds (mkdocs.yml). Links are written as they hold in the repository, and are
turned here towards the page that the site makes of a file.
"""

import dataclasses
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from craft_jax.config import settings

ROOT = Path(__file__).parent.parent.parent
SETTINGS = "settings.md"

# Pages and pictures that do not lie in docs/, by their files.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/first_steps.ipynb": "first_steps.md",
} | {
    f"benchmarks/results/{path.name}": f"results/{path.name}"
    for path in sorted((ROOT / "benchmarks" / "results").iterdir())
    if path.suffix in (".md", ".png")
}
_SOURCES = {page: source for source, page in ELSEWHERE.items()}
_INLINE_CODE = re.compile(r"<code>[^<]*</code>")
_FLAG = re.compile(r"(?<=[ >])-+\w[\w.]*")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<target>[^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures that do not lie in docs/."""
    for source, page in ELSEWHERE.items():
        path = ROOT / source
        if path.suffix == ".ipynb":
            files.append(File.generated(config, page, content=notebook_page(path)))
        else:
            files.append(File.generated(config, page, abs_src_path=str(path)))
    files.append(File.generated(config, SETTINGS, content=settings_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns a page's links from files of the repository to pages of the site."""
    return turned(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Keeps browsers from breaking a line after the dashes of a flag."""

    def kept(code: re.Match[str]) -> str:
        return _FLAG.sub(r'<span class="flag">\g<0></span>', code[0])

    return _INLINE_CODE.sub(kept, html)


def turned(markdown: str, page: str) -> str:
    """The page's text with links that hold between pages.

    Raises:
      PluginError: where a link leads to a file that no page shows.
    """
    source = _SOURCES.get(page, f"docs/{page}")

    def target(link: re.Match[str]) -> str:
        led_to = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        if led_to == "craft_jax/config/settings.py":
            to = SETTINGS
        elif led_to in ELSEWHERE or led_to.startswith("docs/"):
            to = ELSEWHERE.get(led_to, led_to.removeprefix("docs/"))
        else:
            raise PluginError(f"{source} links to {link['target']}, which no page shows")
        return posixpath.relpath(to, posixpath.dirname(page) or ".")

    return _LINK.sub(target, markdown)


def notebook_page(path: Path) -> str:
    """A notebook's texts and code, without what it prints."""
    shown = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        shown.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(shown) + "\n"


def settings_page() -> str:
    """The reference of all settings, from their dataclasses: name, default, range and meaning."""
    return "\n\n".join(["# Settings", _ABOUT, *_section(settings.Config, "")]) + "\n"


_ABOUT = """
Each can be given on the command line as `--config.NAME=VALUE`, as in `--config.data.shots=8`, in a settings file, or
from Python as a field of `craft_jax.Config`. A name that is not here, or a value out of its range, is refused in one
line before anything is loaded.
""".strip()


def _section(group: Any, prefix: str) -> Iterator[str]:
    """A group's settings in their order, then the groups in it."""
    summary, meanings = _docstring(group)
    yield f"## {prefix.rstrip('.') or 'The run'}"
    yield summary
    inner = []
    for field in dataclasses.fields(group):
        name = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            inner.append((field.type, f"{name}."))
            continue
        yield f"### `{name}`"
        yield f"{_default(field)}.\n{{ .default }}"
        meaning = meanings[field.name]
        yield meaning[0].upper() + meaning[1:]
    for other, name in inner:
        yield from _section(other, name)


def _default(field: dataclasses.Field) -> str:
    """A setting's default and range."""
    default = "Empty by default" if field.default == "" else f"`{field.default}` by default"
    rule = field.metadata["rule"]
    return f"{default}; {rule[1].removeprefix('must be ').removeprefix('must lie ')}" if rule else default


def _docstring(group: Any) -> tuple[str, dict[str, str]]:
    """A dataclass's first lines, and its attributes' descriptions by name."""
    text, *sections = griffe.Docstring(group.__doc__ or "", parser="google").parse()
    attributes = {
        item.name: item.description
        for section in sections
        if section.kind is griffe.DocstringSectionKind.attributes
        for item in section.value
    }
    return text.value, attributes
