"""What wants a GPU: parity with float64, the demo, what a query and a step cost by precision, PyTorch beside them.

    python -m benchmarks.gpu [--tiny] [--seconds=340] [--into=build/gpu] [--only=PART,PART]

Six minutes at most on one GPU, without a network; what there is no time for is left out with a word. --tiny tries it
all at small sizes, on a CPU too. Each result is printed and written to gpu.jsonl and gpu.md in the folder --into as
soon as it is there; a section that fails shows why, and the next goes on. The tests that concern numbers come last.
--only names parts of sections' titles, in the order in which they are to run.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.command import ROOT
from benchmarks.on_gpu import clock, demo, images, precision, published, queries
from benchmarks.on_gpu.record import Record

BY_NEED = ("bfloat16", "3xtf32", "tf32", "float32", "6xbf16", "3xbf16", "float16")
HEADLINE = ("bfloat16", "3xtf32", "tf32")
TESTS = ("text_tower", "mathematics", "estimators", "gauss_newton", "stacked", "search")
LONGEST = {"cold": 130, "warm": 70, "tests": 90}  # seconds


def run_demo(record: Record, tiny: bool) -> None:
    """The demo in two processes: the first compiles everything, the second nothing; the same bits, and resumed too."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = {"XDG_CACHE_HOME": f"{folder}/cache", "JAX_COMPILATION_CACHE_DIR": f"{folder}/xla"}
        bits = set()
        for name, times in (("cold", 1), ("warm", 1)):
            record.need(30, f"the {name} demo")
            command = [sys.executable, "-m", "benchmarks.on_gpu.demo", f"{folder}/{name}", str(times)]
            environment = os.environ | fresh | ({demo.TINY: "1"} if tiny else {})
            longest = LONGEST[name] * (10 if tiny else 1)
            done = _run(command, min(longest, record.left), environment)
            for line in filter(lambda line: line.startswith("{"), done.splitlines()):
                row = json.loads(line)
                bits |= {row["bits"]} if "bits" in row else set()
                screen = row.pop("screen", [])
                record.add(process=name, **row)
                for shown in screen:
                    print(f"           {shown}")
        record.add(same_bits_in_every_run=len(bits) == 1)


def run_tests(record: Record) -> None:
    """The tests that concern numbers, and which of them fail."""
    record.need(15, "the tests")
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *files]
    said = _run(command, min(LONGEST["tests"], record.left - 3), dict(os.environ))
    for line in said.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            record.add(not_passed=line[:200])
    record.add(tests=(re.findall(r"^.*(?:passed|failed|error).*$", said, re.MULTILINE) or ["no summary in time"])[-1])


def _run(command: list[str], seconds: float, environment: dict[str, str]) -> str:
    """What a process prints, up to its end or the time limit; what it complains of is shown."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            status: object = child.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            status = f"stopped after {seconds:.0f} s"
        out.seek(0)
        said = out.read()
    if status != 0:
        print(f"{' '.join(command[1:])}: {status}\n{said[-4000:]}", flush=True)
    return said


def _flag(name: str, otherwise: str) -> str:
    given = [argument.partition("=")[2] for argument in sys.argv[1:] if argument.startswith(f"--{name}=")]
    return given[-1] if given else otherwise


def main() -> None:
    """Runs the sections in order."""
    tiny = "--tiny" in sys.argv[1:]
    scale = queries.SMALL if tiny else queries.FULL
    record = Record(Path(_flag("into", str(ROOT / "build/gpu"))), float(_flag("seconds", "340")))
    base, large, few, many = scale.base, scale.large, scale.few, scale.many
    ask = functools.partial(queries.parity_and_queries, scale=scale)

    sections: dict[str, Callable[[Record], None]] = {
        "Machine": lambda record: queries.machine(record, scale),
        "Parity and a query": lambda record: ask(record, base, few, BY_NEED),
        "Demo": lambda record: run_demo(record, tiny),
        "A query of many classes": lambda record: ask(record, base, many, HEADLINE),
        "Images": lambda record: images.rates(record, base, ("bfloat16", "tf32"), scale),
        "The published way": lambda record: published.queries(record, base, (few, many)),
        "A step": lambda record: queries.steps(record, base, few, HEADLINE[:2]),
        "Estimates": lambda record: precision.estimates(record, clock.PRECISIONS),
        "A query of the large model": lambda record: ask(record, large, few, HEADLINE[:2]),
        "A prompt a class": lambda record: queries.by_class(record, base, scale),
        "The head in closed form": lambda record: precision.accuracy(record, ("float32", "tf32", "bfloat16"), 0),
        "A query of the large model, many classes": lambda record: ask(record, large, many, HEADLINE[:1]),
        "Tests": run_tests,
    }
    only = _flag("only", "")
    for title in [title for part in only.split(",") for title in sections if part.lower() in title.lower()]:
        record.run(title, sections[title])


if __name__ == "__main__":
    main()
