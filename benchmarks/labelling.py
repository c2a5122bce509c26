"""What labelling 10^6, 10^8 and 10^10 images costs, multiplied out from rates measured here and on one H200.

    python -m benchmarks.labelling

Two minutes on two cores. Measures decoding, image towers of published sizes (random weights), texts and prompts, the
bundled model end to end, listing of files, and bytes of the output; an H200's rate is that of
benchmarks/results/gpu_h200.md. Times are those of the processor, which other jobs hardly change. Needs pyarrow (extra
`ray`). Writes benchmarks/results/labelling.md.
"""

import functools
import io
import os
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from benchmarks import sizes
from benchmarks.page import table
from craft_jax import blackbox, data, labelling
from craft_jax.blackbox.apis import chunks
from craft_jax.blackbox.clip import ClipBlackBox
from craft_jax.config import Config
from craft_jax.data import pixels
from craft_jax.labelling import output, reading, units
from craft_jax.tuned_model import TunedModel

PAGE = Path(__file__).parent / "results" / "labelling.md"
SCALES = {"10^6": 10**6, "10^8": 10**8, "10^10": 10**10}
SIDES = {"500 x 375": (500, 375), "1,200 x 900": (1200, 900)}
IMAGES, CLASSES, TEXTS = 64, 100, 512  # decoded and encoded; of the published sizes; words beside the classes' names
LISTED, ROWS, ON_A_SHARD = 20_000, 100_000, 10_000

H200_IMAGES = 8_798  # a second, PyTorch's ViT-B/16 image tower in float16: benchmarks/results/gpu_h200.md
REQUESTS_A_SECOND = 10


class Rates(NamedTuple):
    """Measured: seconds of a core for an image (or a listed file, or a prompt's and the texts' chunk), and bytes."""

    decode: dict[str, float]
    file_bytes: dict[str, float]
    tower: dict[str, float]
    prompt: float
    texts: float
    bundled: float
    row_bytes: float
    listed: float
    path_bytes: float
    unit_bytes: float
    request_bytes: float


def photographs() -> list[Image.Image]:
    """Bundled photographs, opened."""
    few = data.load(Config().data, seed=1).train[:IMAGES]
    return [item.image.open() for item in few]


def files_of(side: tuple[int, int]) -> list[data.ImageBytes]:
    """JPEGs of the bundled photographs made larger, with grain, without which they would have fewer bytes than most."""
    rng, found = np.random.default_rng(0), []
    for i, photograph in enumerate(photographs()):
        large = np.asarray(photograph.resize(side, Image.Resampling.BICUBIC), np.int16)
        grainy = np.clip(large + rng.integers(-12, 13, large.shape, np.int16), 0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(grainy).save(content, "JPEG", quality=85)
        found.append(data.ImageBytes(content.getvalue(), str(i)))
    return found


def core_seconds(call: Callable[[], Any], rounds: int = 2) -> float:
    """What a call takes of the processor, over all threads; the least of some rounds after one that compiles."""
    jax.block_until_ready(call())
    found = []
    for _ in range(rounds):
        began = time.process_time()
        jax.block_until_ready(call())
        found.append(time.process_time() - began)
    return min(found)


def decoding(images: Sequence[data.ImageBytes]) -> float:
    """Core seconds to decode an image and cut it to 224 pixels."""
    crops = [[pixels.centre_crop]] * len(images)
    return core_seconds(lambda: [None for _ in pixels.batches(images, crops, 224, 32)]) / len(images)


def models() -> tuple[dict[str, float], float, float]:
    """Core seconds of an image in each tower; of a prompt of all classes, and of the texts, for a chunk of images."""
    towers: dict[str, float] = {}
    blank = np.zeros((32, 224, 224, 3), np.uint8)
    encode, predict = (jax.jit(getattr(ClipBlackBox, name)) for name in ("encode_images", "predict"))
    for patch in (32, 16):
        clip = sizes.model(patch)
        box = sizes.black_box(clip, sizes.text_params(clip), CLASSES, image=sizes.image_params(clip))
        towers[f"ViT-B/{patch}"] = core_seconds(functools.partial(encode, box, blank)) / 32
    handle = jax.tree.map(lambda leaf: np.concatenate([leaf] * (labelling.CHUNK // 32)), encode(box, blank))
    texts = (list(map(str, range(CLASSES))) * (1 + TEXTS // CLASSES))[: CLASSES + TEXTS]
    prompt = core_seconds(lambda: predict(box, box.initial_prompt[None], handle))
    return towers, prompt, core_seconds(lambda: box.predict_texts(texts, handle))


def bundled() -> float:
    """Core seconds in which the bundled model labels a photograph of 64 pixels, file to answer, by one prompt."""
    few = data.load(Config().data, seed=1)
    box = blackbox.load("bundled", few.class_names)
    dense = {f"Dense_{i}": {"kernel": np.zeros(wide, np.float32), "bias": np.zeros(wide[1], np.float32)}
             for i, wide in enumerate(((24, 8), (8, 24)))}  # fmt: skip
    tuned = TunedModel(np.asarray(box.initial_prompt), {"params": dense}, box.identity, box.class_names)
    images = [item.image for item in few.test[: labelling.CHUNK]]
    return core_seconds(lambda: labelling.answers(tuned, box, images, top=1, threshold=0)) / len(images)


def row_bytes(folder: Path) -> float:
    """Of an image's row in the output."""
    rng = np.random.default_rng(0)
    answer = [labelling.Answer([(f"class {rng.integers(CLASSES)}", float(p))], "") for p in rng.random(ROWS)]
    items = [reading.Item("s3://bucket/shards/00017.tar", f"{i:09d}.jpg", reading.Unread("", "")) for i in range(ROWS)]
    (folder / output.LABELS).mkdir()
    output.write(folder, "a.parquet", [output.row(item, given) for item, given in zip(items, answer, strict=True)])
    return (folder / output.LABELS / "a.parquet").stat().st_size / ROWS


def listing(folder: Path) -> tuple[float, float, float]:
    """Core seconds to list a file; bytes of memory that a listed path takes, and a unit of work."""
    for i in range(LISTED):
        place = folder / "photographs" / f"{i // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:012d}.jpg").touch()
    seconds = core_seconds(lambda: len(units.find(str(folder / "photographs")).images)) / LISTED
    (folder / "plan").mkdir()
    path_bytes = memory(lambda: units.plan([units.find(str(folder / "photographs"))], folder / "plan")) / LISTED
    shards = [(f"bucket/shards/{i:08d}.tar", 10**9) for i in range(LISTED)]
    found = units.Found("s3://bucket/shards", [], shards)
    unit_bytes = memory(lambda: [unit._asdict() for unit in units.plan([found], folder)]) / LISTED
    return seconds, path_bytes, unit_bytes


def memory(call: Callable[[], Any]) -> float:
    """Bytes at most that Python's objects take while it goes."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def request_bytes() -> float:
    """Of a request with a JPEG of 224 pixels in base64 and all texts."""
    images = [photograph.resize((224, 224), Image.Resampling.BICUBIC) for photograph in photographs()]
    contents = [io.BytesIO() for _ in images]
    for image, content in zip(images, contents, strict=True):
        image.save(content, "JPEG", quality=95)
    return 4 / 3 * float(np.mean([len(content.getvalue()) for content in contents])) + 27.0 * (CLASSES + TEXTS)


def measure() -> Rates:
    """All of it, on this machine."""
    files = {side: files_of(wide) for side, wide in SIDES.items()}
    decode = {side: decoding(images) for side, images in files.items()}
    sizes_of_files = {side: float(np.mean([len(image.content) for image in images])) for side, images in files.items()}
    towers, prompt, texts = models()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        row, (listed, path, unit) = row_bytes(Path(one)), listing(Path(other))
    return Rates(decode, sizes_of_files, towers, prompt, texts, bundled(), row, listed, path, unit, request_bytes())


def digits(number: float) -> str:
    """The two that matter."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def size(count: float) -> str:
    """Bytes to two digits, in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{digits(count)} {unit}"
        count /= 1000
    raise AssertionError


def measured(rates: Rates) -> str:
    """The rates."""
    each = {f"decoding a JPEG of {side} ({size(rates.file_bytes[side])})": rate for side, rate in rates.decode.items()}
    each |= {f"{name}'s image tower": rate for name, rate in rates.tower.items()}
    each["the bundled model, 64-pixel files to labels"] = rates.bundled
    each["listing a file of a local folder"] = rates.listed
    each[f"a soft prompt of {CLASSES} classes, shared by {labelling.CHUNK} images"] = rates.prompt / labelling.CHUNK
    each[f"{CLASSES + TEXTS} texts, whose features are kept"] = rates.texts / labelling.CHUNK
    held = {
        "a listed file in the driver's memory": rates.path_bytes,
        "a shard in the driver's memory": rates.unit_bytes,
        "an image's row in the output": rates.row_bytes,
        f"a request with an image and {CLASSES + TEXTS} texts": rates.request_bytes,
    }
    rows = [[name, f"{digits(1000 * seconds)} ms", f"{digits(1 / seconds)} a second"] for name, seconds in each.items()]
    return (
        table(["an image", "of a core", "a core"], rows)
        + "\n\n"
        + table(["", "bytes"], [[name, size(count)] for name, count in held.items()])
    )


def costs(rates: Rates) -> str:
    """What each number of images costs on CPUs and GPUs."""
    side = next(iter(SIDES))
    kinds = {
        **{f"core hours, {name}": seconds for name, seconds in rates.tower.items()},
        f"core hours, decoding {side}": rates.decode[side],
        "H200 hours, ViT-B/16 in half precision": 1 / H200_IMAGES,
    }
    rows: list[list[Any]] = [
        [name, *(digits(each * n / 3600) for n in SCALES.values())] for name, each in kinds.items()
    ]
    rows.append([f"bytes read, {side}", *(size(rates.file_bytes[side] * n) for n in SCALES.values())])
    rows.append(["bytes written", *(size(rates.row_bytes * n) for n in SCALES.values())])
    shards = [n // ON_A_SHARD for n in SCALES.values()]
    rows.append([f"output files, {ON_A_SHARD:,} images a shard", *(f"{n:,}" for n in shards)])
    rows.append(["driver's memory, shards", *(size(rates.unit_bytes * n) for n in shards)])
    rows.append(["driver's memory, single files", *(size(rates.path_bytes * n) for n in SCALES.values())])
    rows.append(["hours to list single files", *(digits(n * rates.listed / 3600) for n in SCALES.values())])
    return table(["images", *SCALES], rows)


def requests(rates: Rates) -> str:
    """Requests of each form of API, and how long they take."""
    texts = CLASSES + TEXTS
    an_image = {
        "`labels`, `compare`, `rank`": 1.0,
        "the same with `api.texts=100`": float(len(chunks.plan(texts, 100).chunks)),
        "`chat`": float(len(chunks.plan(texts, 20).chunks)),
        "`embeddings`": 1 / 16,
    }
    rows = [
        [
            form,
            f"{each:g}",
            *(digits(n * each) for n in SCALES.values()),
            *(digits(n * each / REQUESTS_A_SECOND / 86400) for n in SCALES.values()),
        ]
        for form, each in an_image.items()
    ]
    head = ["form", "an image", *SCALES, *(f"days, {name}" for name in SCALES)]
    sent = ", ".join(f"{size(rates.request_bytes * n)} for {name}" for name, n in SCALES.items())
    return (
        f"Requests for {texts} texts about each image, and days at {REQUESTS_A_SECOND} requests a second. With one "
        f"request an image {sent} are sent.\n\n{table(head, rows)}"
    )


def gives_way(rates: Rates) -> str:
    """What one H200 would need beside it, and where memory ends."""
    rows = [
        [
            side,
            f"{digits(H200_IMAGES * rates.decode[side])} cores",
            f"{8 * H200_IMAGES * rates.file_bytes[side] / 1e9:.1f} Gbit/s",
        ]
        for side in SIDES
    ]
    return (
        f"To keep an H200 busy with {H200_IMAGES:,} images a second, beside it are needed\n\n"
        f"{table(['JPEGs of', 'decoding', 'network'], rows)}\n\n64 GB of memory hold a list of "
        f"{digits(64e9 / rates.path_bytes)} single files, or {digits(64e9 / rates.unit_bytes)} shards."
    )


def page(rates: Rates, load: float) -> str:
    """The results as Markdown."""
    cores = len(os.sched_getaffinity(0))
    busy = " Other jobs kept it busy: times are upper bounds." if load > 0.5 * cores else ""
    return "\n\n".join(
        [
            "# Labelling at scale",
            f"`python -m benchmarks.labelling` on {cores} {platform.machine()} cores, JAX {jax.__version__} on "
            f"{jax.default_backend()}, float32; load average before it {load:.1f}.{busy} ViT-B has random weights. The "
            f"H200's rate is [the one measured there](gpu_h200.md): {H200_IMAGES:,} images a second is PyTorch's "
            "ViT-B/16 image tower in float16, for want of our own there.",
            measured(rates),
            f"With {CLASSES} classes and {TEXTS} more texts, as the default asks, which cost an image nothing more:",
            costs(rates),
            requests(rates),
            gives_way(rates),
        ]
    )


def main() -> None:
    """Measures, prints and writes the page."""
    load = os.getloadavg()[0]
    text = page(measure(), load) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
