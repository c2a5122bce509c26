"""What wordings are made of where no language model is asked: templates, their parts, phrases about things, words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from craft_jax.language.wordings import PLACE

TEMPLATES = (
    "a photo of a {}.",
    "a picture of the {}.",
    "a close view of a {}.",
    "a small photo of one {}.",
    "a photo of a large {}.",
    "a dark photo of a {}.",
    "a bright photo of the {}.",
    "a blurred picture of a {}.",
    "a sharp photo of a single {}.",
    "a photo of the clean {}.",
    "a photo of an old {}.",
    "a drawing of a {}.",
    "a painting of the {}.",
    "a black and white photo of a {}.",
    "a cropped picture of the {}.",
    "a tilted photo of a {}.",
    "a {} in the middle of the picture.",
    "a {} on a plain background.",
    "a {} seen from the side.",
    "a {} seen from above.",
    "many a {} in one photo.",
    "a part of a {}.",
    "a snapshot of my {}.",
    "here is a {}.",
)
"""Of a kind that people write by hand."""

BEFORE = (
    "a photo of", "a picture of", "an image of", "a close view of", "a snapshot of", "a drawing of", "a painting of",
    "a sketch of", "a scan of", "a small picture of", "a dark photo of", "a bright photo of", "a blurred photo of",
    "a sharp photo of", "a cropped photo of", "a colour photo of", "an old photo of", "this is", "here is",
    "a catalogue picture of", "an amateur photo of", "a studio photo of", "someone took a photo of",
)  # fmt: skip
ARTICLES = ("a", "the", "one", "my", "some", "a single", "a typical", "a large", "a small", "a beautiful", "a strange")
AFTER = (
    "", "", "on a plain background", "on a white background", "in the middle", "seen from the side", "seen from above",
    "in front of a wall", "in its usual place", "outdoors", "indoors", "on a table", "in daylight", "at night",
    "with nothing else", "in low resolution", "among other things", "cut in half by the frame", "from far away",
)  # fmt: skip
PHRASES = (
    "made of metal", "made of wood", "made of glass", "made of paper", "made of cloth", "made of stone", "of plastic",
    "with fur", "with feathers", "with scales", "with a shell", "with leaves", "with petals", "with four legs",
    "with two legs", "with wings", "with wheels", "with strings", "with keys", "with a long neck", "with a tail",
    "with horns", "with a handle", "with a screen", "with stripes", "with spots", "with sharp edges",
    "with round edges",
    "round", "long and thin", "flat", "tall", "shiny", "transparent", "soft", "rough", "crumpled", "symmetrical",
    "red", "green", "blue", "yellow", "brown", "grey", "white", "black", "of many colours", "that moves", "that grows",
    "that is eaten", "that makes sounds", "that floats", "that flies", "that is worn", "that is thrown away",
    "found in a kitchen", "found at home", "found in the wild", "found in water", "found in a street",
    "found in a shop",
    "used by hand", "larger than a person", "smaller than a hand",
)  # fmt: skip

_WORDS = Path(__file__).parent.parent.parent / "assets" / "words.txt"


def words(class_names: Sequence[str]) -> list[str]:
    """The words to draw from, without those that are class names."""
    taken = {name.lower() for name in class_names}
    return [word for word in _WORDS.read_text(encoding="utf-8").split() if word not in taken]


def template(rng: np.random.Generator) -> str:
    """One put together from the parts."""
    before, article, after = (parts[rng.integers(len(parts))] for parts in (BEFORE, ARTICLES, AFTER))
    return " ".join(filter(None, (before, article, PLACE, after))) + "."


def phrase(rng: np.random.Generator, vocabulary: Sequence[str]) -> str:
    """About a thing: one of the phrases, or two random words, which do as well as a language model's (WaffleCLIP)."""
    if rng.random() < 0.5:
        return PHRASES[rng.integers(len(PHRASES))]
    one, other = rng.choice(len(vocabulary), 2, replace=False)
    return f"with {vocabulary[one]} and {vocabulary[other]}"
