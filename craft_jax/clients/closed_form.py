"""A simulation of the closed form: every client asks about its own photographs, then one exchange of statistics.

What was asked is kept in the workdir, client by client, so that a run that is killed asks nothing twice.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox import BlackBox, Ledger, Metered, is_remote
from craft_jax.clients import client, measures, strategy
from craft_jax.clients.client import Answers, Client, Message, Personal
from craft_jax.clients.report import Found
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Federation, Holding, in_domain
from craft_jax.config import Config
from craft_jax.encoding import Encoder, feature_cache
from craft_jax.errors import UserError
from craft_jax.files import naming_full_disk, replacing
from craft_jax.method import StackedHead, stacked
from craft_jax.randomness import Stream, host_generator
from craft_jax.training import texts_to_ask


def simulate(
    black_box: BlackBox,
    federation: Federation,
    config: Config,
    how: ClientsConfig,
    workdir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Asks for every client, exchanges, and measures.

    Args:
      black_box: set up for the federation's classes; takes texts.
      federation: who has what.
      config: settings of a run, of which the texts, the views and the seed count here.
      how: what is exchanged.
      workdir: where answers are kept; None keeps none.
      say: is told of what goes on.

    Raises:
      UserError: where a photograph cannot be read or an answer is not finite.
    """
    texts = texts_to_ask(black_box, config.probe.texts, None, config.seed)
    clients = ask_all(black_box, federation, config, how, workdir, say)
    groups = [holding.group for holding in federation.holdings]
    exchanged = strategy.exchange(in_this_process(clients), how, len(clients), groups)
    personal = tuple(one.settled[-1] if one.settled else one.personal(one.head_alone) for one in clients)
    rows = baselines(clients, None if how.split.kind == "folders" else groups) | {how.trust: personal}
    tests = {
        domain: _test(black_box, federation, domain, texts, config)
        for domain in {h.domain for h in federation.holdings}
    }
    measured = {
        name: measures.measure(
            [_both(ends, tests[one.domain]) for ends, one in zip(row, federation.holdings, strict=True)],
            federation.holdings,
            [item.label for item in federation.test],
        )
        for name, row in rows.items()
    }
    ledgers, logs = [one.ledger for one in clients], [one.log for one in clients]
    return Found(measured, exchanged.trust, exchanged.lost, ledgers, logs)


def ask_all(
    black_box: BlackBox,
    federation: Federation,
    config: Config,
    how: ClientsConfig,
    workdir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Client]:
    """All simulated clients, with what was asked about their photographs; arguments as those of `simulate`."""
    texts = texts_to_ask(black_box, config.probe.texts, None, config.seed)
    clients = []
    for index, holding in enumerate(federation.holdings):
        say(f"{holding.name}: {len(holding.train)} photographs")
        answers, ledger = _answers(black_box, federation, holding, texts, config, workdir and workdir / f"{index}.npz")
        clients.append(
            build(index, answers, ledger, len(federation.class_names), config, how, len(federation.holdings))
        )
    return clients


def _both(ends: Personal, answers: Float[np.ndarray, "N T"]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the test photographs in general, and for the client's own mix."""
    return stacked.apply(ends.head, answers), stacked.apply(ends.own_mix, answers)


def build(
    index: int, answers: Answers, ledger: Ledger, classes: int, config: Config, how: ClientsConfig, clients: int
) -> Client:
    """A simulated client, whose noise and secrets follow from the seed."""
    secrets = tuple(None if i == index else _secret(config.seed, *sorted((i, index))) for i in range(clients))
    rng = host_generator(config.seed, Stream.NOISE, index)
    return Client(index, classes, answers, how, rng, secrets, ledger)


def in_this_process(clients: Sequence[Client]) -> strategy.Carry:
    """Carries messages by calling the clients."""

    def carry(step: str, messages: dict[int, Message]) -> dict[int, Message]:
        return {i: clients[i].reply(step, message) for i, message in messages.items()}

    return carry


def baselines(clients: Sequence[Client], groups: Sequence[int] | None) -> dict[str, tuple[Personal, ...]]:
    """What clients have alone, by plain means, and had they sent everything, by the report's row."""
    shape = clients[0].own
    nothing = StackedHead(
        np.zeros((len(shape.scatter), len(shape.counts)), np.float32), np.zeros(len(shape.counts), np.float32)
    )
    alone = [one.head_alone for one in clients]
    mean = StackedHead(*(np.mean(leaves, axis=0) for leaves in zip(*alone, strict=True)))
    together = client.head_of(_pooled(clients, [1] * len(clients)), clients[0].views)
    heads = {"zero-shot": [nothing] * len(clients), "alone": alone, "average": [mean] * len(clients)}
    heads["pooled"] = [together] * len(clients)
    if groups is not None:
        of_group = {
            g: client.head_of(_pooled(clients, [g == h for h in groups]), clients[0].views) for g in set(groups)
        }
        heads["oracle"] = [of_group[g] for g in groups]
    return {name: tuple(map(Client.personal, clients, row)) for name, row in heads.items()}


def _pooled(clients: Sequence[Client], taken: Sequence[int | bool]) -> stacked.Statistics:
    return functools.reduce(stacked.add, [one.own for one, there in zip(clients, taken, strict=True) if there])


def _answers(
    black_box: BlackBox,
    federation: Federation,
    holding: Holding,
    texts: Sequence[str],
    config: Config,
    keep: Path | None,
) -> tuple[Answers, Ledger]:
    """A client's, kept or asked, and what they cost."""
    key = _key(black_box, federation, holding, texts, config)
    found = _read(keep, key) if keep else None
    if found:
        return found
    encoder = encoder_for(black_box, config)
    answers = client.ask(holding, federation.public, texts, encoder, views=max(config.data.views, 1), seed=config.seed)
    if keep:
        with naming_full_disk(keep.parent), replacing(keep) as partial:
            ledger = json.dumps(dataclasses.asdict(encoder.black_box.meter.ledger))
            np.savez(partial, key=np.asarray(key), ledger=np.asarray(ledger), **answers._asdict())
    return answers, encoder.black_box.meter.ledger


def encoder_for(black_box: BlackBox, config: Config) -> Encoder:
    """An encoder with a meter of its own, and the cache of encoded images where the settings allow it."""
    kept = config.run.reuse_features and not is_remote(black_box.identity)
    return Encoder(Metered(black_box, budget=None), feature_cache.default_folder() if kept else None)


def _read(path: Path, key: str) -> tuple[Answers, Ledger] | None:
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            if str(file["key"]) != key:
                raise UserError(
                    f"--workdir={path.parent} holds other photographs or settings; choose another --workdir"
                )
            return Answers(*(file[name] for name in Answers._fields)), Ledger(**json.loads(str(file["ledger"])))
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None  # damaged: asked again


def _key(black_box: BlackBox, federation: Federation, holding: Holding, texts: Sequence[str], config: Config) -> str:
    """Of everything that a client's answers depend on."""
    images = [(item.image.fingerprint(), item.label) for item in (*holding.train, *holding.held_out)]
    public = [image.fingerprint() for image in federation.public]
    parts = (black_box.identity, black_box.class_names, images, public, texts, config.data.views, config.seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _test(
    black_box: BlackBox, federation: Federation, domain: int, texts: Sequence[str], config: Config
) -> Float[np.ndarray, "N T"]:
    """Answers about the test photographs as a domain shows them; no client's."""
    encoder = encoder_for(black_box, config)
    images = in_domain([item.image for item in federation.test], domain)
    return client.about(encoder.black_box, encoder.centre_crops(images), texts, probing=False)


def _secret(seed: int, *pair: int) -> bytes:
    return hashlib.sha256(f"{seed} {pair}".encode()).digest()
