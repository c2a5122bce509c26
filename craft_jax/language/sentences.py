"""The winning sentences for people: what the report prints of a search over texts."""

from typing import Any


def report_lines(told: dict[str, Any] | None) -> list[str]:
    """A section in Markdown; nothing where there was no search.

    Args:
      told: as `Found.told` has it.
    """
    if not told:
        return []
    best, start = told["best"], told["start"]
    lines = [
        "",
        "## The texts that it found",
        "",
        f"Of {told['wordings']} wordings the best, by cross-entropy on the shots {best['loss']:.4f} "
        f"({_code(start['wording'])} has {start['loss']:.4f}):",
        "",
        *(f"- {_code(caption)}" for caption in best["captions"]),
    ]
    if told.get("details"):
        lines += ["", "What it says of each class:", ""]
        lines += [f"- {name}: {_code(detail)}" for name, detail in told["details"].items()]
    lines += [
        "",
        "The combination, with weights that are means over classes:",
        "",
        "| weight | loss | wording |",
        "|---|---|---|",
    ]
    lines += [f"| {one['weight']:.3f} | {one['loss']:.4f} | {_code(one['wording'])} |" for one in told["combined"]]
    if told["left_out"]:
        lines.append(f"\nand {told['left_out']} more.")
    if told["notes"]:
        lines += ["", f"Of {told['calls']} replies these could not be used as they were:", ""]
        lines += [f"- {_code(note)}" for note in told["notes"]]
    return lines


def _code(text: str) -> str:
    """As code, which Markdown shows as it is."""
    return "`" + text.replace("`", "'").replace("|", "/") + "`"
