"""What is searched over: a template for all classes, with a description of each where there are any."""

from collections.abc import Sequence
from typing import NamedTuple

PLACE = "{}"
"""Where a template has the class's name."""


class Wording(NamedTuple):
    """How all classes are put into words.

    Attributes:
      template: with `{}` for the class, once or more.
      details: a phrase for each of the C classes, empty for none; without any where the template stands alone.
    """

    template: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people: the template, and what it says of the first classes."""
        said = [detail for detail in self.details if detail]
        return self.template if not said else f"{self.template} ({'; '.join(said[:3])}{'; ...' if said[3:] else ''})"


def captions(wording: Wording, class_names: Sequence[str]) -> list[str]:
    """The caption of each of the C classes."""
    details = wording.details or ("",) * len(class_names)
    return [caption(wording.template, name, detail) for name, detail in zip(class_names, details, strict=True)]


def caption(template: str, name: str, detail: str = "") -> str:
    """One class's: "a photo of a {}." and "with a trunk" of an elephant are "a photo of a elephant, with a trunk."."""
    text = template.replace(PLACE, name)
    return f"{text.rstrip(' .')}, {detail}." if detail else text
