"""A run that is over: what it leaves in its workdir, and how that is read again."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from craft_jax.blackbox import Ledger
from craft_jax.errors import UserError
from craft_jax.training.checkpoints import open_for_prediction
from craft_jax.training.metrics_log import Row
from craft_jax.tuned_model import TunedModel

RESULT, REPORT, CURVE, METRICS = "result.json", "report.md", "curve.png", "metrics.jsonl"
PAGE = "report.html"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has reached and asked, as result.json holds it. Accuracies are of the test images, in percent.

    Attributes:
      zero_shot: accuracy under the unlearnt prompt.
      accuracy: of the model that is deployed.
      chosen: which model that is, by name.
      ledger: what was asked of the black box.
      prompt_only: accuracy of the tuned prompt without its head.
      refined: of the tuned prompt with its head.
      probes: of the head in closed form on the answers to texts; None where no texts were asked.
      wordings: what a search over texts has found, and the accuracies of it; None where there was none.
      prompts_per_image: what an image costs that is labelled later, by model.
      held_out: how many images the choice was made by, and each model's cross-entropy on them.
      queries: prompts evaluated, which the budget counts.
      predictions: prompts x images asked for the search.
      seconds: that the run took, all its parts together.
      seed: of everything random.
      shots: training images of each class; a text such as `3 to 4` where classes have different numbers of them.
      black_box: the model's name.
      split: where the division into training and test images comes from.
      classes, train_images, test_images: how many.
      learn, estimator, context: settings of that name.
      notes: on the images, such as those that were left out.
    """

    zero_shot: float
    accuracy: float
    chosen: str
    ledger: Ledger
    # Results of older versions lack some of these.
    prompt_only: float | None = None
    refined: float | None = None
    probes: float | None = None
    wordings: dict[str, Any] | None = None
    prompts_per_image: dict[str, int] = dataclasses.field(default_factory=dict)
    held_out: dict[str, Any] = dataclasses.field(default_factory=dict)
    queries: int = 0
    predictions: int = 0
    seconds: float = 0.0
    seed: int = 0
    shots: int | str = 0
    black_box: str = ""
    split: str = ""
    classes: int = 0
    train_images: int = 0
    test_images: int = 0
    learn: str = ""
    estimator: str = ""
    context: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Row) -> "Result":
        """Of what result.json holds; what a newer version wrote there beside it is passed over."""
        known = {field.name: row[field.name] for field in dataclasses.fields(cls) if field.name in row}
        return cls(**known | {"ledger": Ledger(**row["ledger"]), "notes": tuple(row.get("notes", ()))})


class Outcome(NamedTuple):
    """What `train` and `load_run` return.

    Attributes:
      tuned: the model that is deployed, for `predict` and `evaluate`.
      result: what the run has reached and asked.
    """

    tuned: TunedModel
    result: Result


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
    return Outcome(tuned, Result.of(json.loads((workdir / RESULT).read_text(encoding="utf-8"))))
