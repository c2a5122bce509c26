"""What the CraFT paper and its published runs say of each data set: settings, accuracies, shifted ImageNets.

Figures of Wang et al., ICML 2024 (arXiv 2402.04050), its published configurations and its results log. Accuracies are
in percent, of RN50 where nothing else is said, the mean of seeds 1, 2, 3.
"""

from typing import Any

SHOTS = (1, 2, 4, 8, 16)

PUBLISHED: dict[str, dict[str, Any]] = {
    "oxford_pets": {
        "settings": {"std": 0.2, "sigma": 0.02, "bound": 5.0, "consistency": 0.1, "n": 1, "batch_size": 64},
        "zero_shot": 85.77,
        "accuracy": {1: 81.38, 2: 79.47, 4: 84.47, 8: 85.52, 16: 88.36},
    },
    "oxford_flowers": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 5.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 66.14,
        "accuracy": {1: 67.88, 2: 77.56, 4: 83.71, 8: 89.25, 16: 92.04},
    },
    "fgvc_aircraft": {
        "settings": {"std": 0.2, "sigma": 0.02, "bound": 0.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 17.28,
        "accuracy": {1: 18.52, 2: 20.06, 4: 22.39, 8: 23.88, 16: 26.80},
    },
    "dtd": {
        "settings": {"std": 1.0, "sigma": 0.02, "bound": 5.0, "consistency": 0.001, "n": 1, "batch_size": 256},
        "zero_shot": 42.32,
        "accuracy": {1: 42.57, 2: 45.02, 4: 49.67, 8: 58.12, 16: 59.26},
    },
    "eurosat": {
        "settings": {"std": 1.0, "sigma": 0.02, "bound": 5.0, "consistency": 0.01, "n": 1, "batch_size": 256},
        "zero_shot": 37.56,
        "accuracy": {1: 46.39, 2: 50.72, 4: 59.05, 8: 66.27, 16: 75.30},
    },
    "stanford_cars": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 5.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 55.61,
        "accuracy": {1: 54.45, 2: 58.77, 4: 61.24, 8: 67.38, 16: 71.92},
    },
    "food101": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 0.0, "consistency": 1.0, "n": 1, "batch_size": 256},
        "zero_shot": 77.31,
        "accuracy": {1: 73.01, 2: 74.22, 4: 75.79, 8: 76.50, 16: 77.82},
    },
    "sun397": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 5.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 58.52,
        "accuracy": {1: 66.21, 2: 60.78, 4: 63.50, 8: 63.44, 16: 66.41},
    },
    "caltech101": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 5.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 86.29,
        "accuracy": {1: 84.58, 2: 87.06, 4: 89.15, 8: 90.22, 16: 91.09},
    },
    "ucf101": {
        "settings": {"std": 0.2, "sigma": 1.0, "bound": 5.0, "consistency": 0.1, "n": 4, "batch_size": 256},
        "zero_shot": 61.46,
        "accuracy": {1: 60.60, 2: 66.02, 4: 67.57, 8: 70.67, 16: 73.05},
    },
    "imagenet": {
        "settings": {
            "std": 1.0, "sigma": 1.0, "bound": 0.0, "consistency": 0.0, "n": 1, "batch_size": 256, "hidden": 512,
        },
        "zero_shot": 58.18,
        "accuracy": {1: 58.81, 2: 60.86, 4: 61.35, 8: 61.57, 16: 61.33},
    },
}  # fmt: skip
"""By the name of the set, `data.name`.

`settings`: std of A; the search's sigma and bound (0: unbounded); lambda, `consistency`; n, of which the head's
consistency lasts 1 / n of the budget; the head's batch size, and its hidden width where it is not 256.
`zero_shot` and `accuracy` by shots: RN50.
"""

SHIFTS: dict[str, dict[str, dict[str, float]]] = {
    "RN50": {
        "tuned": {"imagenet": 61.17, "imagenetv2": 53.92, "imagenet-sketch": 34.01, "imagenet-a": 23.13,
                  "imagenet-r": 58.23},
    },
    "ViT-B/16": {
        "tuned": {"imagenet": 68.21, "imagenetv2": 62.78, "imagenet-sketch": 47.17, "imagenet-a": 49.73,
                  "imagenet-r": 75.52},
        "zero_shot": {"imagenet": 66.73, "imagenetv2": 60.83, "imagenet-sketch": 46.15, "imagenet-a": 47.77,
                      "imagenet-r": 73.96},
    },
}  # fmt: skip
"""ImageNet at 16 shots and its shifted variants, by backbone."""


def query_budget(shots: int) -> int:
    """Prompts that the published runs query at a number of shots; between their numbers, the next lower one's."""
    return 2000 if shots < 2 else 4000 if shots < 8 else 8000
