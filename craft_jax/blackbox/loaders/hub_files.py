"""What lies at a model's name, before anything of it is loaded: its files, or one line that says what is there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax.blackbox.loaders import weight_files
from craft_jax.errors import UserError, first_line, silenced

_SECONDS = 5  # for the hub to answer at all
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_TOKENIZER_SETTINGS = "tokenizer_config.json"
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")


class Found(NamedTuple):
    """A model in the transformers layout: its folder, and its type, `clip` or `siglip`."""

    folder: Path
    type: str


def find(model: str) -> Found:
    """A model's files, downloaded where `model` is a hub name: of its weights one form alone.

    Raises:
      UserError: where a file is missing or no JSON, or the model is no CLIP and no SigLIP.
    """
    with readable(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            folder = _download(model)
        kind = _type_of(_read(folder / "config.json"), model)
        weight_files.find(folder)
    return Found(folder, kind)


@contextlib.contextmanager
def readable(model: str) -> Iterator[None]:
    """Within the block, what goes wrong with a model's files is a UserError in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the hub client, JSON and the tokenizers library each raise their own kinds
        raise UserError(
            f"black_box.model={model!r} could not be loaded as a CLIP or SigLIP ({first_line(error)}); give `bundled`, "
            "a folder with config.json, weights, tokenizer and preprocessor_config.json, a ResNet CLIP's folder in "
            "open_clip's layout, RN50 and kin, or a hub name that this machine reaches"
        ) from error


def image_processor(folder: Path) -> dict[str, Any]:
    """What a folder says about how images are prepared; version 5 may say it beside the tokenizer's settings."""
    for name in _PREPROCESSING:
        if (folder / name).is_file():
            settings = _read(folder / name)
            found = settings if name == _PREPROCESSING[0] else settings.get("image_processor")
            if isinstance(found, dict):
                return found
    raise UserError(f"{folder}: lacks {_PREPROCESSING[0]}, which says how images are prepared; bring it")


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What a folder says about its tokenizer."""
    return _read(folder / _TOKENIZER_SETTINGS)


def missing_tokenizer_files(folder: Path) -> list[str]:
    """What a folder lacks to hold CLIP's tokenizer: nothing with tokenizer.json, or with vocabulary and merges."""
    if (folder / "tokenizer.json").is_file():
        return []
    return [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]


def check_tokenizer(folder: Path) -> None:
    """Says what a folder lacks to hold CLIP's tokenizer.

    Raises:
      UserError: where it lacks a file.
    """
    absent = missing_tokenizer_files(folder)
    if absent:
        raise UserError(
            f"{folder} lacks CLIP's tokenizer; add {' and '.join(absent)}, or tokenizer.json "
            "(any CLIP of OpenAI's has the same ones)"
        )


def _download(model: str) -> Path:
    import huggingface_hub

    def fetch(name: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(model, name))
        except huggingface_hub.errors.EntryNotFoundError as error:
            if isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError) and name == "config.json":
                raise
            return None

    config = fetch("config.json")
    if config is None:
        raise UserError(
            f"black_box.model={model!r}: the hub has no config.json of it, so it is no model that is read here"
        )
    _type_of(_read(config), model)
    for name in (*TOKENIZER_FILES, *_PREPROCESSING):
        fetch(name)
    for name in weight_files.NAMES:
        if weights := fetch(name):
            for shard in weight_files.shards(weights):
                fetch(shard)
            break
    return config.parent


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise UserError(f"{file}: no such file; a model's folder holds config.json, weights and tokenizer files")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); bring the file anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no object of settings; bring the file anew")
    return content


def _type_of(config: dict[str, Any], model: str) -> str:
    found = config.get("model_type", "clip")
    if found == "siglip2":
        raise UserError(
            f"black_box.model={model!r} is a SigLIP 2 of the kind NaFlex, whose images are of no one size; give one of "
            "a fixed size, whose config.json has model_type siglip"
        )
    if found not in ("clip", "siglip"):
        raise UserError(
            f"black_box.model={model!r} is a model of type {found}, and only types clip and siglip are read here"
        )
    return str(found)


@contextlib.contextmanager
def hub_or_cache(model: str) -> Iterator[None]:
    """Within the block, what is in the cache alone counts where the hub does not answer: its client would go on asking.

    Args:
      model: a hub's name; for a file or folder, and for none, no hub is asked.
    """
    if Path(model).expanduser().exists():
        yield
        return
    import httpx
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with silenced("huggingface_hub"):
        try:
            httpx.head(constants.ENDPOINT, timeout=_SECONDS)
        except httpx.HTTPError:
            constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
