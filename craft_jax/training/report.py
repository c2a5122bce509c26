"""What a run leaves for people: the table on the screen, the curve as PNG, the report in HTML and in Markdown."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from craft_jax.blackbox import Described, is_remote
from craft_jax.config import TEXTS_ALONE, Config, flat_settings, identity
from craft_jax.data import FewShotSet, ImageFile, hold_out
from craft_jax.errors import NotInstalled, needed
from craft_jax.files import replacing
from craft_jax.reporting import (
    Facts,
    Judged,
    Model,
    Suggestions,
    code_in_markdown,
    in_markdown,
    render,
    suggestions,
    words,
)
from craft_jax.training import selection

Row = dict[str, Any]
_OF_PROMPTS = (selection.ZERO_SHOT, selection.PROMPT, selection.REFINED)
AS_GIVEN = " as it was given from Python"


def is_whole(result: Path, stream: TextIO) -> bool:
    """Whether a run has left its result.json; says so where it did and the file is damaged."""
    if not result.exists():
        return False
    try:
        whole = {"zero_shot", "accuracy", "chosen", "ledger"} <= set(json.loads(result.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        whole = False
    if not whole:
        print(f"{result} is damaged; writing it anew from the last checkpoint", file=stream, flush=True)
    return whole


def models(result: Row) -> list[Model]:
    """What a run could deploy, with its accuracies."""
    costs, losses = result.get("prompts_per_image", {}), result["held_out"]["loss"]
    found = [(selection.ZERO_SHOT, "zero-shot", result["zero_shot"])]
    if result.get("probes") is not None:
        found.append((selection.PROBES, "probes + head in closed form", result["probes"]))
    for name, accuracy in (result.get("wordings") or {}).get("accuracy", {}).items():
        found.append((name, name, accuracy))
    if result["learn"] not in TEXTS_ALONE:
        found.append((selection.PROMPT, "tuned prompt alone", result["prompt_only"]))
        found.append((selection.REFINED, "tuned prompt + refinement", result["refined"]))
    return [Model(name, title, costs.get(name, 1), right, losses.get(name)) for name, title, right in found]


def table(result: Row) -> str:
    """The accuracies of a run as a Markdown table, the deployed model's last."""
    costs = result.get("prompts_per_image", {})
    rows = [(model.title, model.prompts_per_image, model.accuracy) for model in models(result)]
    rows.append((f"deployed: {result['chosen']}", costs.get(result["chosen"], 1), result["accuracy"]))
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"| {'predictions':{width}} | prompts an image | test accuracy |",
        f"|{'-' * (width + 2)}|-----------------:|--------------:|",
    ]
    lines += [f"| {name:{width}} | {cost:>16} | {accuracy:>11.1f} % |" for name, cost, accuracy in rows]
    return "\n".join(lines)


def advice(judged: Judged, dataset: FewShotSet, config: Config) -> Suggestions:
    """What held-out photographs suggest to look at and to collect."""
    kept, held_out = hold_out(dataset, config.held_out, config.seed)
    return suggestions.suggest(judged, kept.train, held_out, dataset.class_names)


def page(
    result: Row,
    settings: Row,
    rows: Sequence[Row],
    judged: Judged,
    suggested: Suggestions,
    dataset: FewShotSet,
    workdir: Path,
) -> str:
    """The run as one HTML file, with photographs; `rows` are of the log, `settings` by full name."""
    return render(
        Facts(
            title=_title(result),
            result=result,
            models=models(result),
            choice=_choice(result, settings),
            rows=rows,
            costs=words.costs(result["ledger"], result["classes"]),
            changed=words.changed(settings),
            settings=[(name, str(value)) for name, value in settings.items()],
            command=words.command(settings, str(workdir)),
            judged=judged,
            class_names=dataset.class_names,
            test=dataset.test,
            suggestions=suggested,
        )
    )


def next_commands(dataset: FewShotSet, workdir: Path) -> list[str]:
    """What to do with a finished run, as lines to paste."""
    image = dataset.test[0].image
    folder = str(image.path.parent) if isinstance(image, ImageFile) else "PHOTOS"
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    return [
        shlex.join([opener, str(workdir / "report.html")]),
        shlex.join(["craft-jax", "predict", f"--checkpoint={workdir}", folder]),
    ]


def _title(result: Row) -> str:
    return f"{result['shots']} shots of {result['classes']} classes, seed {result['seed']}"


def _choice(result: Row, settings: Row) -> str:
    limit = settings["deploy.prompts_per_image"]
    return words.choice(models(result), result["chosen"], result["held_out"]["images"], limit)


def ledger_lines(ledger: dict[str, int]) -> list[str]:
    """What the run asked of its black box, a line each."""
    return [
        f"prompts queried: {ledger['prompts']:,}{_texts(ledger)}",
        f"predictions (prompts x images) for the search: {ledger['search_predictions']:,}",
        f"predictions of the present prompt, to train the head and centre the search: {ledger['centre_predictions']:,}",
        f"predictions to measure accuracy and to choose: {ledger['evaluation_predictions']:,}",
        f"images encoded: {ledger['images_encoded']:,}",
        *_sent_lines(ledger),
        *_proposal_lines(ledger),
    ]


def _texts(ledger: dict[str, int]) -> str:
    texts = ledger.get("texts", 0)
    return f", {texts:,} texts among them, whose predictions are {ledger['probe_predictions']:,}" if texts else ""


def _sent_lines(ledger: dict[str, int]) -> list[str]:
    """What went over HTTP, where anything did; results of older versions have no such entries."""
    if not ledger.get("requests"):
        return []
    money = f", {ledger['money']:,.2f} at the prices set" if ledger["money"] else ""
    tokens = f", {ledger['tokens']:,} tokens" if ledger["tokens"] else ""
    size = ledger["bytes_sent"] / 1e6
    return [f"requests sent: {ledger['requests']:,} with {ledger['texts_sent']:,} texts, {size:,.1f} MB{tokens}{money}"]


def _proposal_lines(ledger: dict[str, int]) -> list[str]:
    """What a language model took, where one was asked."""
    if not ledger.get("proposal_calls"):
        return []
    money = f", {ledger['proposal_money']:,.2f} at the prices set" if ledger["proposal_money"] else ""
    return [f"calls of a language model: {ledger['proposal_calls']:,}, {ledger['proposal_tokens']:,} tokens{money}"]


def settings_used(config: Config, dataset: FewShotSet, black_box: Described) -> Row:
    """The settings of a run by full name; those of its set and of its black box as these themselves say.

    Of a set that was put together in Python, and of a remote black box, settings say nothing: they are left out, for
    `AS_GIVEN`.
    """
    data = AS_GIVEN if dataset.settings is None else dataclasses.asdict(dataset.settings)
    about = black_box.identity
    loaded = {name: about.get(name, value) for name, value in dataclasses.asdict(config.black_box).items()}
    by_python = is_remote(about) and not about.get("api")
    used = {"data": data, "black_box": AS_GIVEN if by_python else loaded}
    flat = flat_settings(dataclasses.asdict(config) | used)
    return flat | {"data.views": config.data.views}


def markdown(result: Row, settings: Row, suggested: Suggestions, curve: str) -> str:
    """The run on one page, with the picture `curve` in it where there is one; settings by full name."""
    lines = [
        f"# {_title(result)}",
        "",
        table(result),
        "",
        f"Split: {in_markdown(result['split'])}, {result['test_images']} test images. "
        f"Black box: {in_markdown(result['black_box'])}. "
        f"Learnt: {result['learn']}. {result['seconds']:.0f} seconds.",
        "",
        _choice(result, settings),
        *_white_box_warning(result),
        *words.wordings(result.get("wordings")),
        *(f"\n{in_markdown(note)}." for note in result["notes"]),
        *(["", f"![test accuracy over queries]({curve})"] if curve else []),
        *suggestions.markdown(suggested),
        "",
        "## What it asked of the black box",
        "",
        *(f"- {line}" for line in ledger_lines(result["ledger"])),
        "",
        "## Settings",
        "",
        *_listed({name: value for name, value in settings.items() if identity.is_learnt_by(name)}),
        "",
        "How it was carried out, which changes nothing that is learnt:",
        "",
        *_listed({name: value for name, value in settings.items() if not identity.is_learnt_by(name)}),
        "",
    ]
    return "\n".join(lines)


def _listed(settings: Row) -> list[str]:
    return [
        f"- `{name}`{value if value == AS_GIVEN else f' = {code_in_markdown(repr(value))}'}"
        for name, value in settings.items()
    ]


def _white_box_warning(result: Row) -> list[str]:
    if result["estimator"] != "white-box":
        return []
    return [
        "",
        "**White box**: this run took gradients through the model. It is a bound for studies, no black-box result.",
    ]


def curve(path: Path, rows: Sequence[Row], zero_shot: float) -> str:
    """Draws the curve and returns its file's name; without matplotlib says so and returns none: the run is whole."""
    try:
        draw_curve(path, rows, zero_shot)
    except NotInstalled as error:
        print(f"note: {error}", file=sys.stderr, flush=True)
        return ""
    return path.name


def draw_curve(path: Path, rows: Sequence[Row], zero_shot: float) -> None:
    """Accuracy over queries: tests where they were made, training as a faint line behind them.

    Raises:
      NotInstalled: where there is no matplotlib.
    """
    # Imported here: matplotlib builds a font cache on first use, and only finished runs need it.
    with needed("matplotlib", path.name):
        from matplotlib.figure import Figure

    tested = [row for row in rows if "test_refined" in row]
    count = "prompts" if rows[-1]["prompts"] else "step"  # a run that learns the head alone queries no candidates
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    queries = [row[count] for row in rows]
    stepped = [row for row in rows if row.get("step", 1)]  # the probes' accuracy on what they learnt from is no part
    trained = [row["train_refined"] for row in stepped]
    at = [row[count] for row in stepped]
    axes.plot(at, trained, color="0.8", lw=1, label="training images, prompt + refinement")
    at = [0] + [row[count] for row in tested]
    axes.axhline(zero_shot, color="0.4", ls=":", label="test, zero-shot")
    axes.plot(
        at,
        [zero_shot] + [row["test_prompt_only"] for row in tested],
        "s-",
        ms=4,
        color="tab:blue",
        label="test, prompt alone",
    )
    axes.plot(
        at,
        [zero_shot] + [row["test_refined"] for row in tested],
        "o-",
        ms=4,
        color="tab:red",
        label="test, prompt + refinement",
    )
    if "test_probes" in rows[0]:
        axes.plot(
            [rows[0]["prompts"]], [rows[0]["test_probes"]], "*", ms=13, color="tab:green", label="test, probes + head"
        )
    if "test_chosen" in rows[-1]:
        where = rows[0 if rows[-1]["chosen"] not in _OF_PROMPTS else -1][count]
        name = f"deployed: {rows[-1]['chosen']}, {rows[-1]['test_chosen']:.1f} %"
        axes.plot([where], [rows[-1]["test_chosen"]], "o", ms=14, mfc="none", mec="black", mew=1.5, ls="", label=name)
    axes.set(
        xlabel="queries (prompts evaluated)" if count == "prompts" else "steps",
        ylabel="accuracy in %",
        xlim=(0, 1.05 * queries[-1]),
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
