"""The command line of every benchmark: `--help` and a mistake are answered from its docstring, before it is imported.

A docstring's indented line that begins with `python -m` is the usage: it names every flag and argument that there is.
"""

import ast
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent


def commands() -> dict[str, str]:
    """The docstring of every benchmark that can be called, by its module."""
    found = {}
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name != "__main__.py" and '\nif __name__ == "__main__":\n' in text:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[module] = ast.get_docstring(ast.parse(text)) or ""
    return found


def answer(called: Sequence[str]) -> None:
    """Ends the process with `--help`, or with one line and status 2 for what a benchmark does not take.

    Args:
      called: as sys.orig_argv; anything but `python -m` and a benchmark is left alone.
    """
    module, arguments = _benchmark(called)
    known = commands()
    if module not in known:
        return
    if {"--help", "-h"} & set(arguments):
        print(known[module])
        sys.exit(0)
    mistake = _mistake(usage(known[module]), arguments)
    if mistake:
        refuse(f"{mistake}; python -m {module} --help says what it takes")


def check_recipes(given: Sequence[str], known: Collection[str]) -> None:
    """Ends the process with one line where a recipe is named that a benchmark does not have."""
    for name in given:
        if name not in known:
            refuse(f"no recipe {name!r}; there are {', '.join(known)}")


def refuse(mistake: str) -> NoReturn:
    """Ends the process with one line and status 2."""
    print(f"error: {mistake}", file=sys.stderr)
    sys.exit(2)


def usage(docstring: str) -> str:
    """What may follow the module's name."""
    (line,) = re.findall(r"^ +(?:.* )?python -m [\w.]+(.*)$", docstring, flags=re.MULTILINE)
    return line.strip()


def _benchmark(called: Sequence[str]) -> tuple[str, list[str]]:
    """The module after the interpreter's first -m, and what follows it."""
    if "-m" not in called[:-1]:
        return "", []
    name, *arguments = called[called.index("-m") + 1 :]
    return name, arguments


def _mistake(usage: str, arguments: Sequence[str]) -> str:
    """What is wrong with the arguments; nothing where they fit the usage."""
    flags = set(re.findall(r"--\w+", usage))
    for argument in arguments:
        if argument.startswith("-") and argument.partition("=")[0] not in flags:
            return f"unknown flag {argument.partition('=')[0]}"
    named = [word for word in usage.split() if "--" not in word]
    given = [argument for argument in arguments if not argument.startswith("-")]
    if "...]" in named or len(given) == len(named):
        return ""
    if len(given) < len(named):
        return f"{' '.join(named[len(given) :])} is missing"
    return f"unknown argument {given[len(named)]}"
