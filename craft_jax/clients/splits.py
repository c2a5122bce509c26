"""Who has which photographs: label skew, disjoint classes, domains, permuted labels, a noisy client, folders.

Every split is a pure function of the set, the settings and a seed. What clients have in common by construction, the
true groups, is kept for the oracle and for measuring alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from craft_jax.clients.settings import Split
from craft_jax.data import FewShotSet, Labelled, LazyImage, folder
from craft_jax.errors import UserError
from craft_jax.files import shown
from craft_jax.randomness import Stream, host_generator

_DOMAINS = ("as it is", "negative", "on its side")


@dataclasses.dataclass(frozen=True)
class Holding:
    """What one client has.

    Attributes:
      name: of the client.
      train: its photographs.
      held_out: photographs to adjust by, of its own mix of classes; may be empty.
      meaning: label that this client gives to each of the C classes; another order where its labels are permuted.
      domain: how its photographs look, an index into `_DOMAINS`.
      group: clients of one group have the same meaning and domain, and right labels.
    """

    name: str
    train: tuple[Labelled, ...]
    held_out: tuple[Labelled, ...]
    meaning: tuple[int, ...]
    domain: int = 0
    group: int = 0


@dataclasses.dataclass(frozen=True)
class Federation:
    """All clients, what everyone may see, and what is measured on.

    Attributes:
      class_names: C names.
      holdings: of M clients.
      public: unlabelled photographs that are nobody's and not tested on.
      test: for measuring only, with the classes' usual labels.
      split: in words, for the report.
    """

    class_names: tuple[str, ...]
    holdings: tuple[Holding, ...]
    public: tuple[LazyImage, ...]
    test: tuple[Labelled, ...]
    split: str


@dataclasses.dataclass(frozen=True)
class Transformed:
    """A photograph as another domain shows it; opens in RGB."""

    image: LazyImage
    domain: int

    @property
    def name(self) -> str:
        """The photograph's name and its domain."""
        return f"{self.image.name}, {_DOMAINS[self.domain]}"

    def open(self) -> Image.Image:
        """The transformed image. Raises UserError, naming it, where it is missing or unreadable."""
        image = self.image.open()
        return ImageOps.invert(image) if self.domain == 1 else image.transpose(Image.Transpose.ROTATE_90)

    def fingerprint(self) -> str:
        """Of the photograph's content and the domain."""
        return f"{self.image.fingerprint()}-{_DOMAINS[self.domain]}"


def in_domain(images: Sequence[LazyImage], domain: int) -> list[LazyImage]:
    """The photographs as the domain shows them."""
    return [Transformed(image, domain) for image in images] if domain else list(images)


def split(dataset: FewShotSet, public: Sequence[LazyImage], how: Split, clients: int, seed: int) -> Federation:
    """Deals a set's photographs to M clients.

    Args:
      dataset: with the shots drawn; its validation part is dealt too, in each client's own mix of classes.
      public: photographs for all.
      how: of any kind but `folders`.
      clients: M.
      seed: of the draw.

    Raises:
      UserError: where there are fewer photographs or classes than clients.
    """
    rng = host_generator(seed, Stream.CLIENTS)
    labels = np.array([item.label for item in dataset.train])
    if len(labels) < clients:
        raise UserError(f"--clients={clients}: there are {len(labels)} photographs; lower it, or raise data.shots")
    classes = len(dataset.class_names)
    dealt = _dealt(labels, how, clients, classes, rng)
    val = _dealt_like([labels[rows] for rows in dealt], np.array([item.label for item in dataset.val]), rng)
    domains = [i % int(how.number) if how.kind == "domains" else 0 for i in range(clients)]
    meanings = _meanings(how, clients, classes, rng)
    holdings = []
    for i, rows in enumerate(dealt):
        noisy = how.kind == "noisy" and i == 0
        train = _as_seen([dataset.train[row] for row in rows], meanings[i], domains[i])
        if noisy:
            train = [Labelled(item.image, int(rng.integers(classes))) for item in train]
        held_out = _as_seen([dataset.val[row] for row in val[i]], meanings[i], domains[i])
        group = int(noisy) if how.kind == "noisy" else i % int(how.number) if how.kind in ("domains", "permuted") else 0
        holdings.append(Holding(f"client {i}", tuple(train), tuple(held_out), meanings[i], domains[i], group))
    return Federation(dataset.class_names, tuple(holdings), tuple(public), dataset.test, _in_words(how))


def read_folders(root: Path, clients: int, split_seed: int, public: Sequence[LazyImage] = ()) -> Federation:
    """Clients that are folders below `root`, each with a sub-folder a class; classes go by name.

    Args:
      root: of the clients' folders.
      clients: how many to take, by name; 0 takes all.
      split_seed: of the automatic split of each into train, validation and test.
      public: photographs for all.

    Raises:
      UserError: where there are fewer than two, or one holds no classes.
    """
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = found[: clients or None]
    if len(found) < max(2, clients):
        raise UserError(f"{shown(root)}: {len(found)} folders of clients; --split=folders needs {max(2, clients)}")
    sets = [folder.load(path, split_seed) for path in found]
    names = sorted({name for one in sets for name in one.class_names})
    meaning = tuple(range(len(names)))
    holdings: list[Holding] = []
    test: list[Labelled] = []
    for path, one in zip(found, sets, strict=True):
        train, held_out, tested = (
            tuple(Labelled(item.image, names.index(one.class_names[item.label])) for item in part)
            for part in (one.train, one.val, one.test)
        )
        holdings.append(Holding(path.name, train, held_out, meaning))
        test.extend(tested)
    return Federation(tuple(names), tuple(holdings), tuple(public), tuple(test), "a folder a client")


def unused(whole: FewShotSet, drawn: FewShotSet, count: int, seed: int) -> list[LazyImage]:
    """At most `count` training photographs that were not drawn, for all to see; without their labels."""
    taken = {item.image.name for item in drawn.train}
    left = [item.image for item in whole.train if item.image.name not in taken]
    order = host_generator(seed, Stream.PUBLIC).permutation(len(left))
    return [left[row] for row in sorted(order[:count])]


def _in_words(how: Split) -> str:
    return {
        "iid": "dealt blindly",
        "dirichlet": f"label skew, Dirichlet {how.number:g}",
        "disjoint": "disjoint classes",
        "domains": f"{how.number:g} domains",
        "permuted": f"{how.number:g} groups with permuted labels",
        "noisy": "one client with wrong labels",
    }[how.kind]


def _dealt(labels: np.ndarray, how: Split, clients: int, classes: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of the photographs that each client has."""
    if how.kind == "dirichlet":
        return _dirichlet(labels, how.number, clients, classes, rng)
    if how.kind == "disjoint":
        if clients > classes:
            raise UserError(f"--split=disjoint: {classes} classes are too few for --clients={clients}; lower it")
        return [np.flatnonzero(np.isin(labels, own)) for own in np.array_split(rng.permutation(classes), clients)]
    if how.kind == "domains":  # the same photographs in each
        domains = int(how.number)
        if clients < domains:
            raise UserError(f"--split=domains:{domains} needs as many clients at least; raise --clients={clients}")
        dealt: list[np.ndarray] = [np.zeros(0, int)] * clients
        for domain in range(domains):
            own = range(domain, clients, domains)
            for i, rows in zip(own, np.array_split(rng.permutation(labels.size), len(own)), strict=True):
                dealt[i] = rows
        return dealt
    return [np.sort(rows) for rows in np.array_split(rng.permutation(labels.size), clients)]


def _dirichlet(
    labels: np.ndarray, alpha: float, clients: int, classes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """As many photographs for each client, of classes by a mix of its own, q ~ Dir(alpha), as long as there are some.

    Source: Hsu, Qi and Brown, Measuring the effects of non-identical data distribution, 2019.
    """
    left = [list(rng.permutation(np.flatnonzero(labels == label))) for label in range(classes)]
    mixes = rng.dirichlet(np.full(classes, alpha), size=clients)
    rows: list[list[int]] = [[] for _ in range(clients)]
    for _ in range(labels.size // clients):
        for i in range(clients):
            share = mixes[i] * [len(rest) > 0 for rest in left]
            if share.sum() <= np.finfo(float).tiny:  # all of its classes are given out
                share = np.array([float(len(rest)) for rest in left])
            rows[i].append(left[rng.choice(classes, p=share / share.sum())].pop())
    return [np.sort(own) for own in rows]


def _dealt_like(own_labels: Sequence[np.ndarray], labels: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Rows of held-out photographs for each client: every class's go to those who have it, in proportion."""
    rows: list[list[int]] = [[] for _ in own_labels]
    for label in np.unique(labels):
        shares = np.array([float(np.sum(own == label)) for own in own_labels])
        if not shares.sum():
            continue
        members = rng.permutation(np.flatnonzero(labels == label))
        stops = np.round(np.cumsum(shares) / shares.sum() * members.size).astype(int)
        for own, part in zip(rows, np.split(members, stops[:-1]), strict=True):
            own.extend(part.tolist())
    return rows


def _meanings(how: Split, clients: int, classes: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    usual = tuple(range(classes))
    if how.kind != "permuted":
        return [usual] * clients
    groups = [usual, *(tuple(rng.permutation(classes).tolist()) for _ in range(int(how.number) - 1))]
    return [groups[i % len(groups)] for i in range(clients)]


def _as_seen(items: Sequence[Labelled], meaning: Sequence[int], domain: int) -> list[Labelled]:
    images = in_domain([item.image for item in items], domain)
    return [Labelled(image, meaning[item.label]) for image, item in zip(images, items, strict=True)]
