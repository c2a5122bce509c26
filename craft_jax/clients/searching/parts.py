"""The parts of a simulation: every client's encoded photographs, one generator, one method, the devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import BlackBox, Handle, Ledger, Metered
from craft_jax.clients.closed_form import encoder_for
from craft_jax.clients.searching.steps import Party, answers, answers_of_own, local, over_devices
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Federation, in_domain
from craft_jax.config import Config
from craft_jax.distributed import devices
from craft_jax.errors import UserError
from craft_jax.method import Method, Problem, TuningState, collaborative
from craft_jax.training import from_settings, prompt_std


class Run(NamedTuple):
    """The parts of a simulation."""

    config: Config
    how: ClientsConfig
    steps: int
    black_box: Metered
    problem: Problem
    method: Method
    party: Party
    images: tuple[int, ...]
    counts: Float[np.ndarray, "M C"]
    groups: tuple[int, ...]
    held_out: Handle | None
    held_out_labels: tuple[np.ndarray, ...]
    public: Handle | None
    tests: dict[int, Handle]
    spread: devices.Spread
    std_cost: Ledger

    @property
    def clients(self) -> int:
        """M."""
        return len(self.groups)

    @property
    def classes(self) -> int:
        """C."""
        return self.counts.shape[1]

    def local(self, steps: int) -> Callable[..., TuningState]:
        """(problem, party of one) -> its state after so many steps."""
        return local(self.method, self.config, self.steps, steps)

    def cost_of_step(self, client: int) -> Ledger:
        """What a client's step asks."""
        images, population = self.images[client], self.config.search.population_size
        return collaborative.cost_of_step(self.method, population, images=images, trained=images)

    def on_devices(self, one: Callable[..., Any], shown: Any, party: Any, cost: Ledger) -> Any:
        """one((problem, shown), a client's) for every client, in chunks over the devices, booked first.

        Args:
          one: what a client does.
          shown: what all clients look at.
          party: trees of [M, ...], on the host.
          cost: of all clients together.

        Returns:
          Trees of [M, ...], on the host.
        """

        def build(black_box: BlackBox) -> Callable[[], Any]:
            shared = self.problem.replace(black_box=black_box), shown
            return lambda: over_devices(self.spread, one, shared, party)

        return self.black_box.program(build)(cost)

    def answers(self, handle: Handle, state: TuningState) -> Float[np.ndarray, "M N C"]:
        """Every client's refined logits of N images."""
        images = self.clients * jax.tree.leaves(handle)[0].shape[0]
        found: np.ndarray = self.on_devices(answers, handle, state, Ledger(evaluation_predictions=images))
        return found

    def answers_of_own(self, handle: Handle, state: TuningState) -> Float[np.ndarray, "M N C"]:
        """Every client's refined logits of N images of its own, leaves [M, N, ...]."""
        images = int(np.prod(jax.tree.leaves(handle)[0].shape[:2]))
        cost = Ledger(evaluation_predictions=images)
        found: np.ndarray = self.on_devices(answers_of_own, None, (state, handle), cost)
        return found

    def zero_shot(self, handle: Handle) -> Float[np.ndarray, "N C"]:
        """The unlearnt prompt's logits of N images."""
        cost = Ledger(evaluation_predictions=jax.tree.leaves(handle)[0].shape[0])
        return np.asarray(self.black_box.predict(self.black_box.initial_prompt[None], handle, cost=cost)[0])


def assemble(black_box: BlackBox, federation: Federation, config: Config, how: ClientsConfig) -> Run:
    """Encodes every client's photographs and builds what all have alike; raises UserError as `simulate` says."""
    encoder = encoder_for(black_box, config)
    handles = [
        encoder.training_views([item.image for item in one.train], views=config.data.views, seed=config.seed)
        for one in federation.holdings
    ]
    sizes = tuple(len(one.train) for one in federation.holdings)
    views = _stacked(handles, sizes, axis=1)
    labels = _stacked([np.array([item.label for item in one.train], np.int32) for one in federation.holdings], sizes, 0)
    public = encoder.centre_crops(list(federation.public)) if federation.public else None
    measured_on = handles[0] if public is None else jax.tree.map(lambda leaf: leaf[None], public)
    metered = encoder.black_box
    before = metered.meter.ledger
    std = prompt_std(metered, measured_on, config)
    std_cost = metered.meter.ledger - before
    generator = from_settings.build_generator(black_box, config, std)
    classes = len(federation.class_names)
    method = from_settings.build_method(
        config,
        generator,
        jax.tree.map(lambda leaf: leaf[0], views),
        max(config.data.views, 1),
        classes,
        config.steps,
        1,
    )
    if how.trust == "weights" and how.exchange != "head" and not generator.per_class:
        raise UserError("--trust=weights compares class by class; set prompt.context=class, or --trust=predictions")
    state = jax.device_get(from_settings.initial_state(method, generator, config, classes))
    clients = len(sizes)
    everyone = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], clients, axis=0), state)
    held_out = [[item.image for item in one.held_out] for one in federation.holdings]
    test = [item.image for item in federation.test]
    return Run(
        config=config,
        how=how,
        steps=config.steps,
        black_box=metered,
        problem=Problem(None, generator, None, None, jax.random.key(config.seed)),  # type: ignore[arg-type]
        method=method,
        party=Party(views, labels, np.arange(clients, dtype=np.int32), everyone),
        images=sizes,
        counts=np.stack([_counts(one.train, classes) for one in federation.holdings]),
        groups=tuple(one.group for one in federation.holdings),
        held_out=_held_out([encoder.centre_crops(images) if images else None for images in held_out]),
        held_out_labels=tuple(np.array([item.label for item in one.held_out], int) for one in federation.holdings),
        public=public,
        tests={d: encoder.centre_crops(in_domain(test, d)) for d in {one.domain for one in federation.holdings}},
        spread=devices.Spread(devices.choose(config.run.devices)),
        std_cost=std_cost,
    )


def _stacked(trees: Sequence[Any], sizes: Sequence[int], axis: int) -> Any:
    """[M, ...] of clients' trees, those with fewer photographs having theirs again, in order, up to the most."""
    rows = [np.arange(max(sizes)) % size for size in sizes]
    taken = [jax.tree.map(lambda leaf, r=r: np.take(leaf, r, axis), tree) for tree, r in zip(trees, rows, strict=True)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *taken)


def _held_out(handles: Sequence[Handle | None]) -> Handle | None:
    """[M, H, ...]; of a client that holds out nothing another's, which nobody looks at. None where nobody does."""
    some = next((handle for handle in handles if handle is not None), None)
    if some is None:
        return None
    filled = [some if handle is None else handle for handle in handles]
    return _stacked(filled, [jax.tree.leaves(handle)[0].shape[0] for handle in filled], axis=0)


def _counts(items: Sequence[Any], classes: int) -> np.ndarray:
    return np.bincount([item.label for item in items], minlength=classes).astype(float)
