"""CraFT and what goes beyond it, to be read beside the paper: prompt, estimators, objectives, refinement, the step.

Heads are `refinement` and, on stacked predictions, `stacked`. Pure functions over small states; no file, screen or host
is known here.
"""

from craft_jax.method import (
    calibration,
    candidates,
    collaborative,
    divergence,
    estimators,
    objectives,
    prompt,
    refinement,
    stacked,
)
from craft_jax.method.candidates import AXIS
from craft_jax.method.collaborative import Method, Metrics, Problem, TuningState
from craft_jax.method.stacked import StackedHead

__all__ = [
    "AXIS",
    "Method",
    "Metrics",
    "Problem",
    "StackedHead",
    "TuningState",
    "calibration",
    "candidates",
    "collaborative",
    "divergence",
    "estimators",
    "objectives",
    "prompt",
    "refinement",
    "stacked",
]
