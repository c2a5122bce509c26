"""One query's text side at ViT-B size by number of classes: ours against the published way, and how far they differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import baseline, problem, sizes, timing
from craft_jax.training import from_settings

Row = dict[str, float]
_SECONDS_A_CLASS = 0.05  # rough, of the baseline: says how many of its turns are bearable
_ROWS = 200  # prompts x classes that ours answers in a call: as short as a matrix product, whose best is compared


def measure(clip: Any, params: Any, classes: int) -> Row:
    """Both contenders and the machine's matrix rate, taking turns.

    Ours answers a few chunks of candidates in one call, as a step does; the published way one prompt at a time.
    """
    black_box = sizes.black_box(clip, params, classes)
    chunk = 2 * from_settings.chunk_pairs(problem.SETTINGS.search.population_size // 2, images=1600, classes=classes)
    chunks = max(1, _ROWS // (chunk * classes))
    prompts = jnp.broadcast_to(sizes.words(params), (chunks, chunk, sizes.N_CTX, sizes.TEXT.hidden_size))
    features = jax.jit(lambda black_box, prompts: jax.lax.map(black_box._text.features, prompts))
    published = baseline.text_query(params, sizes.captions(classes))
    with jax.default_matmul_precision("float32"):
        # Our cheap turns are taken many times for each of the baseline's: the best of a few would be luck.
        quick = {"ours": lambda: features(black_box, prompts), **timing.gemm_contenders()}
        expected = baseline.normalised(published())
        turns = [
            {"published": timing.seconds(published)} | timing.best(quick, rounds=8 if classes > 100 else 32)
            for _ in range(max(1, min(3, round(15 / (_SECONDS_A_CLASS * classes)))))
        ]
        error = np.abs(np.asarray(features(black_box, prompts)[0, 0]) - expected).max()
    times = {name: min(turn[name] for turn in turns) for name in turns[0]}
    ours, rate = times["ours"] / (chunks * chunk), timing.gemm_rate(times)
    return {
        "classes": classes,
        "ours": ours,
        "baseline": times["published"],
        "error": float(error),
        "share": sizes.useful_flops(classes) / ours / rate,
        "baseline_share": sizes.published_flops(classes) / times["published"] / rate,
        "less_work": sizes.published_flops(classes) / sizes.useful_flops(classes),
        "bound": times["published"] * rate / sizes.useful_flops(classes),
        "gemm_gflops": rate / 1e9,
    }
