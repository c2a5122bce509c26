"""The image tower: parity with transformers' public class, where that is installed, in every size and activation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from craft_jax.blackbox.loaders import flax_clip, parameters
from craft_jax.blackbox.towers import vit
from tests.public import flax_clip_model

TINY = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "num_hidden_layers": 3}
PUBLISHED = {  # vision width, heads, layers, patch, image size; text width, heads, layers; features; activation
    "B/32": (768, 12, 12, 32, 224, 512, 8, 12, 512, "quick_gelu"),
    "B/16": (768, 12, 12, 16, 224, 512, 8, 12, 512, "quick_gelu"),
    "L/14": (1024, 16, 24, 14, 224, 768, 12, 12, 768, "quick_gelu"),
    "L/14@336": (1024, 16, 24, 14, 336, 768, 12, 12, 768, "quick_gelu"),
    "H/14": (1280, 16, 32, 14, 224, 1024, 16, 24, 1024, "gelu"),
}

with_public_class = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) >= 5, reason="transformers 5 has no Flax models to compare with"
)


def _config(**vision):
    return transformers.CLIPConfig(
        text_config=TINY | {"vocab_size": 30},
        vision_config=TINY | {"image_size": 16, "patch_size": 8} | vision,
        projection_dim=20,
    )


def _published(size, layers=None):
    width, heads, depth, patch, side, text_width, text_heads, text_depth, features, activation = PUBLISHED[size]
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_attention_heads": text_heads}
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    return transformers.CLIPConfig(
        text_config=text | {"num_hidden_layers": text_depth, "hidden_act": activation},
        vision_config=vision
        | {"num_hidden_layers": layers or depth, "patch_size": patch, "image_size": side, "hidden_act": activation},
        projection_dim=features,
    )


def _random_params(config):
    rng = np.random.default_rng(0)

    def draw(name, shape):
        values = rng.standard_normal(shape, np.float32) * (
            max(shape[:-1], default=1) ** -0.5 if len(shape) > 1 else 0.1
        )
        return values + (name.endswith("scale"))

    expected = parameters.shapes(config)
    return parameters.tree({name: draw(name, shape) for name, shape in expected.items()}, expected)


def _assert_features_equal_the_public_class(config, images=3, atol=1e-5):
    params = _random_params(config)
    side = config.vision_config.image_size
    pixels = np.random.default_rng(1).standard_normal((images, side, side, 3), np.float32)
    tower = flax_clip.image_tower(params, config.vision_config)
    public = flax_clip_model()(config, _do_init=False)
    with jax.default_matmul_precision("float32"):
        expected = flax_clip.image_features(public.module, params, jnp.asarray(pixels))
        found = jax.jit(vit.features)(tower, pixels)
    np.testing.assert_allclose(_normalised(found), _normalised(expected), atol=atol)


def _normalised(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@with_public_class
@pytest.mark.parametrize(
    "vision",
    [
        {"hidden_act": "quick_gelu"},
        {"image_size": 56, "patch_size": 2},  # of 785 tokens: encoded in parts, the last smaller
        {"hidden_act": "gelu"},
        {"hidden_act": "gelu_new"},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 2, "layer_norm_eps": 1e-3},
        {"image_size": 30, "patch_size": 4},
    ],
    ids=str,
)
def test_image_features_equal_the_public_class(vision):
    _assert_features_equal_the_public_class(_config(**vision))


@pytest.mark.slow
@with_public_class
@pytest.mark.parametrize("size", PUBLISHED)
def test_image_features_of_the_published_sizes_equal_the_public_class(size):
    _assert_features_equal_the_public_class(_published(size, layers=None if size == "B/32" else 3), images=1)


@with_public_class
@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_sizes_have_the_parameters_of_the_public_class(size):
    config = _published(size)
    public = flax_clip_model()(config, _do_init=False).params_shape_tree

    expected = {".".join(path): tuple(leaf.shape) for path, leaf in _leaves(public)}
    assert parameters.shapes(config) == expected


def _leaves(tree, above=()):
    for name, value in tree.items():
        yield from _leaves(value, (*above, name)) if hasattr(value, "items") else [((*above, name), value)]


def test_bfloat16_features_stay_near_the_float32_ones():
    config = _config()
    params = _random_params(config)
    pixels = np.random.default_rng(1).standard_normal((3, 16, 16, 3), np.float32)
    full, half = (
        jax.jit(vit.features)(flax_clip.image_tower(params, config.vision_config, dtype), pixels)
        for dtype in ("float32", "bfloat16")
    )

    assert full.dtype == half.dtype == np.float32
    np.testing.assert_allclose(_normalised(half), _normalised(full), atol=0.05)
    assert not np.array_equal(half, full)
