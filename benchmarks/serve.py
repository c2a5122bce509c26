"""How many requests a second the server answers, with 1, 4 and 16 of them in flight, beside the model asked directly.

    python -m benchmarks.serve [--model=bundled] [--requests=400] [--words=500] [--address=http://...]

A minute on two cores, which clients and server share. Starts a server in a process of its own, or asks the one at
--address (its token in CRAFT_JAX_SERVE_TOKEN). Every request brings an image that the server has not seen. Writes
benchmarks/results/serve.md where it started the server.
"""

import argparse
import base64
import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image

from craft_jax import blackbox

RESULTS = Path(__file__).parent / "results"
IN_FLIGHT = (1, 4, 16)
SIDE = 224  # of the images sent, in pixels
TOKEN = "CRAFT_JAX_SERVE_TOKEN"

Ask = Callable[[httpx.Client, bytes], httpx.Response]


class Measured(NamedTuple):
    """Requests a second, and milliseconds that one takes: the median and the one that 95 of 100 stay below."""

    a_second: float
    median: float
    slow: float


def images(count: int, seed: int) -> list[bytes]:
    """JPEG files of random pixels, each another: smooth ones, of a photograph's size in bytes."""
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
        content = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        files.append(content.getvalue())
    return files


def forms(texts: Sequence[str]) -> dict[str, Ask]:
    """The ways to ask that are measured, each about one image."""

    def scores(client: httpx.Client, image: bytes) -> httpx.Response:
        parameters = {"candidate_labels": texts, "hypothesis_template": "{}"}
        return client.post("/", json={"inputs": base64.b64encode(image).decode(), "parameters": parameters})

    def embedding(client: httpx.Client, image: bytes) -> httpx.Response:
        uri = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
        return client.post("/v1/embeddings", json={"input": [uri], "modality": "image", "encoding_format": "base64"})

    return {f"scores of {len(texts)} labels": scores, "an embedding": embedding}


def measure(client: httpx.Client, ask: Ask, images: Sequence[bytes], in_flight: int) -> Measured:
    """Asks about every image."""

    def timed(image: bytes) -> float:
        started = time.perf_counter()
        ask(client, image).raise_for_status()
        return 1000 * (time.perf_counter() - started)

    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as pool:
        taken = list(pool.map(timed, images))
    passed = time.perf_counter() - started
    return Measured(len(images) / passed, float(np.median(taken)), float(np.percentile(taken, 95)))


def directly(model: str, images: int = 16, repeats: int = 10) -> float:
    """Images a second that the model encodes in this process, in batches of 16."""
    owned = blackbox.Owned(model)
    batch = np.zeros((images, owned.image_size, owned.image_size, 3), np.uint8)
    owned.images(batch)
    started = time.perf_counter()
    for _ in range(repeats):
        owned.images(batch)
    return images * repeats / (time.perf_counter() - started)


@contextlib.contextmanager
def _server(model: str) -> Iterator[str]:
    command = [sys.executable, "-m", "craft_jax.serve", f"--model={model}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        line = child.stdout.readline()
        if not line:
            sys.exit("the server did not start")
        try:
            yield line.split()[-1]
        finally:
            child.terminate()


def table(rows: dict[tuple[str, int], Measured]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| asked for | in flight | requests a second | ms, median | ms, 95 of 100 below |",
        "|---|---|---|---|---|",
    ]
    for (name, in_flight), row in rows.items():
        lines.append(f"| {name} | {in_flight} | {row.a_second:.0f} | {row.median:.0f} | {row.slow:.0f} |")
    return "\n".join(lines)


def run(address: str, requests: int, words: int) -> dict[tuple[str, int], Measured]:
    """Every form with every number of requests in flight."""
    texts = [f"a photo of a thing number {i}" for i in range(words + 24)]
    token = os.environ.get(TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = httpx.Limits(max_connections=max(IN_FLIGHT))
    rows = {}
    with httpx.Client(base_url=address, headers=headers, timeout=600, limits=limits) as client:
        for form, (name, ask) in enumerate(forms(texts).items()):
            for in_flight in IN_FLIGHT:
                seed = 1000 * form + in_flight
                measure(client, ask, images(4 * in_flight, seed + 500), in_flight)  # compiles
                rows[name, in_flight] = measure(client, ask, images(requests, seed), in_flight)
                print(f"{name}, {in_flight} in flight: {rows[name, in_flight].a_second:.0f} a second", flush=True)
    return rows


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark that the command line describes."""
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="bundled", help="as black_box.model takes it")
    parser.add_argument("--requests", type=int, default=400, help="of each measurement")
    parser.add_argument("--words", type=int, default=500, help="labels beside 24 class names")
    parser.add_argument("--address", help="of a server that runs already")
    given: Any = parser.parse_args(argv)
    if given.address:
        print(table(run(given.address, given.requests, given.words)))
        return
    load = os.getloadavg()[0]
    with _server(given.model) as address:
        rows = run(address, given.requests, given.words)
    shown = (
        f"Measured by `python -m benchmarks.serve --model={given.model}` on {os.cpu_count()} cores, which clients and "
        f"server share; {given.requests} requests each, with a JPEG of {SIDE} px new to the server. Load average "
        f"before it {load:.1f}.\n\n{table(rows)}\n\n"
        f"The model alone encodes {directly(given.model):.0f} images a second in batches of 16.\n"
    )
    (RESULTS / "serve.md").write_text(shown, encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    main(sys.argv[1:])
