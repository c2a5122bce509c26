"""Reads CLIPs in the transformers layout, the bundled one too, without its model classes.

Features come from `towers.vit` and `towers.text`, which are tested against FlaxCLIPModel.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from craft_jax.blackbox.clip import ClipParts, TextSettings
from craft_jax.blackbox.loaders import hub_files, parameters, preprocessing
from craft_jax.blackbox.towers import vit
from craft_jax.errors import UserError

BUNDLED_MODEL = Path(__file__).parents[2] / "assets" / "tiny_clip"
_LEGACY_EOS = 2  # transformers' mark of configurations whose eos_token_id is wrong: they pool at the highest token id


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": _quick_gelu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""What config.json calls an activation."""


def read(folder: Path, model: str, dtype: str) -> ClipParts:
    """The CLIP in a folder.

    Args:
      folder: with its files.
      model: its name, for messages.
      dtype: that the image tower computes in.

    Raises:
      UserError: where it cannot be loaded or lacks weights.
    """
    # transformers takes over a second to import: only whoever loads a model waits for it.
    import transformers

    with hub_files.readable(model):
        config = transformers.CLIPConfig.from_pretrained(str(folder))
        check_config(config, folder)
        hub_files.check_tokenizer(folder)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(folder))
        settings = hub_files.image_processor(folder)
    weights = parameters.read(folder, parameters.shapes(config), model)
    preparation = preprocessing.read(settings, config.vision_config.image_size, model)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    return ClipParts(
        image_features=vit.features,
        image_params=image_tower(params, config.vision_config, dtype),
        text_params={name: params[name] for name in ("text_model", "text_projection", "logit_scale")},
        text=text_settings(config.text_config),
        pixel_mean=preparation.mean,
        pixel_std=preparation.std,
        image_size=config.vision_config.image_size,
        tokenizer=tokenizer,
        weights=weights,
        resizing=preparation.resizing,
    )


def text_settings(config: Any) -> TextSettings:
    """What transformers' text configuration says."""
    return TextSettings(
        **of_layers(config),
        context_length=config.max_position_embeddings,
        eos_token=None if config.eos_token_id == _LEGACY_EOS else config.eos_token_id,
    )


def image_tower(params: Any, config: Any, dtype: str = "float32") -> vit.VisionTower:
    """The image tower of FlaxCLIPModel's parameters, as transformers' vision configuration describes it."""
    return vit.build(params, patch=config.patch_size, dtype=dtype, **of_layers(config))


def of_layers(config: Any) -> dict[str, Any]:
    """What transformers' configuration of a tower says of its layers."""
    return {
        "heads": config.num_attention_heads,
        "epsilon": config.layer_norm_eps,
        "activation": ACTIVATIONS[config.hidden_act],
    }


def check_config(config: Any, folder: Path) -> None:
    """Raises UserError where a configuration of transformers asks for what the towers do not compute."""
    file = folder / "config.json"
    for name, tower in (("text_config", config.text_config), ("vision_config", config.vision_config)):
        if tower.hidden_act not in ACTIVATIONS:
            raise UserError(f"{file}: {name}.hidden_act={tower.hidden_act!r} must be one of {', '.join(ACTIVATIONS)}")
        if tower.hidden_size % tower.num_attention_heads:
            raise UserError(
                f"{file}: {name}.hidden_size={tower.hidden_size} must be a multiple of "
                f"num_attention_heads={tower.num_attention_heads}"
            )
    if config.vision_config.num_channels != 3:
        raise UserError(f"{file}: vision_config.num_channels={config.vision_config.num_channels} must be 3")


def image_features(module: Any, params: Any, pixels: Array) -> Array:
    """Features of normalised pixels [N, size, size, 3] by FlaxCLIPModel's module, not normalised: the reference."""

    def project(clip: Any, pixels: Array) -> Array:
        return clip.visual_projection(clip.vision_model(pixel_values=pixels, deterministic=True)[1])

    return module.apply({"params": params}, pixels, method=project)
