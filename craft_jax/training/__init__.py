"""One run from start to result: its parts, the texts asked first, the loop, resume, checkpoints and record.

`selection` chooses what is deployed. All side effects of a run live here; `train` is the way in.
"""

from craft_jax.training import checkpoints, from_settings, report
from craft_jax.training.estimate import estimate
from craft_jax.training.finished import CURVE, METRICS, PAGE, REPORT, RESULT, Outcome, Result, load_run
from craft_jax.training.from_settings import prompt_std
from craft_jax.training.loop import train, train_alone
from craft_jax.training.metrics_log import read_log
from craft_jax.training.probing import to_ask as texts_to_ask

__all__ = [
    "CURVE",
    "METRICS",
    "Outcome",
    "PAGE",
    "REPORT",
    "RESULT",
    "Result",
    "checkpoints",
    "estimate",
    "from_settings",
    "load_run",
    "prompt_std",
    "read_log",
    "report",
    "texts_to_ask",
    "train",
    "train_alone",
]
