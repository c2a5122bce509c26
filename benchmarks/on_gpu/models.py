"""Random CLIPs of published sizes, with parameters as FlaxCLIPModel names them, and what a query of them costs."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sizes
from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.blackbox.texts import TextDoor
from craft_jax.blackbox.towers import text as text_tower

EPSILON = 1e-5


class Encoder(NamedTuple):
    """Of one tower."""

    width: int
    heads: int
    layers: int


class Size(NamedTuple):
    """Of a CLIP; `side` of its square images in pixels."""

    name: str
    text: Encoder
    image: Encoder
    patch: int
    side: int
    projection: int


B16 = Size("ViT-B/16", Encoder(512, 8, 12), Encoder(768, 12, 12), patch=16, side=224, projection=512)
L14 = Size("ViT-L/14", Encoder(768, 12, 12), Encoder(1024, 16, 24), patch=14, side=224, projection=768)
TINY = Size("tiny", Encoder(32, 2, 3), Encoder(32, 2, 3), patch=16, side=32, projection=24)


def text_params(size: Size) -> Any:
    """Parameters of the text side, of a size at which activations stay about one."""
    draw, width = _Drawn(0), size.text.width
    embeddings = {
        "token_embedding": {"embedding": draw.normal(1.0, sizes.VOCABULARY, width)},
        "position_embedding": {"embedding": draw.normal(0.3, sizes.TEXT.max_position_embeddings, width)},
    }
    model = {"embeddings": embeddings, "encoder": draw.encoder(size.text), "final_layer_norm": draw.norm(width)}
    projection = {"kernel": draw.normal(width**-0.5, width, size.projection)}
    return {"text_model": model, "text_projection": projection, "logit_scale": np.float32(math.log(100))}


def image_params(size: Size) -> Any:
    """Parameters of the image side."""
    draw, width = _Drawn(1), size.image.width
    patches = (size.side // size.patch) ** 2
    kernel = draw.normal((3 * size.patch**2) ** -0.5, size.patch, size.patch, 3, width)
    model = {
        "embeddings": {
            "class_embedding": draw.normal(1.0, width),
            "patch_embedding": {"kernel": kernel},
            "position_embedding": {"embedding": draw.normal(0.3, 1 + patches, width)},
        },
        "pre_layrnorm": draw.norm(width),
        "encoder": draw.encoder(size.image),
        "post_layernorm": draw.norm(width),
    }
    return {"vision_model": model, "visual_projection": {"kernel": draw.normal(width**-0.5, width, size.projection)}}


class _Drawn:
    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def normal(self, std: float, *shape: int) -> np.ndarray:
        return self._rng.standard_normal(shape, np.float32) * np.float32(std)

    def norm(self, width: int) -> Any:
        return {"scale": 1 + self.normal(0.1, width), "bias": self.normal(0.1, width)}

    def dense(self, inputs: int, outputs: int) -> Any:
        return {"kernel": self.normal(inputs**-0.5, inputs, outputs), "bias": self.normal(0.1, outputs)}

    def encoder(self, size: Encoder) -> Any:
        def layer() -> Any:
            width = size.width
            attention = {name: self.dense(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
            mlp = {"fc1": self.dense(width, 4 * width), "fc2": self.dense(4 * width, width)}
            norms = {"layer_norm1": self.norm(width), "layer_norm2": self.norm(width)}
            return {"self_attn": attention, "mlp": mlp, **norms}

        return {"layers": {str(i): layer() for i in range(size.layers)}}


def black_box(size: Size, params: Any, classes: int, dtype: str = "float32", precision: str = "auto") -> ClipBlackBox:
    """The local black box with those parameters of the text side; its image side is left out."""
    on_device = jax.tree.map(jnp.asarray, params)
    embeddings = on_device["text_model"]["embeddings"]
    captions = sizes.captions(classes)
    tower = text_tower.build(
        on_device,
        [caption[sizes.N_CTX + 1 :] for caption in captions],
        sos_token=sizes.SOS,
        n_ctx=sizes.N_CTX,
        heads=size.text.heads,
        epsilon=EPSILON,
        activation=sizes.quick_gelu,
        dtype=dtype,
    )
    return ClipBlackBox(
        _text=tower,
        _image_params={},
        _logit_scale=on_device["logit_scale"],
        _initial_prompt=sizes.words(on_device),
        _pixel_mean=jnp.zeros(3),
        _pixel_std=jnp.ones(3),
        _image_features=lambda params, pixels: pixels,
        _image_size=size.side,
        _texts=TextDoor(
            sizes.numbered(captions),
            embeddings["token_embedding"]["embedding"],
            embeddings["position_embedding"]["embedding"],
        ),
        _class_names=tuple(map(str, range(classes))),
        _identity=(("model", "random"), ("fingerprint", "random"), ("dtype", dtype)),
        _precision=precision,
    )


def embedded_captions(params: Any, classes: int, prompts: np.ndarray) -> list[np.ndarray]:
    """Each class's caption as embedded tokens, under one soft prompt, [n_ctx, d], or one a class, [C, n_ctx, d]."""
    tokens = params["text_model"]["embeddings"]["token_embedding"]["embedding"]
    own = np.broadcast_to(prompts, (classes, *prompts.shape[-2:]))
    return [
        np.concatenate([tokens[caption[:1]], own[c], tokens[caption[sizes.N_CTX + 1 :]]])
        for c, caption in enumerate(sizes.captions(classes))
    ]


def useful_flops(size: Size, classes: int) -> float:
    """Multiplications and additions in the matrices of one query's text side, counted without padding."""
    d, layers = size.text.width, size.text.layers
    suffix = sum(len(caption) - sizes.N_CTX - 1 for caption in sizes.captions(classes))
    tokens = sizes.N_CTX + suffix
    last = tokens * 2 * d * d + classes * 10 * d * d  # keys and values of all, the rest at EOS alone
    return 2.0 * ((layers - 1) * tokens * 12 * d * d + last + classes * d * size.projection)


def image_flops(size: Size) -> float:
    """Multiplications and additions in the matrices of an image's tower, the last layer's at the class token alone."""
    d, layers, tokens = size.image.width, size.image.layers, 1 + (size.side // size.patch) ** 2
    attention = 2 * tokens * tokens * d
    inner = (layers - 1) * (tokens * 12 * d * d + attention)
    last = tokens * 2 * d * d + 10 * d * d + 2 * tokens * d
    return 2.0 * (inner + last + tokens * 3 * size.patch**2 * d + d * size.projection)
