"""A run that is over: what it leaves in its workdir, and how that is read again."""

import json
from pathlib import Path
from typing import NamedTuple

from craft_jax.errors import UserError
from craft_jax.training.checkpoints import open_for_prediction
from craft_jax.training.metrics_log import Row
from craft_jax.tuned_model import TunedModel

RESULT, REPORT, CURVE, METRICS = "result.json", "report.md", "curve.png", "metrics.jsonl"
PAGE = "report.html"


class Outcome(NamedTuple):
    """What `train` returns: the tuned model, and what result.json holds."""

    tuned: TunedModel
    result: Row


def load_run(workdir: str | Path) -> Outcome:
    """The tuned model and the result of a finished run, as `train` returned them.

    Args:
      workdir: folder of the run.

    Raises:
      UserError: where the folder holds no run, or one that is not finished.
    """
    workdir = Path(workdir).expanduser()
    tuned = open_for_prediction(workdir).tuned
    if not (workdir / RESULT).exists():
        raise UserError(f"{workdir} holds no finished run; call train with it again, which goes on where it stopped")
    return Outcome(tuned, json.loads((workdir / RESULT).read_text(encoding="utf-8")))
