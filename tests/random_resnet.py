"""Random ResNet CLIPs for the tests: their weights, their folders, and the golden file.

python -m tests.random_resnet    # writes tests/golden/resnet.npz anew; needs PyTorch
"""

import json
import shutil
from pathlib import Path

import numpy as np

from craft_jax.blackbox.loaders import hub_files, open_clip
from craft_jax.blackbox.loaders.flax_clip import BUNDLED_MODEL
from craft_jax.blackbox.towers import resnet_architecture
from craft_jax.blackbox.towers.resnet_architecture import Architecture

GOLDEN = Path(__file__).parent / "golden" / "resnet.npz"

SMALL = Architecture(
    layers=(1, 1, 1, 1), width=8, image_size=64, embed_dim=24, vocab_size=4096, text_width=128, text_heads=2,
    text_layers=2,
)  # fmt: skip
UNEVEN = Architecture(
    layers=(1, 2, 3, 2), width=12, image_size=96, head_width=32, embed_dim=40, vocab_size=4096, text_width=48,
    text_heads=3, text_layers=3, quick_gelu=False,
)  # fmt: skip
TINY = Architecture(
    layers=(1, 2, 1, 1), width=4, image_size=32, head_width=32, embed_dim=12, vocab_size=4096, text_width=16,
    text_heads=1, text_layers=1,
)  # fmt: skip


def weights(architecture, seed=0, of=resnet_architecture.layout):
    """Weights under which activations keep their size, so that an error anywhere shows at the end."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        if name == "logit_scale":
            return np.log(1 / 0.07)
        if name.endswith("running_var"):
            return rng.uniform(0.5, 1.5, shape)
        if name.endswith("bias") or name.endswith("running_mean"):
            return 0.1 * rng.standard_normal(shape)
        if len(shape) == 1:
            # A quarter on the last norm of a bottleneck, or the sum over the blocks outgrows float32's digits.
            return rng.uniform(0.5, 1.5, shape) * (0.25 if ".bn3." in name else 1.0)
        if "embedding" in name:
            return 0.3 * rng.standard_normal(shape)
        fan_in = shape[0] if name == "text_projection" else np.prod(shape[1:])
        return rng.standard_normal(shape) * np.sqrt((2 if len(shape) == 4 else 1) / fan_in)

    return {name: np.asarray(draw(name, shape), np.float32) for name, shape in of(architecture).items()}


def images(architecture, count, seed=0):
    """Random uint8 squares with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    size = architecture.image_size
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.integers(-40, 41, (count, size, size, 3)), 0, 255).astype(np.uint8)


def write_folder(folder, architecture, state, tokenizer=True):
    """A folder in open_clip's layout, with the bundled tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir()
    settings = {
        "model_cfg": resnet_architecture.to_model_cfg(architecture),
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"},
    }
    (folder / open_clip.CONFIG).write_text(json.dumps(settings))
    save_file(state, folder / open_clip.WEIGHTS)
    for name in hub_files.TOKENIZER_FILES if tokenizer else ():
        shutil.copy(BUNDLED_MODEL / name, folder)
    return folder


def golden_weights():
    """The golden tower's, in half precision to keep the file small."""
    state = weights(TINY, seed=5, of=resnet_architecture.image_layout)
    return {name: value.astype(np.float16) for name, value in state.items()}


def _write_golden():
    import torch

    from tests import torch_resnet_clip as yardstick

    state, squares = golden_weights(), images(TINY, 3, seed=5)
    model = yardstick.with_weights(TINY, weights(TINY) | state)
    with torch.no_grad():
        features = model.encode_image(yardstick.pixels_of(squares, open_clip.PIXEL_MEAN, open_clip.PIXEL_STD))
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, images=squares, features=features.numpy(), **state)


if __name__ == "__main__":
    _write_golden()
