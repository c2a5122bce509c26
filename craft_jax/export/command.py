"""The command `craft-jax export --checkpoint=runs/demo model.npz`: what a run has tuned, for use without craft_jax."""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from craft_jax import folders
from craft_jax.cli import called, elsewhere, parse
from craft_jax.config import ApiConfig
from craft_jax.errors import UserError, on_command_line
from craft_jax.files import json_text, replacing, shown, write_atomically

if TYPE_CHECKING:
    from craft_jax.blackbox import BlackBox, Features
    from craft_jax.export.classifier import Classifier

_PROGRAM = ".jax_export"
_KINDS = (".npz", ".safetensors", _PROGRAM)
_USAGE = "usage: {} --checkpoint=WORKDIR FILE.npz|FILE.safetensors|FILE" + _PROGRAM + " ..."


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "checkpoint", None, "Workdir of a run, such as runs/demo, or its folder checkpoints.", flag_values=values
    )
    flags.DEFINE_string(
        "model", None, "Where the black box is now, if not where the checkpoint says.", flag_values=values
    )
    return values


@on_command_line()
def main(argv: list[str]) -> None:
    """Writes the files that the command line names, each in the form of its suffix.

    Raises:
      UserError: for a mistake on the command line, or a run whose model's weights are not on this machine.
    """
    usage = _USAGE.format(called(argv, "craft_jax.export.command"))
    given, names = parse(_flags(), argv, usage=usage)
    if not given.checkpoint or not names:
        raise UserError(f"a checkpoint and at least one file to write are needed; {usage}")
    checkpoint = folders.named(given.checkpoint, "--checkpoint")
    files = [_to_write(name) for name in names]

    # Imported here, so that --help and a wrong command line answer at once.
    import jax

    from craft_jax import blackbox, tuned_model
    from craft_jax.export.classifier import classifier_of
    from craft_jax.training import checkpoints

    jax.config.update("jax_platforms", "cpu")  # towers are traced as they are for a CPU, which every platform can run
    restored = checkpoints.open_for_prediction(checkpoint)
    tuned, asking = restored.tuned, ApiConfig(**restored.about.get("settings", {}).get("api", {}))
    with elsewhere(given.model):
        black_box = blackbox.from_identity(tuned.black_box, tuned.class_names, given.model or "", asking)
    inside = blackbox.features_of(black_box)
    tuned_model.check_fit(tuned, black_box)
    classifier = classifier_of(tuned, inside)
    about = _about(black_box, inside, classifier, _deployed(restored.about))
    for file in files:
        _write(file, inside, classifier, about)
        print(f"{shown(file)}: {about['deployed']}, {_what(file, classifier)}", flush=True)


def _to_write(name: str) -> Path:
    file = folders.expanded(name, "FILE")
    if file.suffix not in _KINDS:
        raise UserError(f"{shown(name)}: the suffix says what is written, one of {', '.join(_KINDS)}")
    if not file.parent.is_dir():
        raise UserError(f"{shown(file)}: there is no folder {shown(file.parent)}; make it first")
    return file


def _deployed(about: dict[str, Any]) -> str:
    """The name of the model that a run has chosen, as its report says it."""
    rows = about.get("metrics") or [{}]
    return str(rows[-1].get("chosen", "as far as the run got"))


def _about(black_box: "BlackBox", inside: "Features", classifier: "Classifier", deployed: str) -> dict[str, Any]:
    """What the arrays do not say, as JSON values."""
    identity, resizing = black_box.identity, black_box.resizing
    return {
        "deployed": deployed,
        "formula": classifier.formula,
        "class_names": list(black_box.class_names),
        "model": identity["model"],
        "fingerprint": identity["fingerprint"],
        "dtype": identity["dtype"],
        "template": identity["template"],
        "image_size": black_box.image_size,
        "resize": list(resizing.sides) if resizing.sides is not None else [black_box.image_size],
        "resample": resizing.resample,
        "pixel_mean": inside.pixel_mean,
        "pixel_std": inside.pixel_std,
        "written_by": f"craft_jax {importlib.metadata.version('craft_jax')}",
    }


def _write(file: Path, inside: "Features", classifier: "Classifier", about: dict[str, Any]) -> None:
    from craft_jax.export import classifier as writing
    from craft_jax.export.program import program

    if file.suffix == ".npz":
        writing.write_npz(file, classifier, about)
    elif file.suffix == ".safetensors":
        writing.write_safetensors(file, classifier, about)
    else:
        with replacing(file) as partial:
            partial.write_bytes(program(inside.image_features, classifier, about["image_size"]))
        write_atomically(file.with_name(file.name + ".json"), json_text(about, indent=2) + "\n")


def _what(file: Path, classifier: "Classifier") -> str:
    classes, length = classifier.weights.shape
    if file.suffix == _PROGRAM:
        return f"pixels to scores of {classes} classes; names and preprocessing are in {shown(file.name)}.json"
    head = " and the refinement head, which no class weights can hold" if classifier.head else ""
    return f"weights of {classes} classes on features of length {length}{head}"
