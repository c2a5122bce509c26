"""SigLIP's tokenizer, from tokenizer.json: T5's of the first SigLIP, or Gemma's of SigLIP 2.

Texts are prepared as for training: in lower case, and for the first SigLIP without punctuation, as transformers'
SiglipTokenizer does it. A caption ends with EOS, has no BOS, and is filled up on the right.
"""

import re
import string
from pathlib import Path
from typing import Any

from craft_jax.blackbox.loaders import hub_files
from craft_jax.errors import UserError

_WORD_START = "▁"  # SentencePiece's mark of a space
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_AS_TRAINED = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "do_lower_case": True}


class SiglipTokenizer:
    """From a text to its tokens.

    Args:
      tokenizer: transformers' fast tokenizer.
      vocabulary: tokens that the model has.
      punctuation: whether the model's texts have it.

    Attributes:
      end: the token after the last word.
      padding: the token that captions are filled up with.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, *, punctuation: bool) -> None:
        self.end, self.padding = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._punctuation = punctuation

    def words(self, text: str) -> list[int]:
        """The tokens of a text's words; raises UserError where the model has no such token."""
        prepared = text.lower() if self._punctuation else _canonical(text)
        ids: list[int] = self._tokenizer(prepared, add_special_tokens=False, verbose=False)["input_ids"]
        highest = max([*ids, self.end, self.padding])
        if highest >= self._vocabulary:
            raise UserError(
                f"the tokenizer gives {highest} for {text!r}, and the model has {self._vocabulary} tokens; bring the "
                "tokenizer that belongs to the model"
            )
        return ids


def read(folder: Path, vocabulary: int) -> SiglipTokenizer:
    """The tokenizer in a folder.

    Args:
      folder: with tokenizer.json and tokenizer_config.json.
      vocabulary: tokens that the model has.

    Raises:
      UserError: where it is absent or lacks a token, or captions are made in another way than SigLIP's.
    """
    import transformers

    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} lacks SigLIP's tokenizer.json; bring it from where the model came from (spiece.model and "
            "tokenizer.model are not read)"
        )
    settings = hub_files.tokenizer_settings(folder)
    for name, value in _AS_TRAINED.items():
        if settings.get(name, value) != value:
            raise UserError(
                f"{folder}: tokenizer_config.json has {name}={settings[name]!r}, and SigLIP's captions are made with "
                f"{value!r}"
            )
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    for name in ("eos_token", "pad_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise UserError(f"{folder}: tokenizer_config.json names no {name}, which every caption has; add it")
    kind = settings.get("tokenizer_class") or "SiglipTokenizer"
    return SiglipTokenizer(tokenizer, vocabulary, punctuation=not str(kind).startswith("SiglipTokenizer"))


def _canonical(text: str) -> str:
    """Lower case, no punctuation, single spaces; with the mark at the first word that SiglipTokenizer sets itself."""
    marked = _WORD_START + text.lower().replace(_WORD_START, " ")
    prepared = re.sub(r"\s+", " ", marked.translate(_NO_PUNCTUATION)).strip()
    return "" if prepared == _WORD_START else prepared
