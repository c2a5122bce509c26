"""What lies at a model's name, before anything of it is loaded: a CLIP's files, or one line that says what is there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from craft_jax.errors import UserError, silenced

_SECONDS = 5  # for the hub to answer at all
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "flax_model.msgpack", "flax_model.msgpack.index.json")


def check(model: str) -> None:
    """Looks at a folder in the transformers layout, or at a hub name.

    Raises:
      UserError: where a file is missing or no JSON, the model is no CLIP, or its weights are in another form.
    """
    if Path(model).is_dir():
        _check_type(_read(Path(model) / "config.json"), model)
        _check_weights(Path(model))
        return
    import transformers

    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(model)
    except Exception:  # the loader says what it is
        return
    _check_type(config, model)


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


def _check_type(config: dict[str, Any], model: str) -> None:
    found = config.get("model_type", "clip")
    if found != "clip":
        raise UserError(f"black_box.model={model!r} is a model of type {found}, and only type clip is read here")


def _check_weights(folder: Path) -> None:
    if any((folder / name).exists() for name in _WEIGHTS):
        return
    if (folder / "pytorch_model.bin").exists():
        raise UserError(
            f"{folder}: its weights are in pytorch_model.bin alone, a pickle, which is not read here; where PyTorch is "
            "installed, transformers.CLIPModel.from_pretrained(FOLDER).save_pretrained(FOLDER) writes model.safetensors"
        )
    raise UserError(f"{folder}: no weights; it must hold one of {', '.join(_WEIGHTS)}")


@contextlib.contextmanager
def hub_or_cache(model: str) -> Iterator[None]:
    """Within the block, what is in the cache alone counts where the hub does not answer: its client would go on asking.

    Args:
      model: a hub's name; for a file or folder, and for none, no hub is asked.
    """
    if Path(model).expanduser().exists():
        yield
        return
    import requests
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with silenced("huggingface_hub"):
        try:
            requests.head(constants.ENDPOINT, timeout=_SECONDS)
        except requests.RequestException:
            constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
