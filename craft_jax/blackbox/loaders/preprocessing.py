"""What a model's preprocessor_config.json asks for, as transformers' image processors of CLIP and SigLIP do it.

What cannot be followed is refused by name.

Read are the forms of version 4, 5 and the feature extractors before them. Resizing and cropping are `data.pixels`'
business, scale, mean and standard deviation the model's own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from craft_jax.data import pixels
from craft_jax.errors import UserError

_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _MEAN,
    "image_std": _STD,
    "do_pad": False,
}
_SIGLIP = _CLIP | {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_FILTERS = range(6)  # Pillow's numbers


class Preparation(NamedTuple):
    """How images are prepared: resized and cropped, then normalised.

    Attributes:
      mean, std: of each RGB channel, for pixels between 0 and 1.
      resizing: as `data.pixels` takes it.
    """

    mean: Sequence[float]
    std: Sequence[float]
    resizing: pixels.Resizing


def read(settings: Mapping[str, Any], image_size: int, model: str, family: str = "CLIP") -> Preparation:
    """How a model's images are prepared.

    Args:
      settings: of its image processor, as transformers writes them.
      image_size: side of the square images that it takes.
      model: its name, for messages.
      family: whose processor it is, CLIP or Siglip, where the settings do not say.

    Raises:
      UserError: naming an entry that cannot be followed, or gives images that the model does not take.
    """
    try:
        _check_flags(settings)
        entries = _defaults(settings, family) | {name: value for name, value in settings.items() if value is not None}
        return Preparation(*_normalisation(entries), _resizing(entries, image_size))
    except _Refused as refused:
        raise UserError(f"black_box.model={model!r}: preprocessor_config.json has {refused}") from refused


class _Refused(Exception):
    """What an entry is, and why it is not followed."""


def _defaults(settings: Mapping[str, Any], family: str) -> dict[str, Any]:
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or f"{family}ImageProcessor"
    if str(kind).startswith("CLIP"):
        return _CLIP
    if str(kind).startswith("SiglipImageProcessor"):
        return _SIGLIP
    raise _Refused(f"image_processor_type={kind!r}, and CLIP's and SigLIP's alone are read here")


def _check_flags(settings: Mapping[str, Any]) -> None:
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad"):
        value = settings.get(name, True)
        # A null elsewhere is a default; at a flag transformers 4 reads it as no, and 5 as the default.
        if not isinstance(value, bool) and not (name == "do_pad" and value is None):
            raise _Refused(f"{name}={value!r}, which must be true or false")
    if settings.get("do_pad"):
        raise _Refused("do_pad=true, and images are not padded here")


def _resizing(entries: Mapping[str, Any], image_size: int) -> pixels.Resizing:
    sides: tuple[int, ...] = ()
    if entries["do_resize"]:
        sides = _sides("size", entries["size"])
        if entries.get("use_square_size") is True:  # of Kosmos-2's processors
            sides = (sides[0], sides[0])
        if entries["resample"] not in _FILTERS or isinstance(entries["resample"], bool):
            raise _Refused(f"resample={entries['resample']!r}, which must be one of Pillow's filters, 0 to 5")
    square = f"and the model takes {image_size} x {image_size} pixels"
    if entries["do_center_crop"]:
        crop = _sides("crop_size", entries["crop_size"])
        if set(crop) != {image_size}:
            raise _Refused(f"crop_size={entries['crop_size']!r}, {square}")
    elif not entries["do_resize"]:
        raise _Refused(f"do_resize=False and do_center_crop=False, {square}")
    elif sides != (image_size, image_size):
        raise _Refused(f"do_center_crop=False and size={entries['size']!r}, {square}")
    if not sides:
        return pixels.Resizing(sides=())
    usual = sides == (image_size,) and entries["resample"] == pixels.USUAL.resample
    return pixels.USUAL if usual else pixels.Resizing(sides, int(entries["resample"]))


def _sides(name: str, value: Any) -> tuple[int, ...]:
    """The short side, or height and width."""
    found: Sequence[Any] = ()
    if isinstance(value, Mapping):
        given = {key: number for key, number in value.items() if number is not None}
        if "shortest_edge" in given:
            found = [given["shortest_edge"]] if name == "size" else ()
        elif set(given) == {"height", "width"}:
            found = [given["height"], given["width"]]
    elif isinstance(value, list | tuple):
        found = value if len(value) == 2 else ()
    else:
        found = [value]
    if not found or not all(isinstance(side, int) and side > 0 and not isinstance(side, bool) for side in found):
        raise _Refused(f"{name}={value!r}, which must be whole numbers of pixels: {{'height': H, 'width': W}} or such")
    return tuple(found)


def _normalisation(entries: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and deviation for a model that normalises x / 255."""
    factor = entries["rescale_factor"] if entries["do_rescale"] else 1
    if not _is_number(factor) or factor == 0:
        raise _Refused(f"rescale_factor={factor!r}, which must be a number that is not 0")
    mean, std = [0.0] * 3, [1.0] * 3
    if entries["do_normalize"]:
        mean, std = (_channels(name, entries[name]) for name in ("image_mean", "image_std"))
    if not all(std):
        raise _Refused(f"image_std={entries['image_std']!r}, by which pixels cannot be divided")
    scale = 255 * factor
    return [value / scale for value in mean], [value / scale for value in std]


def _channels(name: str, value: Any) -> list[float]:
    found = [value] * 3 if _is_number(value) else value
    if not isinstance(found, list | tuple) or len(found) != 3 or not all(map(_is_number, found)):
        raise _Refused(f"{name}={value!r}, which must be a number for each of red, green and blue")
    return list(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
