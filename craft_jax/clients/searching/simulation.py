"""A simulation of clients that search: collaborative steps at home, then trust-weighted means of z, heads, or both.

Trust, means and the heads at home are small, and computed on the host. Source: Wagner, Fan and Jaggi, COLM 2024; by
class where classes have numbers of their own (docs/clients.md).
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from craft_jax.blackbox import BlackBox, Ledger, check_finite
from craft_jax.clients import client, measures
from craft_jax.clients.client import Item
from craft_jax.clients.report import Found
from craft_jax.clients.searching import mixing, parts
from craft_jax.clients.searching.parts import Run
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Federation
from craft_jax.config import Config
from craft_jax.errors import Interrupted, UserError
from craft_jax.files import naming_full_disk, replacing
from craft_jax.method import StackedHead, TuningState, stacked

STATE = "state.npz"
_WARM_UP = 5  # the first fifth of the steps is made alone


def simulate(
    black_box: BlackBox,
    federation: Federation,
    config: Config,
    how: ClientsConfig,
    workdir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Steps and exchanges until each client's budget is spent, and measures; goes on where a killed one stopped.

    Args:
      black_box: set up for the federation's classes; local, takes soft prompts.
      federation: who has what.
      config: settings of a run; `query_budget` is each client's.
      how: what is exchanged, how often, and which trust.
      workdir: where the state is kept after every call; None keeps none.
      say: is told how far it is.
      stop: asked between calls.

    Raises:
      Interrupted: where `stop` said so; the same call goes on.
      UserError: where a photograph cannot be read, or the workdir holds other clients.
    """
    run = parts.assemble(black_box, federation, config, how)
    key = _key(black_box, federation, config, how)
    done, state, believed = _read(workdir, key, run) if workdir else (0, run.party.state, np.eye(run.clients))
    while done < run.steps:
        if stop():
            raise Interrupted(f"stopped after step {done} of {run.steps}")
        steps = min(how.every, run.steps - done)
        cost = sum((run.cost_of_step(i) for i in range(run.clients)), Ledger()) * steps
        state = run.on_devices(run.local(steps), None, run.party._replace(state=state), cost)
        check_finite(state.search.z, black_box)
        done += steps
        if how.trust != "alone" and run.clients > 1 and done * _WARM_UP >= run.steps:
            if (done - steps) * _WARM_UP < run.steps:  # nothing is mixed yet: what has been mixed resembles
                believed = mixing.believed_by(run, state)
            state = mixing.mixed(state, believed, run.counts, how)
        say(f"step {done} of {run.steps}")
        if workdir:
            _write(workdir, key, done, state, believed)
    return _finish(run, federation, state, believed)


def _finish(run: Run, federation: Federation, state: TuningState, believed: np.ndarray) -> Found:
    labels = [item.label for item in federation.test]
    learnt = {d: run.answers(handle, state) for d, handle in run.tests.items()}
    before = {d: run.zero_shot(handle) for d, handle in run.tests.items()}
    domains = [one.domain for one in federation.holdings]
    unlearnt = _of_own_mix(run, run.party.state, [stacked.nothing(run.classes, run.classes)] * run.clients)
    own = _of_own_mix(run, state, _heads_at_home(run, state))
    measured = {
        "zero-shot": [(before[d], stacked.apply(head, before[d])) for d, head in zip(domains, unlearnt, strict=True)],
        run.how.trust: [
            (learnt[d][i], stacked.apply(head, learnt[d][i]))
            for i, (d, head) in enumerate(zip(domains, own, strict=True))
        ],
    }
    ledgers, logs = _costs(run)
    accuracies = {name: measures.measure(logits, federation.holdings, labels) for name, logits in measured.items()}
    return Found(accuracies, believed, (), ledgers, logs)


def _heads_at_home(run: Run, state: TuningState) -> list[StackedHead]:
    """Each client's head in closed form on what its model, exchanged as it is, says of its own photographs."""
    views = run.method.labelled_views
    handle = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:]), run.party.views)
    answers = run.answers_of_own(handle, state).reshape(run.clients, views, -1, run.classes)
    return [
        client.head_of(client.of_views(own[:, :images], labels[:images], run.classes), views)
        for own, labels, images in zip(answers, run.party.labels, run.images, strict=True)
    ]


def _of_own_mix(run: Run, state: TuningState, heads: Sequence[StackedHead]) -> list[StackedHead]:
    """The heads with each client's own mix of classes as prior, by its held-out photographs."""
    nobody = np.zeros((run.clients, 0, run.classes))
    logits = nobody if run.held_out is None else run.answers_of_own(run.held_out, state)
    return [
        client.of_own_mix(head, held_out[: labels.size], labels, images)
        for head, held_out, labels, images in zip(heads, logits, run.held_out_labels, run.counts, strict=True)
    ]


def _costs(run: Run) -> tuple[tuple[Ledger, ...], tuple[list[Item], ...]]:
    """What each client asked, and what left it and came to it, which both follow from the settings."""
    ends = [min(at + run.how.every, run.steps) for at in range(0, run.steps, run.how.every)]
    times = sum(end * _WARM_UP >= run.steps for end in ends) if run.how.trust != "alone" and run.clients > 1 else 0
    item = _sent(run)
    shown = 0 if run.public is None else jax.tree.leaves(run.public)[0].shape[0]
    ledgers, logs = [], []
    for i, size in enumerate(run.images):
        judged = {"predictions": shown, "validation": size * run.clients}.get(run.how.trust, 0)
        views, held_out = run.method.labelled_views, run.held_out_labels[i].size
        ledger = run.cost_of_step(i) * run.steps + Ledger(
            centre_predictions=size * views,  # of the head at home
            evaluation_predictions=(judged if times else 0) + held_out,
            images_encoded=size * views + held_out + shown,
        )
        ledgers.append(ledger + run.std_cost)
        logs.append([one for number in range(times) for one in item(number)])
    return tuple(ledgers), tuple(logs)


def _sent(run: Run) -> Callable[[int], list[Item]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if run.how.exchange in ("prompt", "both"):
        shapes["z"] = run.party.state.search.z.shape[1:]
    if run.how.exchange in ("head", "both"):
        shapes["head"] = (sum(leaf[0].size for leaf in jax.tree.leaves(run.party.state.head.params)),)
    if run.how.trust == "predictions" and run.public is not None:
        shapes["changes"] = (jax.tree.leaves(run.public)[0].shape[0], run.counts.shape[1])
    held = {"photographs of each class": (run.counts.shape[1],)}

    def items(number: int) -> list[Item]:
        step = f"exchange {number + 1}"
        leaves = {name: shape for name, shape in (held | shapes).items() if not (number and name == "changes")}
        out = [Item("out", step, name, shape, 4 * int(np.prod(shape))) for name, shape in leaves.items()]
        back = [
            Item("in", step, name, shape, 4 * int(np.prod(shape))) for name, shape in shapes.items() if name in "z head"
        ]
        return out + back

    return items


def _key(black_box: BlackBox, federation: Federation, config: Config, how: ClientsConfig) -> str:
    """Of everything that the state depends on."""
    images = [
        (item.image.fingerprint(), item.label) for one in federation.holdings for item in (*one.train, *one.held_out)
    ]
    public = [image.fingerprint() for image in federation.public]
    settings = [getattr(config, name) for name in ("seed", "query_budget", "learn", "data", "prompt", "search")]
    told = (black_box.identity, black_box.class_names, images, public, settings, config.refinement, how)
    return hashlib.sha256(repr((*told, config.consistency, config.run.chunk_pairs)).encode()).hexdigest()


def _write(workdir: Path, key: str, done: int, state: TuningState, believed: np.ndarray) -> None:
    leaves = {f"leaf {i}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    with naming_full_disk(workdir), replacing(workdir / STATE) as partial:
        np.savez(partial, key=np.asarray(key), done=np.asarray(done), trust=believed, **leaves)


def _read(workdir: Path, key: str, run: Run) -> tuple[int, TuningState, np.ndarray]:
    """Steps done, state and trust as they were kept; the start where nothing was, or it is damaged."""
    start = run.party.state
    try:
        with (workdir / STATE).open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            if str(file["key"]) == key:
                leaves = [file[f"leaf {i}"] for i in range(len(jax.tree.leaves(start)))]
                return int(file["done"]), jax.tree.unflatten(jax.tree.structure(start), leaves), file["trust"]
    except FileNotFoundError:
        return 0, start, np.eye(run.clients)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return 0, start, np.eye(run.clients)
    raise UserError(f"--workdir={workdir} holds clients with other settings or photographs; choose another --workdir")
