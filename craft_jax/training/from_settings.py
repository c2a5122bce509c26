"""From settings to what a step does: prompt generator, search, head and weights, and where it starts."""

import jax
import jax.numpy as jnp
import optax

from craft_jax.blackbox import SOFT_PROMPTS, Described, Handle, Ledger, Metered, check_finite
from craft_jax.config import GAUSS_NEWTON, Config
from craft_jax.method import Method, TuningState, calibration, divergence, estimators, prompt, refinement
from craft_jax.randomness import Stream, stream_key

_CHUNK_BYTES = 2 * 2**30
_LIVE_COPIES = 4  # logits, refined logits and their softmaxes live at once
_FILLING_CAPTIONS = 8192  # that keep an accelerator busy
_ANSWERS = 2**22  # numbers that a prompt answers in a step of Gauss-Newton, which keeps those of all prompts


def prompt_std(black_box: Metered, views: Handle, config: Config) -> float:
    """The prompt's `std`: as set, or measured by the first queries."""
    if SOFT_PROMPTS not in black_box.takes:
        return 0.0
    if config.prompt.std or not config.calibration_prompts:
        return config.prompt.std or float(jnp.sqrt(jnp.mean(black_box.initial_prompt**2)))
    shown = calibration.evenly_spaced(jax.tree.leaves(views)[0].shape[1])
    handle = jax.tree.map(lambda leaf: leaf[0, shown], views)
    images = jax.tree.leaves(handle)[0].shape[0]
    asked = config.calibration_prompts
    cost = Ledger(prompts=asked, search_predictions=asked * images)
    key, classes = stream_key(config.seed, Stream.CALIBRATION), classes_apart(black_box, config)
    prompts = calibration.perturbed(key, black_box.initial_prompt, classes)
    ask = black_box.program(
        lambda asked: lambda: jnp.concatenate([asked.predict(one[None], handle) for one in prompts])
    )
    answers = ask(cost)
    check_finite(answers, black_box)
    settings = config.prompt
    moved = prompt.movement(settings.context, intrinsic_dim=settings.intrinsic_dim, rank=settings.rank)
    return calibration.scale(black_box.initial_prompt, answers) / moved


def fits_whole_answers(config: Config) -> bool:
    """Whether prompts are fitted to the probes' head."""
    return config.search.estimator == GAUSS_NEWTON and config.learn in ("both", "prompt")


def build_generator(black_box: Described, config: Config, std: float) -> prompt.PromptGenerator:
    """The map from z to soft prompts that the settings name, in units of `std`."""
    settings, start = config.prompt, black_box.initial_prompt
    key = stream_key(config.seed, Stream.PROJECTION)
    if settings.context == "full":
        return prompt.full(start, std=std)
    if settings.context == "low-rank":
        return prompt.low_rank(key, start, intrinsic_dim=settings.intrinsic_dim, std=std, rank=settings.rank)
    if settings.context not in ("unified", "class"):
        raise ValueError(f"prompt.context={settings.context} has no generator here")
    classes = classes_apart(black_box, config)
    return prompt.linear(
        key, start, intrinsic_dim=settings.intrinsic_dim, std=std, bound=settings.bound, classes=classes
    )


def classes_apart(black_box: Described, config: Config) -> int:
    """C where each class has a soft prompt of its own, 0 where they share one."""
    return len(black_box.class_names) if config.prompt.context == "class" else 0


def build_method(
    config: Config,
    generator: prompt.PromptGenerator,
    views: Handle,
    labelled_views: int,
    classes: int,
    steps: int,
    devices: int,
) -> Method:
    """The step's search, head and weights, for V views of N training images of C classes."""
    search, head = config.search, config.refinement
    shown, images = jax.tree.leaves(views)[0].shape[:2]
    whole, scheduled = fits_whole_answers(config), max(steps, 1)
    epoch = refinement.batches_in_epoch(images, head.batch_size)
    pairs = -(-search.population_size // 2)
    return Method(
        search=estimators.build(search, stream_key(config.seed, Stream.DIRECTIONS), generator.origin, scheduled),
        refinement=refinement.build(
            hidden=head.hidden,
            dropout=head.dropout,
            mixup=head.mixup,
            tx=optax.adam(optax.cosine_decay_schedule(head.learning_rate, scheduled * head.epochs * epoch)),
            batch_size=head.batch_size,
            linear=whole,
        ),
        learn_prompt=config.learn in ("both", "prompt"),
        learn_head=config.learn in ("both", "refinement"),
        refined_share={"refined": 1.0, "both": 0.5, "prompt": 0.0}[search.fitness],
        white_box=search.estimator == "white-box",
        guarded=search.guarded and not whole,
        query_images=_answering(search.query_images, shown * images, classes)
        if whole
        else min(search.query_images, images),
        labelled_views=labelled_views,
        epochs=head.epochs if config.learn != "prompt" else 1,
        consistency=config.consistency.weight,
        head_consistency_steps=round(config.consistency.head_share * scheduled),
        chunk_pairs=config.run.chunk_pairs or chunk_pairs(pairs, images, classes),
        devices=devices,
    )


def _answering(asked: int, views: int, classes: int) -> int:
    """How many views answer a step of Gauss-Newton, whose answers must fit the memory; 0 for all."""
    most = max(_ANSWERS // classes, 1)
    rows = min(asked or views, most)
    return rows if rows < views else 0


def chunk_pairs(pairs: int, images: int, classes: int) -> int:
    """Pairs to evaluate at once: as many as a share of memory holds, and few enough for eight devices to have work.

    On a CPU a pair of 100 classes, some 700 tokens, already fills the matrix units, and the caches like it no larger.
    An accelerator needs thousands of captions to be busy. The number must not depend on how many devices there are, or
    their bits would.
    """
    if jax.default_backend() == "cpu":
        return max(1, min(-(-pairs // 8), 100 // classes))
    filling = min(pairs, -(-_FILLING_CAPTIONS // (2 * classes)))
    logits_of_pair = 2 * images * classes * 4
    return max(1, min(max(-(-pairs // 8), filling), _CHUNK_BYTES // (_LIVE_COPIES * logits_of_pair)))


def initial_state(method: Method, generator: prompt.PromptGenerator, config: Config, classes: int) -> TuningState:
    """Where a run starts: the unlearnt prompt and an untrained head."""
    return TuningState(
        search=method.search.init(generator.origin),
        guard=divergence.init(generator.origin),
        head=method.refinement.init(stream_key(config.seed, Stream.HEAD_INIT), classes),
        step=jnp.zeros((), jnp.int32),
    )
