"""Texts alone, as an API answers them: what views are worth their requests, and what each rounding costs.

    python -m benchmarks.texts_alone

Whole runs of the recipes `api` and `probe` on the bundled task, 1, 4 and 16 shots, seeds 1 to 3. The bundled CLIP
answers in this process; its answers are rounded, cut short and split over requests as an API's, and go through what
treats an API's (craft_jax/blackbox/apis). Finished runs are kept under runs/texts_alone. Writes
benchmarks/results/texts_alone.md. A quarter of an hour on two cores.
"""

import dataclasses
import io
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.search import tasks
from craft_jax import blackbox, training
from craft_jax.blackbox import BlackBox, features_of, remote
from craft_jax.blackbox.apis.labels import ZeroShot
from craft_jax.blackbox.apis.messages import Picture, Request
from craft_jax.blackbox.apis.scoring import ScoringOwner
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.meter import Ledger
from craft_jax.config import ApiConfig, Config, recipes
from craft_jax.files import write_atomically

TASK, SHOTS, SEEDS = "caltech24", (1, 4, 16), (1, 2, 3)
RUNS = Path("runs/texts_alone")
PAGE = Path(__file__).parent / "results" / "texts_alone.md"


class Way(NamedTuple):
    """How an API answers, and how it is asked.

    Attributes:
      views: of each training image, a request each.
      logit_scale: of the softmax; 0 for the model's own.
      decimals: that probabilities are rounded to; 0 for none.
      top: labels in an answer, the likeliest; 0 for all.
      texts: in a request; 0 for all.
    """

    views: int
    logit_scale: float = 0.0
    decimals: int = 0
    top: int = 0
    texts: int = 0


AS_THEY_ARE = (Way(1), Way(8))
ROUNDED = {
    texts: [Way(8, 100.0, decimals, texts=texts) for decimals in ((0, 6, 4, 3) if not texts else (4, 3))]
    for texts in (0, 262, 100, 20)
}
CUT = [Way(8, 100.0, top=top) for top in (100, 20, 5)]


class InProcess:
    """The bundled CLIP in the place of an API's client: answers what `Form.request` of `Spoilt` holds."""

    address = "the bundled CLIP"
    sent = Ledger()

    def __init__(self, model: BlackBox, way: Way) -> None:
        self._model, self._way = model, way
        self._features: dict[bytes, Any] = {}
        self._answers: dict[tuple[str, ...], dict[bytes, np.ndarray]] = {}

    def know(self, pictures: Sequence[Picture], pixels: np.ndarray) -> None:
        """Encodes images that will be asked about."""
        rows = np.asarray(self._model.encode_images(jnp.asarray(pixels)))
        self._features |= {one.digest: row for one, row in zip(pictures, rows, strict=True)}

    def ask(self, request: Any, read: Callable[[Any], np.ndarray]) -> np.ndarray:
        """The scores of one image."""
        digest, texts = request
        answers = self._answers.setdefault(texts, {})
        if digest not in answers:
            answers |= self._scores(texts, [other for other in self._features if other not in answers])
        return answers[digest]

    def each(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Carries out all of them."""
        for job in jobs:
            job()

    def _scores(self, texts: tuple[str, ...], digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        handle = jnp.stack([self._features[digest] for digest in digests])
        logits = np.asarray(self._model.predict_texts(texts, handle), np.float64)
        if self._way.logit_scale:
            logits *= self._way.logit_scale / features_of(self._model).scale
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        if self._way.top:
            least = np.sort(scores, axis=1)[:, -min(self._way.top, scores.shape[1])][:, None]
            scores = np.where(scores >= least, scores, np.nan)
        if self._way.decimals:
            scores = scores.round(self._way.decimals)
        return dict(zip(digests, scores, strict=True))


class Spoilt(ZeroShot):
    """Hugging Face's form, without its JSON."""

    def request(self, picture: Picture, texts: Sequence[str]) -> Request:
        """The image's digest and the texts, for `InProcess`."""
        return (picture.digest, tuple(texts))  # type: ignore[return-value]


class Owner(ScoringOwner):
    """See `ScoringOwner`; encodes images when they come."""

    def encode_images(self, images: np.ndarray) -> list[Picture]:
        """PNG files."""
        pictures = super().encode_images(images)
        self._client.know(pictures, images)  # type: ignore[attr-defined]
        return pictures


def recipe_of(way: Way) -> str:
    """`api` asks about each image as it is, `probe` about views."""
    return "api" if way.views == 1 else "probe"


def accuracy(way: Way, shots: int, seed: int) -> float:
    """Test accuracy of a whole run in percent; a finished one is read back."""
    file = RUNS / f"{'-'.join(map(str, way))}-{shots}-shots-seed-{seed}.json"
    if file.exists():
        return float(json.loads(file.read_text(encoding="utf-8")))
    config = recipes.apply(Config(), recipe_of(way))
    config = dataclasses.replace(
        config, seed=seed, data=dataclasses.replace(tasks.settings(TASK, shots), views=way.views)
    )
    dataset = tasks.draw(TASK, shots, seed)
    model = blackbox.load("bundled", dataset.class_names)
    api = ApiConfig(image_format="png", image_size=model.image_size, texts=way.texts, top=way.top)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "answers.sqlite")
        client: Any = InProcess(model, way)
        owner = Owner(Spoilt(client.address), client.address, client, store, api, lambda line: None)
        black_box = remote.connect(
            owner,  # type: ignore[arg-type]  # it has no soft side
            dataset.class_names,
            image_size=model.image_size,
            name=f"{client.address} {way}",
        )
        found = training.train(black_box, dataset, config, Path(folder) / "run", stream=io.StringIO()).result
        store.close()
    jax.clear_caches()
    RUNS.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(found.accuracy))
    print(f"{way}, {shots} shots, seed {seed}: {found.accuracy:.1f} %", flush=True)
    return found.accuracy


def reached(way: Way) -> str:
    """The means over the seeds, at each number of shots."""
    means = [statistics.mean(accuracy(way, shots, seed) for seed in SEEDS) for shots in SHOTS]
    return " / ".join(f"{mean:.1f}" for mean in means)


def page() -> Iterator[str]:
    """What is committed."""
    yield (
        f"Test accuracy in percent on the bundled task at {' / '.join(map(str, SHOTS))} shots, means of seeds "
        f"{SEEDS[0]} to {SEEDS[-1]}; {Config().probe.texts} texts. `python -m benchmarks.texts_alone`."
    )
    yield ""
    yield "| requests a training image | recipe | probabilities as they are |"
    yield "|---|---|---|"
    for way in AS_THEY_ARE:
        yield f"| {way.views} | `{recipe_of(way)}` | {reached(way)} |"
    yield ""
    yield "At a logit scale of 100 and 8 views:"
    yield ""
    yield "| texts a request | not rounded | 6 decimals | 4 decimals | 3 decimals |"
    yield "|---|---|---|---|---|"
    for texts, ways in ROUNDED.items():
        cells = {way.decimals: reached(way) for way in ways}
        yield f"| {texts or 'all'} | {' | '.join(cells.get(decimals, '') for decimals in (0, 6, 4, 3))} |"
    yield ""
    yield "| labels in an answer, the likeliest | not rounded |"
    yield "|---|---|"
    for way in CUT:
        yield f"| {way.top} | {reached(way)} |"


def main() -> None:
    """Runs what is missing, and writes the page."""
    text = "\n".join(page()) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
