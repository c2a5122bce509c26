"""The command's two sides over a network: a server that has no photograph, and a client that has its own alone."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from craft_jax import blackbox, data
from craft_jax.clients import client, flower, measures, report, trust
from craft_jax.clients.client import Client
from craft_jax.clients.closed_form import encoder_for
from craft_jax.clients.flower import Assigned
from craft_jax.clients.settings import ClientsConfig
from craft_jax.clients.splits import Holding
from craft_jax.config import Config
from craft_jax.data import FewShotSet, Labelled, LazyImage
from craft_jax.files import json_text, write_atomically
from craft_jax.method import refinement, stacked
from craft_jax.training import checkpoints, texts_to_ask
from craft_jax.tuned_model import TunedModel

Say = Callable[[str], None]


def serve(address: str, how: ClientsConfig, wait: float, workdir: Path, say: Say) -> None:
    """Carries out one exchange; leaves result.json with the trust matrix and who was lost."""
    exchanged, names = flower.serve(address, how, wait, say)
    whole = exchanged.trust + np.diag(np.diagonal(exchanged.trust) == 0)
    result = {
        "clients": names,
        "trust": how.trust,
        "trust_matrix": trust.rows_of_one(whole).round(6).tolist(),
        "lost": [names[i] for i in exchanged.lost],
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / report.RESULT, json_text(result, indent=2) + "\n")
    lost = f", {len(exchanged.lost)} lost on the way" if exchanged.lost else ""
    say(f"exchanged among {', '.join(names)}{lost}; result: {workdir / report.RESULT}")


def join(
    address: str, name: str, config: Config, how: ClientsConfig, public: Sequence[LazyImage], workdir: Path, say: Say
) -> None:
    """Takes part with the photographs that the settings name; leaves a report, and a checkpoint to predict with."""
    own = data.read(config.data)
    boxes = []

    def build(assigned: Assigned) -> Client:
        black_box = blackbox.from_settings(config.black_box, assigned.class_names, config.api)
        boxes.append(black_box)
        holding = _holding(own, assigned.class_names, name)
        say(f"asking about {len(holding.train)} photographs of {len(own.class_names)} classes")
        encoder = encoder_for(black_box, config)
        texts = texts_to_ask(black_box, config.probe.texts, None, config.seed)
        answers = client.ask(holding, public, texts, encoder, views=max(config.data.views, 1), seed=config.seed)
        # Noise that others could draw again would hide nothing.
        rng = np.random.default_rng(secrets.randbits(128))
        return Client(
            assigned.place,
            len(assigned.class_names),
            answers,
            how,
            rng,
            assigned.secrets,
            encoder.black_box.meter.ledger,
        )

    done = flower.join(address, name, own.class_names, how, build)
    black_box = boxes[0]
    test = _relabelled(own.test, own.class_names, black_box.class_names)
    texts = texts_to_ask(black_box, config.probe.texts, None, config.seed)
    encoder = encoder_for(black_box, config)
    tested = client.about(encoder.black_box, encoder.centre_crops([item.image for item in test]), texts, probing=False)
    labels = np.array([item.label for item in test])
    found = {
        title: float(np.nanmean(measures.by_class(np.asarray(stacked.apply(head, tested)), labels)))
        for title, head in (("alone", done.head_alone), (how.trust, done.settled[-1].head))
    }
    workdir.mkdir(parents=True, exist_ok=True)
    _leave(done, black_box, texts, config, workdir)
    page = [f"# {name}", "", f"Test accuracy on its own classes alike, in percent: {_spoken(found)}.", ""]
    page += [f"Asked: {done.ledger.prompts} prompts, {done.ledger.probe_predictions:,} predictions.", ""]
    page += ["What left this client, and no image, label or prediction of a photograph of its own:", ""]
    page += [*(f"- {line}" for line in report.listed(done.log)), ""]
    write_atomically(workdir / report.REPORT, "\n".join(page))
    result = {
        "accuracy": found,
        "ledger": dataclasses.asdict(done.ledger),
        "bytes_sent": report.traffic(done.log, "out"),
        "bytes_received": report.traffic(done.log, "in"),
        "left": [one._asdict() for one in done.log if one.direction == "out"],
    }
    write_atomically(workdir / report.RESULT, json_text(result, indent=2) + "\n")
    say(f"{_spoken(found)}\nreport: {workdir / report.REPORT}\ncheckpoint: {workdir / checkpoints.CHECKPOINTS}")


def _spoken(found: dict[str, float]) -> str:
    return ", ".join(f"{title} {accuracy:.1f}" for title, accuracy in found.items())


def _holding(own: FewShotSet, class_names: Sequence[str], name: str) -> Holding:
    train, held_out = (_relabelled(part, own.class_names, class_names) for part in (own.train, own.val))
    return Holding(name, train, held_out, tuple(range(len(class_names))))


def _relabelled(items: Sequence[Labelled], own: Sequence[str], class_names: Sequence[str]) -> tuple[Labelled, ...]:
    return tuple(Labelled(item.image, list(class_names).index(own[item.label])) for item in items)


def _leave(done: Client, black_box: blackbox.BlackBox, texts: Sequence[str], config: Config, workdir: Path) -> None:
    """A checkpoint of the head, as `craft-jax predict` reads it."""
    classes = len(black_box.class_names)
    untrained = refinement.RefinementHead(hidden=1).init(jax.random.key(0), jnp.zeros((1, classes)))
    tuned = TunedModel(
        np.asarray(black_box.initial_prompt), untrained, black_box.identity, black_box.class_names, tuple(texts),
        done.settled[-1].head,
    )  # fmt: skip
    with checkpoints.Checkpoints(workdir) as kept:
        kept.save(0, {"step": np.zeros((), np.int32)}, tuned, {"settings": dataclasses.asdict(config)}, 0.0)
