"""Searches over texts against hand-written templates, zero-shot, and as many random words, on the study's tasks.

    python -m benchmarks.language [TASK ...]

Every search asks 100 wordings, a caption for each class, of the bundled CLIP; three tasks, 1, 4 and 16 shots, seeds 1
to 3. The language model is the rules of tests/proposing.py, in a process of its own. Finished cells are kept under
runs/language; a second call only reports. Writes benchmarks/results/language.md, after each seed anew. An hour on one
core.
"""

import contextlib
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import command
from benchmarks.search import tasks
from craft_jax import blackbox, encoding, language
from craft_jax.blackbox import BlackBox, Metered, captions
from craft_jax.config import ChatConfig, LanguageConfig
from craft_jax.files import write_atomically
from craft_jax.language.proposers import library
from craft_jax.method import stacked

SHOTS, SEEDS, WORDINGS, TEXTS, VIEWS = (1, 4, 16), (1, 2, 3), 100, 512, 8
RUNS = Path("runs/language")
TABLE = Path(__file__).parent / "results" / "language.md"
ROOT = Path(__file__).parent.parent
SEARCHES = {
    "published": LanguageConfig(proposer="published", wordings=WORDINGS, start=80, each_round=1),
    "mutation": LanguageConfig(wordings=WORDINGS),
    "mutation, templates and descriptions": LanguageConfig(wordings=WORDINGS, what="both"),
    "chat": LanguageConfig(proposer="chat", wordings=WORDINGS),
    "chat, templates and descriptions": LanguageConfig(proposer="chat", wordings=WORDINGS, what="both"),
}
WAYS = (language.BEST, language.COMBINED, language.PROBES)
ZERO_SHOT, BY_HAND, WORDS = "zero-shot", f"{len(library.TEMPLATES)} templates by hand, mean", "random words + head"


@dataclasses.dataclass(frozen=True)
class Task:
    """A draw, encoded once for all contenders."""

    black_box: BlackBox
    shown: language.Shown
    test: Any
    test_labels: np.ndarray


def encoded(name: str, shots: int, seed: int) -> Task:
    """The training views and test images of a draw; nothing is held out to choose by."""
    dataset = tasks.draw(name, shots, seed)
    black_box = blackbox.load("bundled", dataset.class_names)
    encoder = encoding.Encoder(Metered(black_box, budget=None))
    views = encoder.fixed_views([item.image for item in dataset.train], views=VIEWS, pieces=0, seed=seed)
    labels = np.array([item.label for item in dataset.train])
    shown = language.Shown(views, labels, None, np.zeros(0, int), dataset.digest())
    test = encoder.centre_crops([item.image for item in dataset.test])
    return Task(black_box, shown, test, np.array([item.label for item in dataset.test]))


def simple(task: Task, seed: int) -> dict[str, float]:
    """Accuracies without a search: zero-shot, templates written by hand, the head on words drawn blindly."""
    names = task.black_box.class_names
    zero_shot = captions(task.black_box, names)
    by_hand = [template.replace("{}", name) for template in library.TEMPLATES for name in names]
    answers = np.asarray(task.black_box.predict_texts(by_hand, task.test))
    mean = answers.reshape(len(answers), -1, len(names)).mean(axis=1)
    template = task.black_box.identity["template"]
    drawn = np.random.default_rng(seed).permutation(library.words(names))
    texts = [*zero_shot, *(template.replace("{}", word) for word in drawn)][:TEXTS]
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), task.shown.views)
    views, images = task.shown.shape
    shown = np.asarray(task.black_box.predict_texts(texts, rows))
    of = stacked.statistics(shown, np.tile(task.shown.labels, views), len(names))
    told = np.asarray(task.black_box.predict_texts(texts, task.test))
    head = stacked.fit(of, images / len(names))
    return {
        ZERO_SHOT: _accuracy(told[:, : len(names)], task),
        BY_HAND: _accuracy(mean, task),
        WORDS: _accuracy(stacked.apply(head, told), task),
    }


def searched(task: Task, settings: LanguageConfig, chat: ChatConfig, seed: int) -> dict[str, Any]:
    """Accuracies of what a search finds, prompts an image, and the best wording."""
    metered = Metered(task.black_box, budget=None)
    found = language.find(metered, task.shown, language=settings, chat=chat, texts=TEXTS, seed=seed)
    result: dict[str, Any] = {"best": found.told["best"]["wording"], "calls": found.told["calls"]}
    for name, (texts, head) in found.heads.items():
        answers = np.asarray(task.black_box.predict_texts(texts, task.test))
        result[name] = _accuracy(stacked.apply(head, answers), task)
        result[f"{name}, prompts"] = blackbox.prompts_for(len(texts), len(task.black_box.class_names))
    return result | {"queries": metered.meter.ledger.prompts}


def _accuracy(logits: np.ndarray, task: Task) -> float:
    return 100 * float(np.mean(np.asarray(logits).argmax(axis=1) == task.test_labels))


@contextlib.contextmanager
def language_model(folder: Path) -> Iterator[ChatConfig]:
    """The rules, in a process of their own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.proposing"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout
        try:
            address = f"http://127.0.0.1:{int(child.stdout.readline())}/v1"
            yield ChatConfig(address=address, model="rules", calls=40, store=str(folder / "replies.sqlite"))
        finally:
            child.terminate()


def cell(name: str, shots: int, seed: int) -> dict[str, Any]:
    """All contenders on one draw, as far as they are not kept."""
    file = RUNS / f"{name}-{shots}-shots-seed-{seed}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = [search for search in SEARCHES if search not in found]
    if not missing:
        return found
    task = encoded(name, shots, seed)
    found |= simple(task, seed)
    with language_model(RUNS) as chat:
        for search in missing:
            found[search] = searched(task, SEARCHES[search], chat, seed)
            jax.clear_caches()  # hundreds of runs' programs would fill memory
            print(name, shots, seed, search, found[search], flush=True)
    write_atomically(file, json.dumps(found, indent=1))
    return found


def rows(done: dict[tuple[str, int, int], dict[str, Any]]) -> Iterator[str]:
    """The table: by shots, means over tasks and seeds, then each task's."""
    names = list(dict.fromkeys(task for task, _, _ in done))
    columns = [(name, shots) for name in names for shots in SHOTS]
    yield f"| | prompts an image | mean | {' | '.join(f'{name}, {shots}' for name, shots in columns)} |"
    yield "|" + "---|" * (3 + len(columns))
    for label, read, price in _lines():
        means = [
            statistics.mean(read(found) for (task, shots, _), found in done.items() if (task, shots) == column)
            for column in columns
        ]
        cost = statistics.mean(price(found) for found in done.values())
        yield f"| {label} | {cost:.0f} | {statistics.mean(means):.1f} | {' | '.join(f'{m:.1f}' for m in means)} |"


def _lines() -> Iterator[tuple[str, Any, Any]]:
    for name, price in ((ZERO_SHOT, 1), (BY_HAND, len(library.TEMPLATES))):
        yield name, lambda found, name=name: found[name], lambda found, price=price: price
    for way in WAYS:
        for search in SEARCHES:
            yield (
                f"{search}: {way}",
                lambda found, search=search, way=way: found[search][way],
                lambda found, search=search, way=way: found[search][f"{way}, prompts"],
            )
    yield (
        f"{TEXTS} {WORDS}",
        lambda found: found[WORDS],
        lambda found: found[next(iter(SEARCHES))][f"{language.PROBES}, prompts"],
    )


def page(done: dict[tuple[str, int, int], dict[str, Any]]) -> list[str]:
    """What is committed: the table, and sentences to look at."""
    seeds = sorted({seed for _, _, seed in done})
    drawn = f"mean over seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    named = [
        f"- {name}, {search}: `{found[search]['best']}`"
        for (name, shots, seed), found in done.items()
        for search in SEARCHES
        if (shots, seed) == (16, 1)
    ]
    return [
        f"Test accuracy in percent, {drawn}; {WORDINGS} wordings asked of the "
        f"bundled CLIP, {VIEWS} views of each training photograph, nothing chosen by held-out ones. `chat` and "
        "`published` ask rules in the place of a language model (tests/proposing.py). `python -m benchmarks.language`.",
        "",
        *rows(done),
        "",
        "Best wordings at 16 shots, seed 1:",
        "",
        *named,
    ]


def main() -> None:
    """Runs what is missing, and writes the table."""
    given = sys.argv[1:]
    for name in given:
        if name not in tasks.TASKS:
            command.refuse(f"no task {name!r}; there are {', '.join(tasks.TASKS)}")
    RUNS.mkdir(parents=True, exist_ok=True)
    done: dict[tuple[str, int, int], dict[str, Any]] = {}
    for seed in SEEDS:
        for name, shots in itertools.product(given or tasks.TASKS, SHOTS):
            done[name, shots, seed] = cell(name, shots, seed)
        TABLE.write_text("\n".join(page(done)) + "\n", encoding="utf-8")
    print("\n".join(page(done)))


if __name__ == "__main__":
    main()
