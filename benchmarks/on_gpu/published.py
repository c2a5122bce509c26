"""The published way beside it: PyTorch's towers, every class padded to 77 tokens, one prompt at a time."""

import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks import sizes
from benchmarks.on_gpu.models import Size
from benchmarks.on_gpu.record import Record, Skip

IMAGES = 256
PRECISIONS = ("float16", "tf32", "float32")


def queries(record: Record, size: Size, classes: tuple[int, ...]) -> None:
    """Milliseconds a query by precision, and images a second."""
    torch = _torch()
    for precision in PRECISIONS:
        for count in classes:
            part = functools.partial(_text, record, size, count, precision)
            record.each(f"PyTorch, {precision}, {count} classes", 6, part)
    for precision in PRECISIONS[:2]:
        record.each(f"PyTorch's images, {precision}", 6, functools.partial(_images, record, size, precision))
    torch.backends.cuda.matmul.allow_tf32 = False


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Skip("PyTorch is not installed") from error
    return torch


def _device() -> str:
    return "cuda" if _torch().cuda.is_available() else "cpu"


def _text(record: Record, size: Size, classes: int, precision: str) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch, text = _torch(), size.text
    config = CLIPTextConfig(
        vocab_size=sizes.VOCABULARY, bos_token_id=sizes.SOS, eos_token_id=sizes.EOS, pad_token_id=sizes.EOS,
        hidden_size=text.width, intermediate_size=4 * text.width, num_hidden_layers=text.layers,
        num_attention_heads=text.heads, projection_dim=size.projection,
    )  # fmt: skip
    model = _placed(CLIPTextModelWithProjection(config), precision)
    ids = torch.full((classes, config.max_position_embeddings), sizes.EOS)
    for row, caption in zip(ids, sizes.captions(classes), strict=True):
        row[: len(caption)] = torch.tensor(caption)
    ids = ids.to(_device())
    ms = 1e3 * _seconds(lambda: model(ids).text_embeds)
    record.add(model=size.name, classes=classes, precision=precision, torch=torch.__version__, ms_a_query=ms)


def _images(record: Record, size: Size, precision: str) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch, image = _torch(), size.image
    config = CLIPVisionConfig(
        hidden_size=image.width, intermediate_size=4 * image.width, num_hidden_layers=image.layers,
        num_attention_heads=image.heads, patch_size=size.patch, image_size=size.side, projection_dim=size.projection,
    )  # fmt: skip
    model = _placed(CLIPVisionModelWithProjection(config), precision)
    pixels = torch.randn(IMAGES, 3, size.side, size.side, device=_device(), dtype=next(model.parameters()).dtype)
    rate = IMAGES / _seconds(lambda: model(pixels).image_embeds)
    record.add(model=size.name, precision=precision, torch=torch.__version__, images_a_second=rate)


def _placed(model: Any, precision: str) -> Any:
    torch = _torch()
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return model.eval().to(_device(), torch.float16 if precision == "float16" else torch.float32)


def _seconds(call: Callable[[], Any], budget: float = 0.5) -> float:
    torch = _torch()
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def rowful(many: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(many):
                call()
        wait()
        return (time.perf_counter() - began) / many

    rowful(2)
    many = max(1, min(100, round(budget / 3 / rowful(1))))
    return min(rowful(many) for _ in range(3))
