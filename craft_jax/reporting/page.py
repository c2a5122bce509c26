"""A run as one HTML file without network or scripts: accuracy, mistakes, calibration, cost, settings."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from craft_jax.data import Labelled
from craft_jax.files import one_line
from craft_jax.reporting import charts, measures
from craft_jax.reporting.answers import Answers, Judged
from craft_jax.reporting.suggestions import Suggestions
from craft_jax.reporting.thumbnails import thumbnails

_OF_PROMPTS = ("zero-shot", "prompt", "prompt + refinement")
_SHEET = 24  # photographs on a contact sheet
_WHOLE_MATRIX, _PART_OF_MATRIX, _PAIRS = 30, 24, 15


class Model(NamedTuple):
    """One that a run may deploy: its key and title, what an image costs, test accuracy, and held-out cross-entropy."""

    name: str
    title: str
    prompts_per_image: int
    accuracy: float
    held_out_loss: float | None


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that the page says, as the run has it.

    Attributes:
      title: of the page.
      result: of the run, as result.json has it.
      models: that it could deploy.
      choice: why it deploys the one that it does, in a sentence.
      rows: of the log.
      costs: what was asked: sums as (what, sum, [(part, count)]).
      changed: settings that differ from the defaults, as (name, value, default).
      settings: all of them, as (name, value).
      command: that repeats the run; empty where it was started from Python.
      judged: what the deployed model says.
      class_names: C of them.
      test: the photographs that `judged.test` is about.
      suggestions: what to look at and to collect.
    """

    title: str
    result: dict[str, Any]
    models: Sequence[Model]
    choice: str
    rows: Sequence[dict[str, Any]]
    costs: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]
    changed: Sequence[tuple[str, str, str]]
    settings: Sequence[tuple[str, str]]
    command: str
    judged: Judged
    class_names: Sequence[str]
    test: Sequence[Labelled]
    suggestions: Suggestions = Suggestions()


class Shown(NamedTuple):
    """A photograph on a contact sheet; `confidence` in percent."""

    picture: str
    path: str
    name: str
    truth: str
    predicted: str
    confidence: float
    right: bool


class ClassRow(NamedTuple):
    """A class in the table; accuracies in percent, `mistaken` the class that it is most often taken for."""

    name: str
    tested: int
    right: int
    accuracy: float
    interval: measures.Interval | None
    mistaken: str
    times: int


def render(facts: Facts) -> str:
    """The page as HTML."""
    answers = facts.judged.test
    names = [one_line(name) for name in facts.class_names]
    counts = measures.confusion(answers.labels, answers.best[:, 0], len(names))
    right, tested = int(answers.right.sum()), len(answers.labels)
    plain = measures.reliability(answers.probability[:, 0], answers.right)
    tempered = measures.reliability(answers.tempered, answers.right) if len(facts.judged.held_out.labels) else []
    result = facts.result
    page: str = template("report.html.jinja").render(
        facts=facts,
        result=result,
        right=right,
        tested=tested,
        interval=measures.interval(right, tested),
        intervals={model.name: _interval(model.accuracy, tested) for model in facts.models},
        curve=charts.curve(facts.rows, result["zero_shot"], result["accuracy"], result["chosen"] not in _OF_PROMPTS),
        classes=_classes(names, counts),
        matrix=_matrix(names, counts),
        pairs=_pairs(names, counts),
        mistakes=_sheet(facts, names, _worst(answers)),
        unsure=_sheet(facts, names, _least_sure(answers)),
        diagram=charts.diagram(plain, tempered),
        bins=plain,
        error=100 * measures.calibration_error(plain),
        tempered_error=100 * measures.calibration_error(tempered),
        held_out=len(facts.judged.held_out.labels),
    )
    return page


@functools.cache
def template(name: str) -> jinja2.Template:
    """A page's template, in which every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("craft_jax.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = one_line
    return environment.get_template(name)


def _interval(accuracy: float, tested: int) -> measures.Interval:
    return measures.interval(round(accuracy / 100 * tested), tested)


def _worst(answers: Answers) -> np.ndarray:
    """The mistakes, the most confident first."""
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(-answers.tempered[wrong], kind="stable")][:_SHEET]


def _least_sure(answers: Answers) -> np.ndarray:
    """The photographs whose two best classes are closest."""
    between = answers.probability[:, 0] - answers.probability[:, 1]
    return np.argsort(between, kind="stable")[:_SHEET]


def _sheet(facts: Facts, names: Sequence[str], rows: np.ndarray) -> list[Shown]:
    answers = facts.judged.test
    paths = [one_line(facts.test[i].image.name) for i in rows]
    pictures = thumbnails([facts.test[i].image for i in rows])
    return [
        Shown(
            picture,
            path,
            path.rpartition("/")[2],
            names[answers.labels[i]],
            names[answers.best[i, 0]],
            100 * float(answers.tempered[i]),
            bool(answers.right[i]),
        )
        for i, picture, path in zip(rows, pictures, paths, strict=True)
    ]


def _classes(names: Sequence[str], counts: np.ndarray) -> list[ClassRow]:
    """Every class, the weakest first; those without a test photograph last."""
    rows = []
    for label, name in enumerate(names):
        tested, right = int(counts[label].sum()), int(counts[label, label])
        others = np.where(np.arange(len(names)) == label, 0, counts[label])
        most = int(others.argmax())
        rows.append(
            ClassRow(
                name,
                tested,
                right,
                100 * right / tested if tested else 0.0,
                measures.interval(right, tested) if tested else None,
                names[most] if others[most] else "",
                int(others[most]),
            )
        )
    return sorted(rows, key=lambda row: (not row.tested, row.accuracy))


class Matrix(NamedTuple):
    """Of the confusion matrix the classes shown: their names, counts, and counts as shares of the row."""

    classes: list[str]
    counts: list[list[int]]
    shares: list[list[float]]


def _matrix(names: Sequence[str], counts: np.ndarray) -> Matrix:
    """All classes, or those with the most mistakes where there are many."""
    shown = np.arange(len(names))
    if len(names) > _WHOLE_MATRIX:
        mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-mistakes, kind="stable")[:_PART_OF_MATRIX])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    part = np.ix_(shown, shown)
    return Matrix([names[int(i)] for i in shown], counts[part].tolist(), shares[part].round(3).tolist())


def _pairs(names: Sequence[str], counts: np.ndarray) -> list[tuple[str, str, int]]:
    """Classes that are taken for others, the most often first: truth, prediction, photographs."""
    apart = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    order = np.argsort(-apart, axis=None, kind="stable")[:_PAIRS]
    truth, predicted = np.unravel_index(order, apart.shape)
    found = [(int(t), int(p)) for t, p in zip(truth, predicted, strict=True) if apart[t, p]]
    return [(names[t], names[p], int(apart[t, p])) for t, p in found]
