"""What tuning leaves behind, and whether it fits a black box."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from craft_jax.blackbox import Described, prompts_for
from craft_jax.errors import UserError
from craft_jax.method import StackedHead


class TunedModel(NamedTuple):
    """What tuning leaves behind, beside the black box.

    Attributes:
      prompt: the soft prompt, [n_ctx, d], or one for each class, [C, n_ctx, d].
      head: the refinement head's parameters.
      black_box: identity of the black box that it was tuned for.
      class_names: the C classes, in the order of the logits.
      texts: captions to ask of an image in the place of the prompt, those of the classes first; empty asks the prompt.
      stacked: the head on the answers to the texts; None where there are no texts.
    """

    prompt: Any
    head: Any
    black_box: dict[str, Any]
    class_names: tuple[str, ...]
    texts: tuple[str, ...] = ()
    stacked: StackedHead | None = None

    @property
    def prompts_per_image(self) -> int:
        """What an image costs that is labelled: C captions are a prompt."""
        return prompts_for(len(self.texts), len(self.class_names)) if self.texts else 1


def arrays(tuned: TunedModel) -> dict[str, Any]:
    """What was learnt, as a tree of arrays."""
    learnt = {"prompt": tuned.prompt, "head": tuned.head}
    return learnt if tuned.stacked is None else learnt | {"stacked": tuned.stacked._asdict()}


def from_arrays(
    learnt: dict[str, Any], black_box: dict[str, Any], class_names: Sequence[str], texts: Sequence[str]
) -> TunedModel:
    """The model that `arrays` was made of."""
    stacked = StackedHead(**learnt["stacked"]) if "stacked" in learnt else None
    asked = tuple(texts) if stacked else ()
    return TunedModel(learnt["prompt"], learnt["head"], black_box, tuple(class_names), asked, stacked)


def check_owner(tuned: TunedModel, black_box: Described) -> None:
    """Raises UserError where a model was tuned for another black box."""
    made_for, given = tuned.black_box, black_box.identity
    for part in ("fingerprint", "template"):
        if made_for[part] != given[part]:
            raise UserError(
                f"the checkpoint was made for black box {made_for['model']} ({part} {made_for[part]!r}), and "
                f"{given['model']} has {part} {given[part]!r}; load the black box that it was made for"
            )


def check_fit(tuned: TunedModel, black_box: Described) -> None:
    """Raises UserError where a model was tuned for another black box or other classes."""
    check_owner(tuned, black_box)
    if tuned.class_names != black_box.class_names:
        raise UserError(
            f"the checkpoint was made for {_some(tuned.class_names)}, and the black box is set up for "
            f"{_some(black_box.class_names)}; load it with the checkpoint's class names, in its order"
        )


def _some(class_names: tuple[str, ...]) -> str:
    return f"{len(class_names)} classes ({', '.join(class_names[:3])}, ...)"
