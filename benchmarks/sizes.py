"""Random models of published sizes, for measuring: the cost of a query does not depend on what the weights say."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from benchmarks.caltech_names import NAMES
from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.blackbox.loaders import flax_clip
from craft_jax.blackbox.texts import TextDoor, Tokenization
from craft_jax.blackbox.towers import text as text_tower
from craft_jax.blackbox.towers import vit

VOCABULARY = 1000  # an embedding look-up costs nothing, whatever the table's length
SOS, EOS = VOCABULARY - 2, VOCABULARY - 1
N_CTX = 4
_CONTEXT, _FULL_STOP, _FIRST_NAME_TOKEN = [5, 6, 7, 5], 8, 10  # "a photo of a", "."

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
    from transformers import FlaxCLIPModel  # transformers 5 has none

    config = CLIPConfig(text_config=TEXT.to_dict(), vision_config=VISION[patch].to_dict(), projection_dim=512)
    return FlaxCLIPModel(config, _do_init=False)


def text_params(clip: Any) -> Any:
    """Parameters of the text side's shapes, small enough to stay finite through its layers."""
    return _random(clip, ("text_model", "text_projection", "logit_scale"))


def image_params(clip: Any) -> Any:
    """Parameters of the image side's shapes."""
    return _random(clip, ("vision_model", "visual_projection", "logit_scale"))


def _random(clip: Any, modules: tuple[str, ...]) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.02, leaf.shape) + (leaf.ndim == 1), jnp.float32),
        {name: clip.params_shape_tree[name] for name in modules},
    )


def captions(classes: int) -> list[list[int]]:
    """Token captions of "a photo of a {name}." with Caltech101's names, over again where there are more classes."""
    pieces = sorted({piece for name in NAMES for piece in name})
    names = [NAMES[(37 * c) % len(NAMES)] for c in range(classes)]
    ids = [[_FIRST_NAME_TOKEN + pieces.index(piece) for piece in name] for name in names]
    return [[SOS, *_CONTEXT, *name, _FULL_STOP, EOS] for name in ids]


def black_box(clip: Any, text: Any, classes: int, image: Any = None, dtype: str = "float32") -> ClipBlackBox:
    """The local black box with those parameters; without `image`, its image side is left out."""
    tower = text_tower.build(
        text,
        [caption[N_CTX + 1 :] for caption in captions(classes)],
        sos_token=SOS,
        n_ctx=N_CTX,
        heads=TEXT.num_attention_heads,
        epsilon=TEXT.layer_norm_eps,
        activation=quick_gelu,
        dtype=dtype,
    )
    return ClipBlackBox(
        _text=tower,
        _image_params=flax_clip.image_tower(image, clip.config.vision_config) if image else {},
        _logit_scale=jnp.asarray(math.log(100.0)),
        _initial_prompt=words(text),
        _pixel_mean=jnp.zeros(3),
        _pixel_std=jnp.ones(3),
        _image_features=vit.features,
        _image_size=224,
        _texts=TextDoor(
            numbered(captions(classes)),
            text["text_model"]["embeddings"]["token_embedding"]["embedding"],
            text["text_model"]["embeddings"]["position_embedding"]["embedding"],
        ),
        _class_names=tuple(map(str, range(classes))),
        _identity=(("model", "random"), ("fingerprint", "random"), ("dtype", dtype)),
    )


def numbered(ids: list[list[int]]) -> Tokenization:
    """Captions that are asked for by their numbers."""
    return Tokenization(lambda caption: ids[int(caption)], words=lambda caption: ids[int(caption)][:-1], first=1)


def words(text: Any) -> Array:
    """The unlearnt prompt, [n_ctx, d]."""
    return text["text_model"]["embeddings"]["token_embedding"]["embedding"][np.array(_CONTEXT)]


def quick_gelu(x: Array) -> Array:
    """OpenAI's activation."""
    return x * jax.nn.sigmoid(1.702 * x)


def useful_flops(classes: int) -> float:
    """Multiplications and additions in the matrices of one query's text side, counted without padding."""
    d, layers = TEXT.hidden_size, TEXT.num_hidden_layers
    suffix = sum(len(caption) - N_CTX - 1 for caption in captions(classes))
    tokens = N_CTX + suffix
    inner = (layers - 1) * tokens * 12 * d * d - suffix * 3 * d * d  # the first layer's Q, K and V are made once a run
    last = tokens * 2 * d * d + classes * 10 * d * d  # keys and values of all, the rest at EOS alone
    return 2.0 * (inner + last + classes * d * TEXT.projection_dim)


def published_flops(classes: int) -> float:
    """The same of 77 tokens for every class in every layer, attention left out."""
    d = TEXT.hidden_size
    tokens = classes * TEXT.max_position_embeddings
    return 2.0 * (tokens * TEXT.num_hidden_layers * 12 * d * d + classes * d * TEXT.projection_dim)
