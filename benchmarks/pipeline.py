"""Whether decoding, augmentation and the image tower overlap: a few large JPEGs in several views through ViT-B/32.

    python -m benchmarks.pipeline

About a minute on two cores. Prints JSON; `measure` runs it in a process of its own, so that its memory is its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import sizes
from benchmarks.one_step import peak_gigabytes
from craft_jax import data, encoding
from craft_jax.blackbox import Metered
from craft_jax.config import Config
from craft_jax.data import pixels

IMAGES, VIEWS, SIDE = 48, 4, (1200, 900)


def measure() -> dict[str, float]:
    """Seconds of decoding and augmenting alone, of the tower alone, and of both in the pipeline; peak memory."""
    command = [sys.executable, "-m", "benchmarks.pipeline"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _images(folder: Path) -> list[data.ImageFile]:
    """Bundled photographs at a camera's size."""
    few = data.load(Config().data, seed=1).train[:IMAGES]
    found = []
    for i, item in enumerate(few):
        path = folder / f"{i}.jpg"
        item.image.open().resize(SIDE, Image.Resampling.BICUBIC).save(path)
        found.append(data.ImageFile(path))
    return found


def main() -> None:
    """Measures and prints."""
    clip = sizes.model(32)
    box = sizes.black_box(clip, sizes.text_params(clip), 1, image=sizes.image_params(clip))
    batch = min(encoding.batch_size(box.image_size), IMAGES * VIEWS)
    blank = np.zeros((batch, 224, 224, 3), np.uint8)
    jax.block_until_ready(box.encode_images(blank))
    with tempfile.TemporaryDirectory() as folder:
        images = _images(Path(folder))
        crops = [[pixels.view_crop(1, view, i) for view in range(VIEWS)] for i in range(IMAGES)]

        encoder = encoding.Encoder(Metered(box, budget=None))
        encoder.centre_crops(images)  # compiles
        began = time.perf_counter()
        batches = sum(1 for _ in pixels.batches(images, crops, 224, batch))
        decoded = time.perf_counter()
        jax.block_until_ready([box.encode_images(blank) for _ in range(batches)])
        encoded = time.perf_counter()
        handle = encoder.training_views(images, views=VIEWS, seed=1)
        jax.block_until_ready(handle)
        both = time.perf_counter() - encoded
    parts = {"decode": decoded - began, "tower": encoded - decoded, "pipeline": both, "gigabytes": peak_gigabytes()}
    print(json.dumps(parts))


if __name__ == "__main__":
    main()
