"""From settings to the parts of a run: encoded images, prompt generator, search, head, devices.

The last place that sees the whole configuration, beside the loop.
"""

from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from craft_jax import evaluation
from craft_jax.blackbox import BlackBox, Handle, Ledger, Meter, check_finite, interface, is_remote, sent_to
from craft_jax.config import Config
from craft_jax.data import FewShotSet, hold_out
from craft_jax.distributed import devices, hosts
from craft_jax.encoding import Encoder, feature_cache
from craft_jax.errors import UserError
from craft_jax.method import (
    Method,
    Problem,
    TuningState,
    calibration,
    candidates,
    collaborative,
    divergence,
    estimators,
    prompt,
    refinement,
)
from craft_jax.randomness import Stream, stream_key

_CHUNK_BYTES = 2 * 2**30
_SHARE_OF_MEMORY = 4  # encoded images that would fill more than a quarter of a device are split
_LIVE_COPIES = 4  # logits, refined logits and their softmaxes live at once


class Run(NamedTuple):
    """Everything that the loop needs.

    Attributes:
      config: the settings.
      problem: what the step looks at, its views in the host's memory until `place` puts them on the devices.
      prompt_std: the prompt's `std`, as set or measured.
      method: what the step does.
      state: where it starts.
      cost_of_step: what it asks of the black box.
      spread: the devices.
      meter: stands before every query.
      held_out, held_out_labels: encoded images to choose by; None where there are none.
      test, test_labels: encoded test images, for measuring alone.
    """

    config: Config
    problem: Problem
    prompt_std: float
    method: Method
    state: TuningState
    cost_of_step: Ledger
    spread: devices.Spread
    meter: Meter
    held_out: Handle | None
    held_out_labels: Array
    test: Handle
    test_labels: Array


def assemble(
    black_box: BlackBox,
    dataset: FewShotSet,
    config: Config,
    measured_std: float = 0.0,
    stream: TextIO | None = None,
) -> Run:
    """Encodes the images and builds the parts.

    Args:
      black_box: set up for `dataset.class_names`.
      dataset: with the shots drawn.
      config: the settings.
      measured_std: what the first queries of a run that is resumed have found; 0 asks them where the settings want it.
      stream: where host 0 shows how far encoding is; None shows nothing.

    Raises:
      UserError: where the classes differ, devices are too few, a photograph cannot be read, or the settings ask what a
        remote black box cannot do.
    """
    if black_box.class_names != dataset.class_names:
        raise UserError("the black box and the photographs have different classes; load it with their class_names")
    estimators.check_installed(config.search)
    remote = is_remote(black_box.identity)
    if remote:
        _check_remote(config)
    spread = devices.Spread(devices.choose(1 if remote else config.run.devices))
    meter = Meter(config.budget, sent=sent_to(black_box))
    # What stands for an image is an owner's business, and may not outlive this process.
    cache = feature_cache.default_folder() if config.run.reuse_features and not remote else None
    dataset, held_out = hold_out(dataset, config.held_out, config.seed)
    train, choices, test = ([item.image for item in part] for part in (dataset.train, held_out, dataset.test))
    encoder = Encoder(black_box, meter, cache, spread, stream if hosts.is_first() else None, [*train, *choices, *test])
    views = encoder.training_views(train, views=config.data.views, seed=config.seed)
    held_out_handle = jax.device_put(encoder.centre_crops(choices)) if choices else None
    test_handle = jax.device_put(encoder.centre_crops(test))
    std = measured_std or hosts.first_alone(lambda: _std(black_box, views, config, meter))
    generator = build_generator(black_box, config, std)
    method = build_method(config, generator, len(train), len(black_box.class_names), len(spread.devices))
    if hosts.any_of(_splits_images(config.run.shard_images, views, spread.own[0])):
        method = method._replace(draw_views=candidates.draw_from_shares)
    if remote and not config.run.chunk_pairs:
        method = method._replace(chunk_pairs=-(-config.search.population_size // 2))
    return Run(
        config=config,
        problem=Problem(
            black_box=black_box,
            generator=generator,
            views=views,
            labels=evaluation.labels_of(dataset.train),
            seed_key=jax.random.key(config.seed),
        ),
        prompt_std=std,
        method=method,
        state=initial_state(method, generator, config, len(black_box.class_names)),
        cost_of_step=collaborative.cost_of_step(method, config.search.population_size, len(train)),
        spread=spread,
        meter=meter,
        held_out=held_out_handle,
        held_out_labels=evaluation.labels_of(held_out),
        test=test_handle,
        test_labels=evaluation.labels_of(dataset.test),
    )


def _check_remote(config: Config) -> None:
    """Raises UserError where the settings ask what a remote black box cannot do."""
    if hosts.several() or config.run.devices > 1:
        raise UserError(
            "a remote black box is asked from one device of one host; set run.devices=1 and start one process"
        )
    if config.search.estimator == "white-box":
        raise UserError("search.estimator=white-box takes a gradient, which a remote black box does not give")


def place(run: Run) -> tuple[Problem, Any]:
    """The problem on the devices, and which of its axes are split over them, as `Spread.compile` takes it."""
    if run.method.draw_views is interface.draw_views:
        return run.spread.replicate(run.problem), None
    whole = run.problem.replace(views=None)
    placed = run.spread.replicate(whole).replace(views=run.spread.split(run.problem.views, axis=1))
    return placed, Problem(black_box=None, generator=None, views=0, labels=None, seed_key=None)  # type: ignore[arg-type]


def _splits_images(setting: str, views: Handle, device: jax.Device) -> bool:
    if setting != "auto":
        return setting == "yes"
    memory: int = (device.memory_stats() or {}).get("bytes_limit", 0)  # a CPU tells none, and its devices share it
    return memory > 0 and sum(leaf.nbytes for leaf in jax.tree.leaves(views)) > memory // _SHARE_OF_MEMORY


def _std(black_box: BlackBox, views: Handle, config: Config, meter: Meter) -> float:
    """The prompt's `std`: as set, or measured by the first queries."""
    if config.prompt.std or config.learn == "refinement":
        return config.prompt.std
    shown = calibration.evenly_spaced(jax.tree.leaves(views)[0].shape[1])
    handle = jax.tree.map(lambda leaf: leaf[0, shown], views)
    images = jax.tree.leaves(handle)[0].shape[0]
    asked = config.calibration_prompts
    meter.admit(Ledger(prompts=asked, search_predictions=asked * images))
    key, classes = stream_key(config.seed, Stream.CALIBRATION), _classes_apart(black_box, config)
    prompts = calibration.perturbed(key, black_box.initial_prompt, classes)
    answers = jnp.concatenate([black_box.predict(one[None], handle) for one in prompts])
    check_finite(answers, black_box)
    settings = config.prompt
    moved = prompt.movement(settings.context, intrinsic_dim=settings.intrinsic_dim, rank=settings.rank)
    return calibration.scale(black_box.initial_prompt, answers) / moved


def build_generator(black_box: BlackBox, config: Config, std: float) -> prompt.PromptGenerator:
    """The map from z to soft prompts that the settings name, in units of `std`."""
    settings, start = config.prompt, black_box.initial_prompt
    key = stream_key(config.seed, Stream.PROJECTION)
    if settings.context == "full":
        return prompt.full(start, std=std)
    if settings.context == "low-rank":
        return prompt.low_rank(key, start, intrinsic_dim=settings.intrinsic_dim, std=std, rank=settings.rank)
    if settings.context not in ("unified", "class"):
        raise ValueError(f"prompt.context={settings.context} has no generator here")
    classes = _classes_apart(black_box, config)
    return prompt.linear(
        key, start, intrinsic_dim=settings.intrinsic_dim, std=std, bound=settings.bound, classes=classes
    )


def _classes_apart(black_box: BlackBox, config: Config) -> int:
    """C where each class has a soft prompt of its own, 0 where they share one."""
    return len(black_box.class_names) if config.prompt.context == "class" else 0


def build_method(config: Config, generator: prompt.PromptGenerator, images: int, classes: int, devices: int) -> Method:
    """The step's search, head and weights, for N training images of C classes."""
    search, head = config.search, config.refinement
    epoch = refinement.batches_in_epoch(images, head.batch_size)
    pairs = -(-search.population_size // 2)
    return Method(
        search=estimators.build(search, stream_key(config.seed, Stream.DIRECTIONS), generator.origin, config.steps),
        refinement=refinement.build(
            hidden=head.hidden,
            dropout=head.dropout,
            mixup=head.mixup,
            tx=optax.adam(optax.cosine_decay_schedule(head.learning_rate, config.steps * head.epochs * epoch)),
            batch_size=head.batch_size,
        ),
        learn_prompt=config.learn != "refinement",
        learn_head=config.learn != "prompt",
        refined_share={"refined": 1.0, "both": 0.5, "prompt": 0.0}[search.fitness],
        white_box=search.estimator == "white-box",
        guarded=search.guarded,
        query_images=min(search.query_images, images),
        epochs=head.epochs if config.learn != "prompt" else 1,
        consistency=config.consistency.weight,
        head_consistency_steps=round(config.consistency.head_share * config.steps),
        chunk_pairs=config.run.chunk_pairs or chunk_pairs(pairs, images, classes),
        devices=devices,
    )


def chunk_pairs(pairs: int, images: int, classes: int) -> int:
    """Pairs to evaluate at once: as many as a share of memory holds, and few enough for eight devices to have work.

    On a CPU a pair of 100 classes, some 700 tokens, already fills the matrix units, and the caches like it no larger.
    The number must not depend on how many devices there are, or their bits would.
    """
    if jax.default_backend() == "cpu":
        return max(1, min(-(-pairs // 8), 100 // classes))
    logits_of_pair = 2 * images * classes * 4
    return max(1, min(-(-pairs // 8), _CHUNK_BYTES // (_LIVE_COPIES * logits_of_pair)))


def initial_state(method: Method, generator: prompt.PromptGenerator, config: Config, classes: int) -> TuningState:
    """Where a run starts: the unlearnt prompt and an untrained head."""
    return TuningState(
        search=method.search.init(generator.origin),
        guard=divergence.init(generator.origin),
        head=method.refinement.init(stream_key(config.seed, Stream.HEAD_INIT), classes),
        step=jnp.zeros((), jnp.int32),
    )
