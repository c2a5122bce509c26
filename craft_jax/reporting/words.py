"""What the page says in words and sums: why this model, what it cost, what was set, and the command that repeats it."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from craft_jax.blackbox import prompts_for
from craft_jax.config import Config, flat_settings
from craft_jax.reporting.page import Model
from craft_jax.reporting.text import code_in_markdown, in_markdown

Cost = tuple[str, str, list[tuple[str, str]]]
_BASE = Config(query_budget=500)  # what --config=demo holds


def choice(models: Sequence[Model], deployed: str, held_out: int, most_prompts: int) -> str:
    """Why a model was deployed, in a sentence that also says which one the test would rather have.

    Args:
      models: that could be.
      deployed: name of the one that is.
      held_out: photographs to choose by.
      most_prompts: that a labelled image may cost; 0 sets no limit.
    """
    chosen = next(model for model in models if model.name == deployed)
    dearer = [model.name for model in models if most_prompts and model.prompts_per_image > most_prompts]
    if chosen.held_out_loss is None:
        why = "since no photographs were held out to choose by, and it is the one that was learnt last or from most"
    else:
        rivals = [m for m in models if m.name not in (deployed, *dearer) and m.held_out_loss is not None]
        others = ", ".join(f"{m.held_out_loss:.3f} of {m.name}" for m in rivals)
        best = min((m.held_out_loss for m in rivals if m.held_out_loss is not None), default=chosen.held_out_loss)
        favour = "favour it" if chosen.held_out_loss <= best else "do not speak clearly enough against it"
        why = f"since {held_out} held-out photographs {favour}: cross-entropy {chosen.held_out_loss:.3f}" + (
            f" against {others}" if others else ""
        )
    if dearer:
        why += f"; deploy.prompts_per_image={most_prompts} leaves out {', '.join(dearer)}"
    better = max(models, key=lambda model: model.accuracy)
    if better.accuracy > chosen.accuracy:
        why += (
            f"; on the test, which has no say in it, {better.name} is right more often "
            f"({better.accuracy:.1f} % against {chosen.accuracy:.1f} %)"
        )
    return f"Deployed is {deployed}, {why}."


def costs(ledger: Mapping[str, Any], classes: int) -> list[Cost]:
    """What was asked of the black box set up for C classes: each sum with its parts."""
    sums = [
        _sum("queries (prompts)", _prompts(ledger, classes)),
        _sum("predictions (prompts x images)", {
            "of training views, by the texts": ledger.get("probe_predictions", 0),
            "for the search": ledger["search_predictions"],
            "of the present prompt, to train the head and centre the search": ledger["centre_predictions"],
            "to measure accuracy and to choose": ledger["evaluation_predictions"],
        }),
        ("images encoded", f"{ledger['images_encoded']:,}", []),
    ]  # fmt: skip
    if ledger.get("requests"):
        sums.append(("requests sent", f"{ledger['requests']:,}", []))
        sums.append(("texts in them", f"{ledger['texts_sent']:,}", []))
        sums.append(("megabytes sent", f"{ledger['bytes_sent'] / 1e6:,.1f}", []))
        sums += [("tokens", f"{ledger['tokens']:,}", [])] if ledger["tokens"] else []
        sums += [("money, at the prices set", f"{ledger['money']:,.2f}", [])] if ledger["money"] else []
    if ledger.get("proposal_calls"):
        sums.append(("calls of a language model", f"{ledger['proposal_calls']:,}", []))
        sums.append(("tokens of these", f"{ledger['proposal_tokens']:,}", []))
        money = ledger["proposal_money"]
        sums += [("money for these, at the prices set", f"{money:,.2f}", [])] if money else []
    return sums


def _prompts(ledger: Mapping[str, Any], classes: int) -> dict[str, int]:
    texts = ledger.get("texts", 0)
    asked = prompts_for(texts, classes)
    by_texts = f"{texts:,} texts, of which {classes} count as one"
    return {by_texts: asked, "of the search": ledger["prompts"] - asked}


def _sum(what: str, parts: Mapping[str, int]) -> Cost:
    shown = [(name, f"{count:,}") for name, count in parts.items() if count]
    return what, f"{sum(parts.values()):,}", shown


def changed(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The settings that differ from the defaults: name, value, default."""
    default = flat_settings(dataclasses.asdict(dataclasses.replace(Config(), query_budget=Config().budget)))
    return [
        (name, str(value), str(default[name]))
        for name, value in settings.items()
        if name in default and value != default[name]
    ]


def command(settings: Mapping[str, Any], workdir: str) -> str:
    """What repeats a run with these settings in a folder beside; empty where they do not name its photographs or model.

    It needs no settings file: whatever differs from those of the demo is on the line.
    """
    base = flat_settings(dataclasses.asdict(_BASE))
    if not set(base) <= set(settings):
        return ""
    flags = [f"--config.{name}={value}" for name, value in settings.items() if value != base[name]]
    return shlex.join(["craft-jax", "tune", "--config=demo", *flags, f"--workdir={workdir}-again"])


def wordings(told: Mapping[str, Any] | None) -> list[str]:
    """The texts that a search has found, as a section in Markdown; nothing where there was no search.

    Args:
      told: as `language.Found.told` has it; its sentences are of a language model, perhaps.
    """
    if not told:
        return []
    best, start = told["best"], told["start"]
    lines = [
        "",
        "## The texts that it found",
        "",
        f"Of {told['wordings']} wordings the best, by cross-entropy on the shots {best['loss']:.4f} "
        f"({code_in_markdown(start['wording'])} has {start['loss']:.4f}):",
        "",
        *(f"- {code_in_markdown(caption)}" for caption in best["captions"]),
    ]
    if told.get("details"):
        lines += ["", "What it says of each class:", ""]
        lines += [f"- {in_markdown(name)}: {code_in_markdown(detail)}" for name, detail in told["details"].items()]
    lines += [
        "",
        "The combination, with weights that are means over classes:",
        "",
        "| weight | loss | wording |",
        "|---|---|---|",
    ]
    lines += [
        f"| {one['weight']:.3f} | {one['loss']:.4f} | {in_markdown(one['wording'])} |" for one in told["combined"]
    ]
    if told["left_out"]:
        lines.append(f"\nand {told['left_out']} more.")
    if told["notes"]:
        lines += ["", f"Of {told['calls']} replies these could not be used as they were:", ""]
        lines += [f"- {code_in_markdown(note)}" for note in told["notes"]]
    return lines
