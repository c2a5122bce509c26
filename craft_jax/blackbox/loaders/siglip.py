"""Reads SigLIPs in the transformers layout, and the SigLIP 2 of a fixed image size, without their model classes.

Features come from `towers.siglip_vision` and `towers.siglip_text`, which are tested against PyTorch's SiglipModel.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from craft_jax.blackbox.clip import ClipParts
from craft_jax.blackbox.loaders import hub_files, parameters, preprocessing, siglip_tokenizer
from craft_jax.blackbox.loaders.flax_clip import check_config, of_layers
from craft_jax.blackbox.loaders.siglip_tokenizer import SiglipTokenizer
from craft_jax.blackbox.texts import Tokenization, check_length
from craft_jax.blackbox.towers import siglip_text, siglip_vision
from craft_jax.blackbox.towers.blocks import Params
from craft_jax.errors import UserError


class SiglipTextSettings(NamedTuple):
    """SigLIP's text encoder: what its parameters do not say.

    Attributes:
      heads: attention heads.
      epsilon: of the layer norms.
      activation: of the MLPs.
      context_length: tokens of every caption, which is filled up to them.
    """

    heads: int
    epsilon: float
    activation: Callable[[Array], Array]
    context_length: int

    def tokenization(self, tokenizer: SiglipTokenizer) -> Tokenization:
        """A caption's words, the end token, and as much padding as makes it whole: the model attends to all of it."""

        def caption(text: str) -> list[int]:
            ids = [*tokenizer.words(text), tokenizer.end]
            check_length(text, len(ids), self.context_length)
            return ids + [tokenizer.padding] * (self.context_length - len(ids))

        return Tokenization(caption, tokenizer.words, first=0)

    def tower(self, params: Params, captions: list[list[int]], n_ctx: int, dtype: str) -> siglip_text.SiglipTextTower:
        """Of SiglipModel's parameters."""
        tower = siglip_text.build(
            params, heads=self.heads, epsilon=self.epsilon, activation=self.activation, dtype=dtype
        )
        embeddings = params["text_model"]["embeddings"]
        tokens, positions = (embeddings[name]["embedding"] for name in ("token_embedding", "position_embedding"))
        return tower.arranged(tokens, positions, captions, n_ctx)


def read(folder: Path, model: str, dtype: str) -> ClipParts:
    """The SigLIP in a folder.

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
        config = transformers.SiglipConfig.from_pretrained(str(folder))
        _check_config(config, folder)
        tokenizer = siglip_tokenizer.read(folder, config.text_config.vocab_size)
        settings = hub_files.image_processor(folder)
    weights = parameters.read(folder, parameters.siglip_shapes(config), model)
    preparation = preprocessing.read(settings, config.vision_config.image_size, model, family="Siglip")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    # Of one number each, which SigLIP keeps in arrays of one.
    scale, bias = (params[name].reshape(()) for name in ("logit_scale", "logit_bias"))
    return ClipParts(
        image_features=siglip_vision.features,
        image_params=image_tower(params, config.vision_config, dtype),
        text_params={"text_model": params["text_model"], "logit_scale": scale, "logit_bias": bias},
        text=text_settings(config.text_config),
        pixel_mean=preparation.mean,
        pixel_std=preparation.std,
        image_size=config.vision_config.image_size,
        tokenizer=tokenizer,
        weights=weights,
        resizing=preparation.resizing,
    )


def text_settings(config: Any) -> SiglipTextSettings:
    """What transformers' text configuration says."""
    return SiglipTextSettings(**of_layers(config), context_length=config.max_position_embeddings)


def image_tower(params: Params, config: Any, dtype: str = "float32") -> siglip_vision.SiglipVisionTower:
    """The image tower of SiglipModel's parameters, as transformers' vision configuration describes it."""
    return siglip_vision.build(params, patch=config.patch_size, dtype=dtype, **of_layers(config))


def _check_config(config: Any, folder: Path) -> None:
    check_config(config, folder)
    text, image = config.text_config.projection_size, config.vision_config.hidden_size
    if text != image:
        raise UserError(
            f"{folder / 'config.json'}: text_config.projection_size={text} must be vision_config.hidden_size={image}, "
            "for texts and images are compared"
        )
