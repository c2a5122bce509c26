"""What makes one ResNet CLIP differ from another, and the weights that it must then have.

The names of the weights are those of OpenAI's state dict, which open_clip's files share.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from craft_jax.blackbox.towers.resnet import EXPANSION
from craft_jax.errors import UserError

Shape = tuple[int, ...]

_REDUCTION = 32  # image side to side of the last stage's map
_TEXT_HEAD_WIDTH = 64
_MLP_RATIO = 4
_CHANGES_NOTHING = (None, False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A ResNet CLIP's sizes.

    Attributes:
      layers: bottlenecks in each of the four stages.
      width: channels of the first stage; the last map has 32 times as many.
      image_size: side of the images in pixels.
      head_width: channels of one head of the attention pooling.
      embed_dim: length of image and text features.
      context_length, vocab_size: tokens in a caption, and in the vocabulary.
      text_width, text_heads, text_layers: of the text encoder.
      quick_gelu: its activation is x * sigmoid(1.702 x), as in OpenAI's models, and not the exact GELU.
    """

    layers: tuple[int, int, int, int]
    width: int = 64
    image_size: int = 224
    head_width: int = 64
    embed_dim: int
    context_length: int = 77
    vocab_size: int = 49408
    text_width: int
    text_heads: int
    text_layers: int = 12
    quick_gelu: bool = True

    def __post_init__(self) -> None:
        """Raises UserError where the sizes do not fit together."""
        if self.image_size % _REDUCTION:
            raise UserError(f"image_size={self.image_size} of a ResNet CLIP must be a multiple of {_REDUCTION}")
        if self.pooled_width % self.head_width:
            raise UserError(f"32 * width = {self.pooled_width} must be a multiple of head_width={self.head_width}")
        if self.text_width % self.text_heads:
            raise UserError(f"the text width {self.text_width} must be a multiple of its heads {self.text_heads}")

    @property
    def pooled_width(self) -> int:
        """Channels of the last stage's map, which the attention pools."""
        return 8 * EXPANSION * self.width

    @property
    def image_heads(self) -> int:
        """Heads of the attention pooling."""
        return self.pooled_width // self.head_width

    @property
    def positions(self) -> int:
        """Tokens of the attention pooling: the mean and one for each place of the last map."""
        return (self.image_size // _REDUCTION) ** 2 + 1


def _openai(layers: tuple[int, int, int, int], width: int, image_size: int, embed_dim: int, text: int) -> Architecture:
    heads = text // _TEXT_HEAD_WIDTH
    return Architecture(
        layers=layers, width=width, image_size=image_size, embed_dim=embed_dim, text_width=text, text_heads=heads
    )


OPENAI = {
    "RN50": _openai((3, 4, 6, 3), 64, 224, 1024, 512),
    "RN101": _openai((3, 4, 23, 3), 64, 224, 512, 512),
    "RN50x4": _openai((4, 6, 10, 6), 80, 288, 640, 640),
    "RN50x16": _openai((6, 8, 18, 8), 96, 384, 768, 768),
    "RN50x64": _openai((3, 15, 36, 10), 128, 448, 1024, 1024),
}


def bottlenecks(architecture: Architecture) -> Iterator[tuple[int, int, int, int]]:
    """Stage (from 1), block (from 0), input channels and inner width of every bottleneck, in order."""
    channels = architecture.width
    for stage, blocks in enumerate(architecture.layers, start=1):
        inner = architecture.width * 2 ** (stage - 1)
        for block in range(blocks):
            yield stage, block, channels, inner
            channels = EXPANSION * inner


def image_layout(architecture: Architecture) -> dict[str, Shape]:
    """The shape of each weight of the image tower."""
    half, width, pooled = architecture.width // 2, architecture.width, architecture.pooled_width
    shapes: dict[str, Shape] = {}

    def convolution(weight: str, norm: str, shape: Shape) -> None:
        shapes[f"visual.{weight}.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"visual.{norm}.{name}"] = shape[:1]

    for i, (channels, inputs) in enumerate([(half, 3), (half, half), (width, half)], start=1):
        convolution(f"conv{i}", f"bn{i}", (channels, inputs, 3, 3))
    for stage, block, inputs, inner in bottlenecks(architecture):
        at = f"layer{stage}.{block}"
        convolution(f"{at}.conv1", f"{at}.bn1", (inner, inputs, 1, 1))
        convolution(f"{at}.conv2", f"{at}.bn2", (inner, inner, 3, 3))
        convolution(f"{at}.conv3", f"{at}.bn3", (EXPANSION * inner, inner, 1, 1))
        if block == 0:
            convolution(f"{at}.downsample.0", f"{at}.downsample.1", (EXPANSION * inner, inputs, 1, 1))
    shapes["visual.attnpool.positional_embedding"] = (architecture.positions, pooled)
    for name in ("q_proj", "k_proj", "v_proj", "c_proj"):
        outputs = architecture.embed_dim if name == "c_proj" else pooled
        shapes[f"visual.attnpool.{name}.weight"] = (outputs, pooled)
        shapes[f"visual.attnpool.{name}.bias"] = (outputs,)
    return shapes


def text_layout(architecture: Architecture) -> dict[str, Shape]:
    """The shape of each weight of the text encoder, with the logit scale."""
    width, hidden = architecture.text_width, _MLP_RATIO * architecture.text_width
    shapes: dict[str, Shape] = {
        "token_embedding.weight": (architecture.vocab_size, width),
        "positional_embedding": (architecture.context_length, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, architecture.embed_dim),
        "logit_scale": (),
    }
    layer: dict[str, Shape] = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "mlp.c_fc.weight": (hidden, width),
        "mlp.c_fc.bias": (hidden,),
        "mlp.c_proj.weight": (width, hidden),
        "mlp.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
    }
    for i in range(architecture.text_layers):
        shapes |= {f"transformer.resblocks.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def layout(architecture: Architecture) -> dict[str, Shape]:
    """The shape of each weight of the whole CLIP."""
    return image_layout(architecture) | text_layout(architecture)


def from_weights(shapes: Mapping[str, Shape]) -> Architecture:
    """The sizes that a state dict's shapes imply, heads by OpenAI's rule of 64 channels each.

    Raises:
      UserError: where the state dict is not a ResNet CLIP's.
    """

    def shape(name: str, axes: int) -> Shape:
        if len(shapes.get(name, ())) != axes:
            raise UserError(f"these are not the weights of a ResNet CLIP: {name} with {axes} axes is missing")
        return shapes[name]

    layers = [_count(shapes, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    text_width, embed_dim = shape("text_projection", 2)
    return Architecture(
        layers=(layers[0], layers[1], layers[2], layers[3]),
        width=shape("visual.conv3.weight", 4)[0],
        image_size=_REDUCTION * math.isqrt(shape("visual.attnpool.positional_embedding", 2)[0] - 1),
        embed_dim=embed_dim,
        context_length=shape("positional_embedding", 2)[0],
        vocab_size=shape("token_embedding.weight", 2)[0],
        text_width=text_width,
        text_heads=max(1, text_width // _TEXT_HEAD_WIDTH),
        text_layers=_count(shapes, "transformer.resblocks."),
    )


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """How many numbers follow `prefix` in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def to_model_cfg(architecture: Architecture) -> dict[str, Any]:
    """The sizes as open_clip_config.json has them under `model_cfg`."""
    return {
        "embed_dim": architecture.embed_dim,
        "quick_gelu": architecture.quick_gelu,
        "vision_cfg": {
            "image_size": architecture.image_size,
            "layers": list(architecture.layers),
            "width": architecture.width,
            "head_width": architecture.head_width,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": architecture.context_length,
            "vocab_size": architecture.vocab_size,
            "width": architecture.text_width,
            "heads": architecture.text_heads,
            "layers": architecture.text_layers,
        },
    }


def from_model_cfg(settings: Mapping[str, Any]) -> Architecture:
    """The sizes that open_clip_config.json states under `model_cfg`.

    Raises:
      UserError: where one is missing or malformed, or where a setting asks for what this tower does not do.
    """
    try:
        flat = {f"vision_cfg.{name}": value for name, value in settings["vision_cfg"].items()}
        flat |= {f"text_cfg.{name}": value for name, value in settings["text_cfg"].items()}
        flat |= {name: value for name, value in settings.items() if name not in ("vision_cfg", "text_cfg")}
        architecture = Architecture(
            layers=_four(flat.pop("vision_cfg.layers")),
            width=int(flat.pop("vision_cfg.width", 64)),
            image_size=_side(flat.pop("vision_cfg.image_size", 224)),
            head_width=int(flat.pop("vision_cfg.head_width", 64)),
            embed_dim=int(flat.pop("embed_dim")),
            context_length=int(flat.pop("text_cfg.context_length", 77)),
            vocab_size=int(flat.pop("text_cfg.vocab_size", 49408)),
            text_width=int(flat.pop("text_cfg.width")),
            text_heads=int(flat.pop("text_cfg.heads")),
            text_layers=int(flat.pop("text_cfg.layers")),
            quick_gelu=bool(flat.pop("quick_gelu", False)),
        )
    except KeyError as error:
        raise UserError(f"model_cfg lacks {error.args[0]}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"model_cfg is malformed: {error}") from error
    unknown = sorted(name for name, value in flat.items() if value not in _CHANGES_NOTHING)
    if unknown:
        raise UserError(f"model_cfg sets {', '.join(unknown)}, which this ResNet CLIP does not support")
    return architecture


def _four(layers: Any) -> tuple[int, int, int, int]:
    if not isinstance(layers, (list, tuple)) or len(layers) != 4:
        raise UserError(f"model_cfg: vision_cfg.layers={layers!r} must be four numbers, as of a ResNet CLIP")
    return int(layers[0]), int(layers[1]), int(layers[2]), int(layers[3])


def _side(size: Any) -> int:
    sides = {int(side) for side in size} if isinstance(size, (list, tuple)) else {int(size)}
    if len(sides) != 1:
        raise UserError(f"model_cfg: vision_cfg.image_size={size!r} must be square")
    return sides.pop()
