"""What a run will ask of its black box, told before it asks: images, texts, prompts, and what they take over HTTP.

An upper bound by counting; what a request weighs, and how much was answered before, by a sample of the images.
"""

from collections.abc import Sequence

import numpy as np

from craft_jax.blackbox import BlackBox, Estimate, captions, cost_of, is_remote, prompts_for
from craft_jax.config import ASKS_CHAT, TEXTS_ALONE, Config
from craft_jax.data import FewShotSet, Labelled, hold_out, pixels
from craft_jax.training import assembly, probing

_SAMPLE = 24  # images
_NOTHING = "nothing of it is billed: the model is on this machine"


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
    views, pieces = assembly.views_of(config, len(kept.train))
    images = len(kept.train) * (views + pieces) + len(held_out) + len(kept.test)
    times = f" x {views + pieces}" if views + pieces > 1 else ""
    counted = (
        f"{images:,} images ({len(kept.train):,}{times} to learn from, {len(held_out):,} to choose by, "
        f"{len(kept.test):,} to test on)"
    )
    sample = _sample([*kept.train, *held_out, *kept.test], black_box)
    if config.learn == "texts":
        trained = len(kept.train) * views
        return [
            counted,
            *_asked_in_words(config, black_box),
            *_bill_of_words(black_box, config, sample, trained, images),
        ]
    texts = probing.to_ask(black_box, config.probe.texts, config.budget, config.seed) if config.probe.texts else []
    most = "" if is_remote(black_box.identity) else "at most "  # a local one is asked until nothing new comes back
    of_each = f"; of one to learn from {views:,} views" + (f" and {pieces:,} pieces" if pieces else "") if times else ""
    lines = [counted, f"{most if texts else ''}{len(texts) or len(dataset.class_names):,} texts about each{of_each}"]
    by_texts = prompts_for(len(texts), len(dataset.class_names)) if texts else 0
    steps = assembly.steps_after(config, by_texts)
    if config.learn not in TEXTS_ALONE:
        before = f"{most}{by_texts:,} for the texts, the rest in " if texts else ""
        least = "at least " if texts and most else ""
        lines.append(f"{config.budget:,} prompts in all: {before}{least}{steps:,} steps of {_population(config)}")
    plain = captions(black_box, black_box.class_names)
    cost = cost_of(black_box, texts or plain, sample, images)
    if cost is None:
        return [*lines, _NOTHING]
    if texts and cost.later > 1:  # zero-shot, which is asked of the test images first, is no part of a longer question
        first = cost_of(black_box, plain, sample, len(kept.test))
        assert first is not None
        cost = cost._replace(requests=cost.requests + first.requests, size=cost.size + first.size)
    return [*lines, *_bill(cost, steps)]


def _rounds(config: Config) -> int:
    """Of a search over texts, at most; a language model may need as many as it may be called."""
    settings = config.language
    rounds = -(-max(settings.wordings - settings.start, 0) // settings.each_round)
    return 1 + (max(rounds, config.chat.calls) if settings.proposer in ASKS_CHAT else rounds)


def _asked_in_words(config: Config, black_box: BlackBox) -> list[str]:
    """What a search over texts asks at most."""
    settings, chat = config.language, config.chat
    texts = settings.wordings * len(black_box.class_names)
    lines = [f"of those to learn from {texts:,} texts, {settings.wordings:,} for each class, are asked"]
    if settings.proposer in ASKS_CHAT:
        lines.append(
            f"at most {chat.calls} calls of the language model {chat.model} at {chat.address}, {chat.reply_tokens} "
            "tokens a reply"
        )
    return lines


def _bill_of_words(black_box: BlackBox, config: Config, sample: np.ndarray, trained: int, images: int) -> list[str]:
    """What a search over texts takes over HTTP: each round's texts, and those of the models; others stand for them."""
    plain = captions(black_box, black_box.class_names)

    def texts(times: int) -> list[str]:
        return [*plain, *(f"{caption} {number}" for number in range(times) for caption in plain)]

    settings, classes = config.language, len(plain)
    rounds, asked = _rounds(config), images - trained
    each = -(-settings.wordings // rounds)
    deployed = -(-config.probe.texts // classes)
    parts = [(texts(each), trained * rounds), (plain, 2 * asked), (texts(deployed), 2 * asked)]
    costs = [cost_of(black_box, of, sample, times) for of, times in [*parts, (texts(settings.wordings), asked)]]
    known = [cost for cost in costs if cost is not None]
    if not known:
        return ["the model that answers texts is on this machine, and bills nothing"]
    whole = known[-1]._replace(
        requests=sum(cost.requests for cost in known),
        size=sum(cost.size for cost in known),
        tokens=sum(cost.tokens for cost in known),
    )
    return _bill(whole, 0)


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
