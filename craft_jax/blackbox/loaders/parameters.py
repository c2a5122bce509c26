"""From weights by their names, PyTorch's or Flax's, to the tree of parameters that FlaxCLIPModel has, or SigLIP would.

PyTorch's axes turn into Flax's here: kernels [out, in, h, w] -> [h, w, in, out], matrices transposed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from craft_jax.blackbox.loaders import weight_files
from craft_jax.errors import UserError

Shapes = dict[str, tuple[int, ...]]

_TOWERS = ("text_model.", "vision_model.", "text_projection.", "visual_projection.")


def read(folder: Path, expected: Shapes, model: str) -> dict[str, Any]:
    """The parameters that a folder holds, as `tree` nests them.

    Args:
      folder: with its weights.
      expected: shapes by name, as `shapes` and `siglip_shapes` give them.
      model: its name, for messages.

    Raises:
      UserError: where they cannot be read, or do not belong to its config.json.
    """
    weights = weight_files.read(weight_files.find(folder))
    try:
        return tree(weights, expected)
    except UserError as error:
        raise UserError(f"black_box.model={model!r} {error}") from error


def tree(weights: Mapping[str, np.ndarray], expected: Shapes) -> dict[str, Any]:
    """Parameters nested by the levels of their names, in the weights' own dtype.

    Args:
      weights: by names as either PyTorch's or Flax's classes of transformers give them, levels joined by dots.
      expected: shapes by Flax's names, as config.json gives them.

    Raises:
      UserError: naming a weight that is absent, that config.json has no place for, or of another shape than it says.
    """
    found = dict(_in_flax(name, np.asarray(value)) for name, value in weights.items() if not _is_buffer(name))
    absent = sorted(expected.keys() - found.keys())
    if absent:
        raise UserError(f"lacks {len(absent)} weights, among them {absent[0]}; complete it")
    more = sorted(name for name in found.keys() - expected.keys() if name.startswith(_TOWERS))
    if more:
        raise UserError(
            f"has {len(more)} weights that its config.json has no place for, among them {more[0]}; "
            "bring the config.json that belongs to it"
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise UserError(
                f"has {name} of shape {list(found[name].shape)}, and by its config.json it is {list(shape)}; "
                "bring the config.json that belongs to it"
            )
    nested: dict[str, Any] = {}
    for name in expected:
        *above, last = name.split(".")
        at = nested
        for level in above:
            at = at.setdefault(level, {})
        at[last] = found[name]
    return nested


def shapes(config: Any) -> Shapes:
    """Shape of each of FlaxCLIPModel's parameters, by its name."""
    text, vision = config.text_config, config.vision_config
    grid = vision.image_size // vision.patch_size
    return {
        "logit_scale": (),
        "text_projection.kernel": (text.hidden_size, config.projection_dim),
        "visual_projection.kernel": (vision.hidden_size, config.projection_dim),
        "text_model.embeddings.token_embedding.embedding": (text.vocab_size, text.hidden_size),
        "text_model.embeddings.position_embedding.embedding": (text.max_position_embeddings, text.hidden_size),
        **_norm("text_model.final_layer_norm", text.hidden_size),
        **_layers("text_model", text),
        "vision_model.embeddings.class_embedding": (vision.hidden_size,),
        "vision_model.embeddings.position_embedding.embedding": (grid * grid + 1, vision.hidden_size),
        "vision_model.embeddings.patch_embedding.kernel": (vision.patch_size, vision.patch_size, 3, vision.hidden_size),
        **_norm("vision_model.pre_layrnorm", vision.hidden_size),  # spelt so in the public classes
        **_norm("vision_model.post_layernorm", vision.hidden_size),
        **_layers("vision_model", vision),
    }


def siglip_shapes(config: Any) -> Shapes:
    """Shape of each of SiglipModel's parameters, by the name that it would have in Flax; PyTorch's of its pooling."""
    text, vision = config.text_config, config.vision_config
    grid, head = vision.image_size // vision.patch_size, "vision_model.head"
    return {
        "logit_scale": (1,),
        "logit_bias": (1,),
        "text_model.embeddings.token_embedding.embedding": (text.vocab_size, text.hidden_size),
        "text_model.embeddings.position_embedding.embedding": (text.max_position_embeddings, text.hidden_size),
        **_norm("text_model.final_layer_norm", text.hidden_size),
        **_dense("text_model.head", text.hidden_size, text.projection_size),
        **_layers("text_model", text),
        "vision_model.embeddings.position_embedding.embedding": (grid * grid, vision.hidden_size),
        "vision_model.embeddings.patch_embedding.kernel": (vision.patch_size, vision.patch_size, 3, vision.hidden_size),
        "vision_model.embeddings.patch_embedding.bias": (vision.hidden_size,),
        **_norm("vision_model.post_layernorm", vision.hidden_size),
        **_layers("vision_model", vision),
        f"{head}.probe": (1, 1, vision.hidden_size),
        f"{head}.attention.in_proj_weight": (3 * vision.hidden_size, vision.hidden_size),
        f"{head}.attention.in_proj_bias": (3 * vision.hidden_size,),
        **_dense(f"{head}.attention.out_proj", vision.hidden_size, vision.hidden_size),
        **_norm(f"{head}.layernorm", vision.hidden_size),
        **_mlp(f"{head}.mlp", vision),
    }


def _layers(tower: str, config: Any) -> Shapes:
    width = config.hidden_size
    found: Shapes = {}
    for layer in (f"{tower}.encoder.layers.{i}" for i in range(config.num_hidden_layers)):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _dense(f"{layer}.self_attn.{name}", width, width)
        found |= _mlp(f"{layer}.mlp", config)
        found |= _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
    return found


def _mlp(name: str, config: Any) -> Shapes:
    width, hidden = config.hidden_size, config.intermediate_size
    return _dense(f"{name}.fc1", width, hidden) | _dense(f"{name}.fc2", hidden, width)


def _dense(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.kernel": (inputs, outputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.scale": (width,), f"{name}.bias": (width,)}


def _is_buffer(name: str) -> bool:
    """Position numbers, which older files keep among the weights."""
    return name.endswith(".position_ids")


def _in_flax(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """A weight under Flax's name, its axes in Flax's order; one that has them already stays."""
    above, _, last = name.rpartition(".")
    if last != "weight":
        return name, value
    if above.endswith(("token_embedding", "position_embedding")):
        return f"{above}.embedding", value
    if above.endswith(("layer_norm", "layernorm", "layrnorm", "layer_norm1", "layer_norm2")):
        return f"{above}.scale", value
    return f"{above}.kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
