"""The site's pages that have their source elsewhere: README, results of studies, and settings from their docstrings.

MkDocs calls the `on_` functions while it builds (mkdocs.yml). Links are written as they hold in the repository, and are
turned here towards the page that the site makes of a file.
"""

import dataclasses
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

# Files outside docs/ by the page that shows them, with a title where a file has none.
ELSEWHERE = {
    "index.md": ("README.md", ""),
    "contributing.md": ("CONTRIBUTING.md", ""),
    "changelog.md": ("CHANGELOG.md", ""),
    "results/search.md": ("benchmarks/results/search.md", "Methods at equal budgets"),
    "results/search_tuning.md": ("benchmarks/results/search_tuning.md", "How settings were chosen"),
    "results/search_fitness.md": ("benchmarks/results/search_fitness.md", "Which loss judges a candidate"),
    "results/search_steps.md": ("benchmarks/results/search_steps.md", "What a step asks and takes"),
    "results/search_diagnostics.md": ("benchmarks/results/search_diagnostics.md", "How well estimates point"),
    "results/accuracy.md": ("benchmarks/results/accuracy.md", "What each part is worth"),
    "results/speed.md": ("benchmarks/results/speed.md", "Speed and memory"),
    "results/image_towers.md": ("benchmarks/results/image_towers.md", ""),
    "results/devices.md": ("benchmarks/results/devices.md", "Steps over devices"),
}
PICTURES = ("search.png", "speed.png")
_PAGES = {source: page for page, (source, _) in ELSEWHERE.items()}
_PAGES |= {f"benchmarks/results/{name}": f"results/{name}" for name in PICTURES}
_PAGES["craft_jax/config/settings.py"] = SETTINGS
_INLINE_CODE = re.compile(r"<code>[^<]*</code>")
_FLAG = re.compile(r"(?<=[ >])-+\w[\w.]*")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<target>[^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures that do not lie in docs/."""
    for page, (source, title) in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=f"# {title}\n\n{text}" if title else text))
    for name in PICTURES:
        path = ROOT / "benchmarks" / "results" / name
        files.append(File.generated(config, f"results/{name}", abs_src_path=str(path)))
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
    source = ELSEWHERE[page][0] if page in ELSEWHERE else f"docs/{page}"

    def target(link: re.Match[str]) -> str:
        led_to = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        to = _PAGES.get(led_to, led_to.removeprefix("docs/"))
        if to == led_to:
            raise PluginError(f"{source} links to {link['target']}, which no page shows")
        return posixpath.relpath(to, posixpath.dirname(page) or ".")

    return _LINK.sub(target, markdown)


def settings_page() -> str:
    """The reference of all settings, from their dataclasses: name, default, range and meaning."""
    return "\n\n".join(["# Settings", _ABOUT, *_section(settings.Config, "")]) + "\n"


_ABOUT = (
    "Each can be given on the command line as `--config.NAME=VALUE`, as in `--config.data.shots=8`, in a settings file, "
    "or from Python as a field of `craft_jax.Config`. A name that is not here, or a value out of its range, is refused in "
    "one line before anything is loaded."
)


def _section(group: type, prefix: str) -> Iterator[str]:
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


def _docstring(group: type) -> tuple[str, dict[str, str]]:
    """A dataclass's first lines, and its attributes' descriptions by name."""
    text, *sections = griffe.Docstring(group.__doc__ or "", parser="google").parse()
    attributes = {
        item.name: item.description
        for section in sections
        if section.kind is griffe.DocstringSectionKind.attributes
        for item in section.value
    }
    return text.value, attributes
