"""Reads ResNet CLIPs in open_clip's layout: a local folder or file, a hub name, or OpenAI's short name of a model.

The layout is open_clip_config.json, open_clip_model.safetensors with OpenAI's names, and CLIP's tokenizer files.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from craft_jax.blackbox.clip import ClipParts, TextSettings
from craft_jax.blackbox.loaders import hub_files, openai_weights
from craft_jax.blackbox.towers import resnet_architecture
from craft_jax.blackbox.towers.resnet import ModifiedResNet
from craft_jax.blackbox.towers.resnet_architecture import Architecture
from craft_jax.errors import UserError, first_line

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

HUB_NAMES = {
    "RN50": "timm/resnet50_clip.openai",
    "RN101": "timm/resnet101_clip.openai",
    "RN50x4": "timm/resnet50x4_clip.openai",
    "RN50x16": "timm/resnet50x16_clip.openai",
    "RN50x64": "timm/resnet50x64_clip.openai",
}

_SUPPORTED_PREPROCESSING = {
    "interpolation": ("bicubic",),
    "resize_mode": ("shortest",),
    "mode": ("RGB",),
    "size": None,  # said by the architecture
    "fill_color": None,  # the centre crop of a short side's resize fills nothing
}
_LAYER_NORM_EPSILON = 1e-5


class Files(NamedTuple):
    """Where one model's files are."""

    config: Path
    weights: Path
    tokenizer: Path


def find(model: str) -> Files | None:
    """The files of `model`, downloaded where it is a hub name; None where it is no ResNet CLIP in open_clip's layout.

    Raises:
      UserError: where it is one, and its files are not all here or cannot be had.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return _beside(path)
    if path.is_dir():
        complete = Files(path / CONFIG, path / WEIGHTS, path)
        return _present(complete) if _names_resnet(complete.config, or_has=complete.weights) else None
    hub_name = HUB_NAMES.get(model, model)
    if model in HUB_NAMES or model in HUB_NAMES.values() or _hub_says_resnet(hub_name):
        folder = _download(model, hub_name)
        return _present(Files(folder / CONFIG, folder / WEIGHTS, folder))
    return None


def read(files: Files, dtype: str) -> ClipParts:
    """The CLIP that the files hold, its image tower computing in `dtype`.

    Raises:
      UserError: where they cannot be read, do not fit together, or ask for what this package does not do.
    """
    from safetensors.numpy import load_file

    settings = _read_json(files.config)
    try:
        architecture = resnet_architecture.from_model_cfg(settings.get("model_cfg") or {})
        mean, std = _pixel_statistics(settings.get("preprocess_cfg") or {})
    except UserError as error:
        raise UserError(f"{files.config}: {error}") from error
    try:
        weights = load_file(files.weights)
    except Exception as error:  # safetensors raises its own kind, and TypeError for a dtype that NumPy lacks
        raise UserError(f"{files.weights} could not be read as safetensors ({error})") from error
    tokenizer = _tokenizer(files.tokenizer, architecture)
    try:
        return parts(weights, architecture, tokenizer, dtype, pixel_mean=mean, pixel_std=std)
    except UserError as error:
        raise UserError(f"{files.weights}: {error}") from error


def parts(
    weights: openai_weights.Weights,
    architecture: Architecture,
    tokenizer: Any,
    dtype: str = "float32",
    *,
    pixel_mean: tuple[float, ...] = PIXEL_MEAN,
    pixel_std: tuple[float, ...] = PIXEL_STD,
) -> ClipParts:
    """The CLIP that weights under OpenAI's names make.

    Raises:
      UserError: listing the weights that are missing, left over, or of the wrong shape.
    """
    weights = openai_weights.check(weights, architecture)
    return ClipParts(
        image_features=functools.partial(image_features, image_tower(architecture, dtype)),
        image_params=jax.tree.map(jnp.asarray, openai_weights.image_params(weights, architecture)),
        text_params=jax.tree.map(jnp.asarray, openai_weights.text_params(weights, architecture)),
        text=TextSettings(
            heads=architecture.text_heads,
            epsilon=_LAYER_NORM_EPSILON,
            activation=_quick_gelu if architecture.quick_gelu else _exact_gelu,
            context_length=architecture.context_length,
            eos_token=None,
        ),
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
        image_size=architecture.image_size,
        tokenizer=tokenizer,
        weights=weights,
    )


def image_tower(architecture: Architecture, dtype: str = "float32") -> ModifiedResNet:
    """The image tower of an architecture, without its parameters."""
    return ModifiedResNet(
        layers=architecture.layers,
        width=architecture.width,
        heads=architecture.image_heads,
        features=architecture.embed_dim,
        dtype=dtype,
    )


def image_features(tower: ModifiedResNet, params: Any, pixels: Array) -> Array:
    """Features of normalised pixels [N, size, size, 3], not normalised."""
    return jnp.asarray(tower.apply({"params": params}, pixels))


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


def _exact_gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _beside(path: Path) -> Files:
    """The files of a model that was named by its weights."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"black_box.model={str(path)!r} is a file, but not of safetensors; for OpenAI's archive run "
            f"python -m craft_jax.blackbox.convert_openai {path} FOLDER, and give that folder"
        )
    return _present(Files(path.parent / CONFIG, path, path.parent))


def _present(files: Files) -> Files:
    absent = [path.name for path in (files.config, files.weights) if not path.is_file()]
    if absent:
        raise UserError(f"{files.config.parent} lacks {' and '.join(absent)} of a ResNet CLIP in open_clip's layout")
    hub_files.check_tokenizer(files.tokenizer)
    return files


def _names_resnet(config: Path, or_has: Path | None = None) -> bool:
    """Whether a configuration is of a ResNet, whose layers are a list where a ViT's are a number."""
    if not config.is_file():
        return or_has is not None and or_has.is_file() and not (config.parent / "config.json").is_file()
    vision = _read_json(config).get("model_cfg", {}).get("vision_cfg", {})
    return isinstance(vision, dict) and isinstance(vision.get("layers"), list)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} could not be read as JSON ({error})") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_cfg") or {}, dict):
        raise UserError(f"{path} must hold an object with model_cfg and preprocess_cfg")
    return settings


def _pixel_statistics(preprocess: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for name, value in preprocess.items():
        supported = _SUPPORTED_PREPROCESSING.get(name, ())
        if name not in ("mean", "std") and supported is not None and value not in supported:
            raise UserError(f"preprocess_cfg sets {name}={value!r}, which is not supported for a ResNet CLIP")
    mean, std = tuple(preprocess.get("mean", PIXEL_MEAN)), tuple(preprocess.get("std", PIXEL_STD))
    if len(mean) != 3 or len(std) != 3:
        raise UserError("preprocess_cfg: mean and std must be three numbers each, for red, green and blue")
    return mean, std


def _tokenizer(folder: Path, architecture: Architecture) -> Any:
    # transformers takes over a second to import: only whoever loads a model waits for it.
    import transformers

    try:
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(folder))
    except Exception as error:  # JSON and the tokenizers library raise their own kinds
        raise UserError(f"{folder}: CLIP's tokenizer could not be read ({first_line(error)})") from error
    if len(tokenizer) > architecture.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {architecture.vocab_size}; "
            "use the files that belong to this model"
        )
    return tokenizer


def _hub_says_resnet(name: str) -> bool:
    """Whether a hub name's repository is a ResNet's; one that cannot be reached is left to the other loader."""
    import huggingface_hub

    try:
        known_otherwise = huggingface_hub.try_to_load_from_cache(name, "config.json")
        if known_otherwise and not huggingface_hub.try_to_load_from_cache(name, CONFIG):
            return False
        return _names_resnet(Path(huggingface_hub.hf_hub_download(name, CONFIG)))
    except Exception:  # a wrong name, a missing file, no network: the client raises many kinds
        return False


def _download(model: str, hub_name: str) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(hub_name, allow_patterns=[CONFIG, WEIGHTS, *hub_files.TOKENIZER_FILES])
        )
    except Exception as error:  # the hub client and the network raise many kinds
        source = f"the hub's {hub_name}" if model != hub_name else "the hub"
        raise UserError(
            f"black_box.model={model!r} could not be had from {source} ({first_line(error)}); give a folder with "
            f"{CONFIG}, {WEIGHTS} and the tokenizer's files"
        ) from error
