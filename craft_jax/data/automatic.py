"""A train, validation and test split of labelled images that come without one: by a seed, class by class.

The shares are those of the splits that CoOp made for such sets (Zhou et al., IJCV 2022).
"""

import random
from collections.abc import Sequence

from craft_jax.data.fewshot import FewShotSet, Labelled, group
from craft_jax.errors import UserError

VAL_SHARE, TEST_SHARE = 0.2, 0.3
AUTOMATIC = "automatic split (50 % train, 20 % validation, 30 % test, seed {}) of {}"


def automatic_split(items: Sequence[Labelled], class_names: tuple[str, ...], seed: int, *, split: str) -> FewShotSet:
    """Splits each class's images by itself: adding images to one class leaves the others' split as it is.

    Args:
      items: in an order that does not change between runs.
      class_names: by label.
      seed: of the split.
      split: its label.

    Raises:
      UserError: where no class has two images, so that none is left to test on.
    """
    train: list[Labelled] = []
    val: list[Labelled] = []
    test: list[Labelled] = []
    for label, found in sorted(group(items).items()):
        shuffled = list(found)
        random.Random(f"{seed} {class_names[label]}").shuffle(shuffled)
        tested = max(round(TEST_SHARE * len(found)), min(1, len(found) - 1))
        validated = min(round(VAL_SHARE * len(found)), len(found) - tested - 1)
        test += shuffled[:tested]
        val += shuffled[tested : tested + validated]
        train += shuffled[tested + validated :]
    if not test:
        raise UserError(f"{split}: no class has two images, one to train and one to test on; add some")
    return FewShotSet(class_names, tuple(train), tuple(val), tuple(test), split=split)
