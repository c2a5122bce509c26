"""Random models of published sizes, for measuring: the cost of a query does not depend on what the weights say."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig, FlaxCLIPModel
from transformers.modeling_flax_utils import ACT2FN

from craft_jax.blackbox import text_tower
from craft_jax.blackbox.clip import ClipBlackBox

VOCABULARY = 1000  # an embedding look-up costs nothing, whatever the table's length
SOS, EOS = VOCABULARY - 2, VOCABULARY - 1
N_CTX = 4

# How many of CoOp's 100 Caltech101 names have one, two and three tokens in CLIP's own byte-pair encoding.
CALTECH_NAME_TOKENS = {1: 61, 2: 31, 3: 8}

# ViT-B/32 and ViT-B/16 have the same text tower; their image towers differ in the patch.
TEXT = CLIPTextConfig(
    vocab_size=VOCABULARY, bos_token_id=SOS, eos_token_id=EOS, pad_token_id=EOS, hidden_size=512,
    intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, projection_dim=512,
)  # fmt: skip
VISION = {
    patch: CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=patch,
        projection_dim=512,
    )
    for patch in (32, 16)
}  # fmt: skip


def model(patch: int) -> Any:
    """FlaxCLIPModel's module at the size of ViT-B/`patch`, and its class."""
    config = CLIPConfig(text_config=TEXT.to_dict(), vision_config=VISION[patch].to_dict(), projection_dim=512)
    return FlaxCLIPModel(config, _do_init=False)


def random_params(clip: Any) -> Any:
    """Parameters of the model's shapes, small enough to stay finite through its layers."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.02, leaf.shape) + (leaf.ndim == 1), jnp.float32),
        clip.params_shape_tree,
    )


def captions(classes: int) -> list[list[int]]:
    """Token captions of "a photo of a {name}." with names as long as Caltech101's."""
    lengths = [length for length, count in CALTECH_NAME_TOKENS.items() for _ in range(count)]
    lengths = [lengths[(37 * c) % len(lengths)] for c in range(classes)]
    rng = np.random.default_rng(1)
    return [[SOS, 5, 6, 7, 5, *rng.integers(10, SOS, length).tolist(), 8, EOS] for length in lengths]


def black_box(clip: Any, params: Any, classes: int) -> ClipBlackBox:
    """The local black box with those parameters, image side left out."""
    tower = text_tower.build(
        params,
        [caption[N_CTX + 1 :] for caption in captions(classes)],
        sos_token=SOS,
        n_ctx=N_CTX,
        heads=TEXT.num_attention_heads,
        epsilon=TEXT.layer_norm_eps,
        activation=ACT2FN[TEXT.hidden_act],
    )
    return ClipBlackBox(
        _text=tower,
        _image_params={},
        _logit_scale=jnp.asarray(math.log(100.0)),
        _initial_prompt=words(params),
        _pixel_mean=jnp.zeros(3),
        _pixel_std=jnp.ones(3),
        _image_features=lambda params, pixels: pixels,
        _image_size=224,
        _class_names=tuple(map(str, range(classes))),
        _identity=(("model", "random"),),
    )


def words(params: Any) -> Array:
    """The unlearnt prompt, [n_ctx, d]."""
    return params["text_model"]["embeddings"]["token_embedding"]["embedding"][np.array([5, 6, 7, 5])]


def useful_flops(classes: int) -> float:
    """Multiplications and additions in the matrices of one query's text side, counted without padding."""
    d, layers = TEXT.hidden_size, TEXT.num_hidden_layers
    suffix = sum(len(caption) - N_CTX - 1 for caption in captions(classes))
    tokens = N_CTX + suffix
    inner = (layers - 1) * tokens * 12 * d * d
    last = tokens * 2 * d * d + classes * 10 * d * d  # keys and values of all, the rest at EOS alone
    return 2.0 * (inner + last + classes * d * TEXT.projection_dim)
