"""Reads CLIPs in the transformers layout: a folder or hub name that FlaxCLIPModel takes, and the bundled one.

Image features come from the public class; text features from `text_tower`, which is tested against it.
"""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from craft_jax.blackbox.clip import ClipParts, TextSettings
from craft_jax.blackbox.loaders import hub_files, preprocessing
from craft_jax.config import BUNDLED
from craft_jax.errors import UserError

BUNDLED_MODEL = Path(__file__).parents[2] / "assets" / "tiny_clip"
_LEGACY_EOS = 2  # transformers' mark of configurations whose eos_token_id is wrong: they pool at the highest token id


def read(model: str, dtype: str) -> ClipParts:
    """The CLIP that `model` names: `bundled`, a folder in the transformers layout, or a hub name.

    Args:
      model: its name.
      dtype: that the image tower computes in.

    Raises:
      UserError: where it cannot be loaded or lacks weights.
    """
    clip, tokenizer, preparation = _load_pretrained(model, dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), clip.params)
    return ClipParts(
        image_features=functools.partial(image_features, clip.module),
        # The public module asks for its logit scale even where only its image side is applied.
        image_params={name: params[name] for name in ("vision_model", "visual_projection", "logit_scale")},
        text_params={name: params[name] for name in ("text_model", "text_projection", "logit_scale")},
        text=text_settings(clip.config.text_config),
        pixel_mean=preparation.mean,
        pixel_std=preparation.std,
        image_size=clip.config.vision_config.image_size,
        tokenizer=tokenizer,
        weights=clip.params,
        resizing=preparation.resizing,
    )


def text_settings(config: Any) -> TextSettings:
    """What transformers' text configuration says."""
    from transformers.modeling_flax_utils import ACT2FN

    return TextSettings(
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
        activation=ACT2FN[config.hidden_act],
        context_length=config.max_position_embeddings,
        eos_token=None if config.eos_token_id == _LEGACY_EOS else config.eos_token_id,
    )


def _load_pretrained(model: str, dtype: str) -> tuple[Any, Any, preprocessing.Preparation]:
    # transformers takes over a second to import: only whoever loads a model waits for it.
    import transformers

    folder = str(BUNDLED_MODEL) if model == BUNDLED else os.path.expanduser(model)
    hub_files.check(folder)
    try:
        clip = _without_random_weights(transformers.FlaxCLIPModel).from_pretrained(folder, dtype=jnp.dtype(dtype))
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
        settings, _ = transformers.CLIPImageProcessor.get_image_processor_dict(folder)
    except Exception as error:  # the hub client, safetensors, msgpack and JSON each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"black_box.model={model!r} could not be loaded as a FlaxCLIP model ({reason}); give `bundled`, a folder "
            "with config.json, weights, tokenizer and preprocessor_config.json, a ResNet CLIP's folder in open_clip's "
            "layout, RN50 and kin, or a hub name that this machine reaches"
        ) from error
    absent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(clip.params)
        if np.isnan(leaf).all()
    ]
    if absent:
        raise UserError(f"black_box.model={model!r} lacks {len(absent)} weights, among them {absent[0]}; complete it")
    return clip, tokenizer, preprocessing.read(settings, clip.config.vision_config.image_size, model)


def _without_random_weights(model_class: Any) -> Any:
    """The public class without its random initialisation, which takes longer than all else and is overwritten.

    Weights that the files lack stay NaN, where the public class would leave random ones behind a warning.
    """

    class Loaded(model_class):
        def init_weights(self, rng: Array, input_shape: tuple, params: Any = None) -> Any:
            shapes = jax.eval_shape(lambda: super(Loaded, self).init_weights(jax.random.key(0), input_shape))
            return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)

    Loaded.__name__ = model_class.__name__
    return Loaded


def image_features(module: Any, params: Any, pixels: Array) -> Array:
    """Features of normalised pixels [N, size, size, 3] by the public module, not normalised."""

    def project(clip: Any, pixels: Array) -> Array:
        return clip.visual_projection(clip.vision_model(pixel_values=pixels, deterministic=True)[1])

    return module.apply({"params": params}, pixels, method=project)
