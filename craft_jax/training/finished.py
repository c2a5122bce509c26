"""A run that is over, from its workdir."""

import json
from pathlib import Path

from craft_jax.errors import UserError
from craft_jax.training.checkpoints import open_for_prediction
from craft_jax.training.loop import RESULT, Outcome


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
