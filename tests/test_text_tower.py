"""The text tower, its layers in turn and in a scan, against an encoder that leaves nothing out, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import reference
from craft_jax.blackbox.towers import text

WIDTH, HEADS, SOS = 24, 3, 98


def _params(layers):
    """Random parameters of a small text encoder, as FlaxCLIPModel names them."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def dense(inputs, outputs):
        return {"kernel": array(inputs, outputs), "bias": array(outputs)}

    def norm():
        return {"scale": 1 + array(WIDTH), "bias": array(WIDTH)}

    def layer():
        projections = {name: dense(WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        mlp = {"fc1": dense(WIDTH, 4 * WIDTH), "fc2": dense(4 * WIDTH, WIDTH)}
        return {"self_attn": projections, "mlp": mlp, "layer_norm1": norm(), "layer_norm2": norm()}

    embeddings = {
        "token_embedding": {"embedding": array(100, WIDTH)},
        "position_embedding": {"embedding": array(77, WIDTH)},
    }
    encoder = {"layers": {str(i): layer() for i in range(layers)}}
    text_model = {"embeddings": embeddings, "encoder": encoder, "final_layer_norm": norm()}
    return {"text_model": text_model, "text_projection": {"kernel": array(WIDTH, 20)}}


def _tower(lengths, layers, n_ctx, dtype, scanned):
    """A tower for classes of these suffix lengths, in this order; and its parameters and suffixes."""
    params = _params(layers)
    suffixes = [np.random.default_rng(c).integers(0, 100, length) for c, length in enumerate(lengths)]
    activation = lambda x: jax.nn.sigmoid(1.702 * x) * x  # noqa: E731
    tower = text.build(
        jax.tree.map(jnp.asarray, params), suffixes, SOS, n_ctx,
        heads=HEADS, epsilon=1e-5, activation=activation, dtype=dtype, scanned=scanned,
    )  # fmt: skip
    return tower, params, suffixes


def _assert_equals_reference(lengths, layers=2, n_ctx=4, dtype="float32", scanned=True, atol=2e-6):
    tower, params, suffixes = _tower(lengths, layers, n_ctx, dtype, scanned)
    tokens = params["text_model"]["embeddings"]["token_embedding"]["embedding"]
    rng = np.random.default_rng(2)
    own = rng.normal(size=(2, len(lengths), n_ctx, WIDTH)).astype(np.float32)

    def expected(prompts):
        captions = [np.concatenate([tokens[[SOS]], prompts[c], tokens[ids]]) for c, ids in enumerate(suffixes)]
        return reference.text_features(params, captions, heads=HEADS)

    both = jax.jit(lambda tower, own: (tower.features(own[:, 0]), tower.class_features(own)))
    shared_features, own_features = both(tower, own)
    for k in range(2):
        np.testing.assert_allclose(own_features[k], expected(own[k]), atol=atol)
        np.testing.assert_allclose(shared_features[k], expected([own[k, 0]] * len(lengths)), atol=atol)


def test_layers_in_a_scan_give_the_features_of_whole_captions():
    _assert_equals_reference((3, 5, 4, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "of_tower",
    [{"layers": 1}, {"layers": 5}, {"n_ctx": 1}, {"n_ctx": 16}, {"scanned": False}, {"dtype": "bfloat16", "atol": 0.1}],
    ids=str,
)
def test_any_depth_prompt_and_form_gives_the_features_of_whole_captions(of_tower):
    _assert_equals_reference((3, 4, 3), **of_tower)


@pytest.mark.slow
def test_a_long_caption_gives_the_features_of_whole_captions_in_a_scan():
    _assert_equals_reference((3, 40, 4))


def test_a_scans_program_does_not_grow_with_the_layers():
    def products(layers):
        tower, _, _ = _tower((3, 4), layers, 4, "float32", scanned=True)
        prompts = jnp.zeros((1, 4, WIDTH))
        return jax.jit(lambda tower: tower.features(prompts)).lower(tower).as_text().count("dot_general")

    assert products(9) == products(3) > 0
