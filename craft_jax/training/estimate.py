"""What a run will ask of its black box, told before it asks: images, texts, prompts, and what they take over HTTP.

An upper bound by counting; what a request weighs, and how much was answered before, by a sample of the images.
"""

from collections.abc import Sequence

import numpy as np

from craft_jax.blackbox import BlackBox, Estimate, captions, cost_of
from craft_jax.config import TEXTS_ALONE, Config
from craft_jax.data import FewShotSet, Labelled, hold_out, pixels
from craft_jax.training import assembly, probing

_SAMPLE = 24  # images


def estimate(black_box: BlackBox, dataset: FewShotSet, config: Config) -> list[str]:
    """What a run asks at most, a line each.

    Args:
      black_box: set up for `dataset.class_names`; it is not asked.
      dataset: with the shots drawn.
      config: the settings.

    Raises:
      UserError: where a photograph of the sample cannot be read, or the settings ask what the black box does not take.
    """
    assembly.check_takes(black_box, config)
    kept, held_out = hold_out(dataset, config.held_out, config.seed)
    views, pieces = assembly.views_of(config)
    images = len(kept.train) * (views + pieces) + len(held_out) + len(kept.test)
    texts = probing.to_ask(black_box, config.probe.texts, config.budget, config.seed) if config.probe.texts else []
    steps = 0 if config.learn in TEXTS_ALONE else (config.budget - config.calibration_prompts) // _population(config)
    shots = f"{len(kept.train)} to learn from" + (f" in {views + pieces} views" if views + pieces > 1 else "")
    lines = [
        f"{images:,} images ({shots}, {len(held_out)} to choose by, {len(kept.test)} to test on) x "
        f"{len(texts) or len(dataset.class_names):,} texts"
    ]
    if steps:
        lines.append(f"{config.budget:,} prompts in all, in {steps:,} steps of {_population(config)}")
    sample = _sample([*kept.train, *held_out, *kept.test], black_box)
    plain = captions(black_box, black_box.class_names)
    cost = cost_of(black_box, texts or plain, sample, images)
    if cost is None:
        return [*lines, "nothing of it is billed: the model is on this machine"]
    if texts and cost.later > 1:  # zero-shot, which is asked of the test images first, is no part of a longer question
        first = cost_of(black_box, plain, sample, len(kept.test))
        assert first is not None
        cost = cost._replace(requests=cost.requests + first.requests, size=cost.size + first.size)
    return [*lines, *_bill(cost, steps)]


def _population(config: Config) -> int:
    return config.search.population_size


def _bill(cost: Estimate, steps: int) -> list[str]:
    """What it takes over HTTP; a step asks once about its candidates and once about the prompt that they lead to."""
    requests = cost.requests + 2 * steps
    tokens = f", perhaps {float(f'{cost.tokens:.2g}'):,.0f} tokens" if cost.tokens else ""
    price = cost.ceilings.price(requests, cost.tokens)
    lines = [
        f"at most {requests:,} requests, about {cost.size / 1e6:,.1f} MB{tokens}; "
        + (f"{price:,.2f} at the prices set" if price else "no price is set (api.price_request, api.price_1000_tokens)")
    ]
    if cost.answered:
        lines.append(f"of a sample of the images {cost.answered:.0%} were answered before, and cost nothing now")
    lines.append(f"an image labelled later: {cost.later:,} {'request' if cost.later == 1 else 'requests'}")
    before, most = cost.before, cost.ceilings.requests
    if most:
        room = "covers" if before.requests + requests * (1 - cost.answered) <= most else "does not cover"
        lines.append(f"api.max_requests={most} {room} that: {before.requests} were sent since {before.since}")
    return lines


def _sample(items: Sequence[Labelled], black_box: BlackBox) -> np.ndarray:
    """Centre crops of images from all over a list, [n, size, size, 3]."""
    places = np.unique(np.linspace(0, len(items) - 1, _SAMPLE).round().astype(int))
    images = [items[place].image.open() for place in places]
    return np.stack([np.asarray(pixels.centre_crop(im, black_box.image_size, black_box.resizing)) for im in images])
