"""What a model's preprocessor_config.json asks for, as far as images are prepared so here; anything else is refused.

Images are resized at their short side and cropped at their centre to the model's square, bicubically, in 8 bits
(`data.pixels`); scale, mean and standard deviation are the model's own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from craft_jax.errors import UserError

_BICUBIC = 3  # Pillow's number


class Normalisation(NamedTuple):
    """Mean and standard deviation of each RGB channel, for pixels between 0 and 1."""

    mean: Sequence[float]
    std: Sequence[float]


def check(processor: Any, size: int, model: str) -> Normalisation:
    """How pixels are normalised, from transformers' image processor, of version 4's form or 5's.

    Args:
      processor: CLIPImageProcessor.
      size: side of the images that the model takes.
      model: its name, for messages.

    Raises:
      UserError: naming the entry that asks for another preparation than the one here.
    """
    wanted = {
        "do_resize": (True,),
        "size": (size, {"shortest_edge": size}, {"height": size, "width": size, "shortest_edge": size}),
        "resample": (_BICUBIC,),
        "do_center_crop": (True,),
        "crop_size": (size, {"height": size, "width": size}),
    }
    for name, allowed in wanted.items():
        found = _plain(getattr(processor, name))
        if found not in allowed:
            raise UserError(
                f"black_box.model={model!r}: preprocessor_config.json has {name}={found!r}, and images are prepared "
                f"with {name}={allowed[-1] if len(allowed) == 1 else allowed[1]!r} alone"
            )
    # The model normalises x / 255; another scale s is the same with mean and deviation over 255 s.
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise UserError(f"black_box.model={model!r}: preprocessor_config.json has image_mean={mean}, image_std={std}")
    return Normalisation([value / scale for value in mean], [value / scale for value in std])


def _plain(value: Any) -> Any:
    """A size as a dict without what is not set, a filter as its number."""
    if hasattr(value, "items"):
        return {name: number for name, number in value.items() if number is not None}
    return int(value) if hasattr(value, "value") else value
