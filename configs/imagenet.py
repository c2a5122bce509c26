"""ImageNet, 1,000 classes, at 16 shots, tested on its validation images; its variants for distribution shift.

    python -m craft_jax.main --config=configs/imagenet.py --config.data.root=DATA
    python -m craft_jax.sweep --protocol=shift --config=configs/imagenet.py --shots=16 --config.data.root=DATA

DATA holds `imagenet/images/train`, `imagenet/images/val` and `imagenet/classnames.txt`, as CoOp documents them, and
for the second command any of `imagenetv2`, `imagenet-sketch`, `imagenet-adversarial` and `imagenet-rendition`.
`configs/imagenet.py:paper` takes the published runs' settings.
"""

import ml_collections

from craft_jax.config import BlackBoxConfig, Config, DataConfig, RefinementConfig, config_dict

DATA = DataConfig(
    name="imagenet",
    source="imagenet",
    root="data",
    images="imagenet/images",
    split="imagenet/classnames.txt",
    with_replacement=True,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` names recipes, joined by commas."""
    black_box = BlackBoxConfig(model="openai/clip-vit-base-patch16")
    return config_dict(Config(data=DATA, black_box=black_box, refinement=RefinementConfig(hidden=512)), variant)
