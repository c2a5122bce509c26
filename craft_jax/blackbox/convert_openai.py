"""Converts OpenAI's ResNet CLIPs: python -m craft_jax.blackbox.convert_openai RN50.pt FOLDER [--tokenizer=FOLDER]

Reads OpenAI's TorchScript archive, or a state dict, and leaves a folder that `black_box.model` takes. Needs the extra
`torch`. A TorchScript archive can run code when it is opened: convert those of a source that you trust.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from craft_jax.cli import exit_on_user_error, parse
from craft_jax.errors import UserError, first_line
from craft_jax.files import replacing

_USAGE = "usage: python -m craft_jax.blackbox.convert_openai ARCHIVE.pt FOLDER [--tokenizer=FOLDER]"


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "tokenizer", None, "Folder with CLIP's tokenizer files, which are copied along.", flag_values=values
    )
    return values


def main(argv: list[str]) -> None:
    """Runs the conversion that the command line describes."""
    given, rest = parse(_flags(), argv, usage=_USAGE)
    if len(rest) != 2:
        raise UserError(f"an archive and a folder are needed; {_USAGE}")
    print("\n".join(convert(Path(rest[0]), Path(rest[1]), Path(given.tokenizer) if given.tokenizer else None)))


def convert(archive: Path, folder: Path, tokenizer: Path | None = None) -> list[str]:
    """Writes an archive's weights, their configuration and the tokenizer's files to a new folder, whole or not at all.

    Returns:
      Lines that say what was written, left out, and is still missing.

    Raises:
      UserError: where the archive is not a ResNet CLIP, the folder is in use, or the tokenizer is incomplete.
    """
    from craft_jax.blackbox.loaders import hub_files, open_clip, openai_weights
    from craft_jax.blackbox.towers import resnet_architecture

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists; name a folder that is new or empty")
    if tokenizer and (absent := hub_files.missing_tokenizer_files(tokenizer)):
        raise UserError(f"--tokenizer={tokenizer} lacks {' and '.join(absent)}, or tokenizer.json")
    weights = read_archive(archive)
    try:
        architecture = resnet_architecture.from_weights({name: value.shape for name, value in weights.items()})
        openai_weights.check(weights, architecture)
        _check_entries(weights, architecture)
    except UserError as error:
        raise UserError(f"{archive}: {error}") from error
    entries = [name for name in openai_weights.ENTRIES if name in weights]
    kept = {name: np.asarray(value, order="C") for name, value in weights.items() if name not in entries}
    settings = {
        "model_cfg": resnet_architecture.to_model_cfg(architecture),
        "preprocess_cfg": {"mean": list(open_clip.PIXEL_MEAN), "std": list(open_clip.PIXEL_STD)},
    }
    copied = [file for name in hub_files.TOKENIZER_FILES if tokenizer and (file := tokenizer / name).is_file()]
    _write(folder, kept, settings, copied)
    report = [f"wrote {len(kept)} tensors of a ResNet CLIP for {architecture.image_size}-pixel images to {folder}"]
    if entries:
        report.append(f"left out {', '.join(entries)}, which {open_clip.CONFIG} says")
    if not copied:
        report.append(f"before use, add vocab.json and merges.txt, or tokenizer.json, of OpenAI's CLIP to {folder}")
    return report


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The state dict of a TorchScript archive, or one that torch.save wrote.

    Raises:
      UserError: where PyTorch is absent or the file is neither.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("reading OpenAI's archives needs PyTorch; pip install 'craft_jax[torch]'") from error
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        state = torch.jit.load(path, map_location="cpu").state_dict()
    except RuntimeError:
        state = _read_state_dict(path)
    # NumPy knows no bfloat16.
    tensors = {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in state.items()}
    return {name: value.numpy(force=True) for name, value in tensors.items()}


def _read_state_dict(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and PyTorch each raise their own kinds
        raise UserError(f"{path} is neither a TorchScript archive nor a state dict ({first_line(error)})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} is neither a TorchScript archive nor a state dict: it holds more than tensors")
    return state


def _check_entries(weights: dict[str, np.ndarray], architecture: Any) -> None:
    sizes = {
        "input_resolution": architecture.image_size,
        "context_length": architecture.context_length,
        "vocab_size": architecture.vocab_size,
    }
    for name, size in sizes.items():
        if name in weights and int(weights[name]) != size:
            raise UserError(f"{name}={int(weights[name])} is at odds with the weights, which say {size}")


def _write(folder: Path, weights: dict[str, np.ndarray], settings: dict[str, Any], copied: list[Path]) -> None:
    from safetensors.numpy import save_file

    from craft_jax.blackbox.loaders import open_clip

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as partial:
            partial.mkdir()
            save_file(weights, partial / open_clip.WEIGHTS, metadata={"format": "pt"})
            (partial / open_clip.CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
            for file in copied:
                shutil.copy(file, partial / file.name)
    except OSError as error:
        raise UserError(f"{folder} could not be written ({error.strerror or error}); nothing was left there") from error


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv)
