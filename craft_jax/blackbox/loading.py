"""From a model's name to a black box: picks the loader that its files are for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from craft_jax.blackbox import clip
from craft_jax.blackbox.apis import connect_again, connect_api
from craft_jax.blackbox.clip import ClipBlackBox, ClipParts
from craft_jax.blackbox.interface import BlackBox
from craft_jax.blackbox.loaders import flax_clip, hub_files, open_clip, siglip
from craft_jax.blackbox.remote import is_remote
from craft_jax.config import BUNDLED, ApiConfig, BlackBoxConfig
from craft_jax.errors import UserError, silenced
from craft_jax.precision import in_32_bits

_USUAL = ApiConfig()


@in_32_bits
def load(
    model: str, class_names: Sequence[str], template: str = "a photo of a {}.", dtype: str = "float32"
) -> ClipBlackBox:
    """Loads a CLIP or SigLIP and puts it behind the interface.

    Args:
      model: `bundled`; a folder in the transformers layout or, for a ResNet, in open_clip's; a hub name of either; or
        RN50, RN101, RN50x4, RN50x16, RN50x64 for OpenAI's own.
      class_names: C names as they should be read, one per label; two may be the same, as in ImageNet's list.
      template: caption of a class; the words before `{}` start the soft prompt.
      dtype: that the towers compute in, float32 or bfloat16; predictions are float32 either way.

    Raises:
      UserError: where the model cannot be loaded, or a caption does not fit.
    """
    return clip.assemble(_read(model, dtype), model, class_names, template, dtype)


@in_32_bits
def from_settings(settings: BlackBoxConfig, class_names: Sequence[str], api: ApiConfig = _USUAL) -> BlackBox:
    """The black box that the settings name, local or over HTTP, set up for these classes.

    Raises:
      UserError: as `load` and `connect_api` do.
    """
    if settings.api:
        return connect_api(settings.model, class_names, settings.template, form=settings.api, api=api)
    return load(settings.model, class_names, settings.template, settings.dtype)


@in_32_bits
def from_identity(
    identity: Mapping[str, Any], class_names: Sequence[str], model: str = "", asking: ApiConfig = _USUAL
) -> BlackBox:
    """A black box again, from its identity.

    Args:
      identity: of the one that a model was tuned for.
      class_names: of the tuned model.
      model: where it lies now, if not where the identity says; whether it is the same is for `check_fit` to say.
      asking: how it is asked, if over HTTP.

    Raises:
      UserError: where it is one that only Python can connect to, or as `load` and `connect_api` do.
    """
    if identity.get("api"):
        return connect_again(identity, class_names, asking, model)
    if is_remote(identity):
        raise UserError(
            f"the checkpoint is for {identity['model']}, a remote black box; call craft_jax.predict with it"
        )
    return load(model or identity["model"], class_names, identity["template"], identity["dtype"])


def _read(model: str, dtype: str) -> ClipParts:
    with hub_files.hub_or_cache("" if model == BUNDLED else model):
        _import_transformers()
        with silenced("transformers", logging.ERROR):
            if model == BUNDLED:
                return flax_clip.read(flax_clip.BUNDLED_MODEL, model, dtype)
            if files := open_clip.find(model):
                return open_clip.read(files, dtype)
            found = hub_files.find(model)
            return {"clip": flax_clip, "siglip": siglip}[found.type].read(found.folder, model, dtype)


def _import_transformers() -> None:
    """Takes over a second, and sets its logger's level; version 5 advises then to install PyTorch, for models."""
    logger = logging.getLogger("transformers")

    def unheard(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logger.addFilter(unheard)
    try:
        import transformers  # noqa: F401
    finally:
        logger.removeFilter(unheard)
