"""From an address and a form to a black box: the adaptor that speaks the form, its client and its store of answers."""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from craft_jax import folders
from craft_jax.blackbox import remote
from craft_jax.blackbox.apis import labels, soft
from craft_jax.blackbox.apis.chat import Chat
from craft_jax.blackbox.apis.embeddings import EmbeddingOwner
from craft_jax.blackbox.apis.http import Client
from craft_jax.blackbox.apis.scoring import ScoringOwner
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.remote import RemoteBlackBox
from craft_jax.config import SHAPES_ANSWERS, ApiConfig, check_api
from craft_jax.data import pixels

_PREFIX = "api."
_USUAL = ApiConfig()


def connect_api(
    address: str,
    class_names: Sequence[str],
    template: str = "a photo of a {}.",
    *,
    form: str,
    api: ApiConfig = _USUAL,
    known_as: str = "",
) -> RemoteBlackBox:
    """Puts a model that is asked over HTTP behind the interface.

    Nothing is asked yet, but what the model is where it takes soft prompts. The key is read from the environment.

    Args:
      address: URL of the API.
      class_names: C names, one per label.
      template: caption of a class.
      form: of requests: labels, compare, rank, embeddings, chat or soft, as `black_box.api` takes it.
      api: how it is asked.
      known_as: the address that answers and checkpoints know it by, where it has moved.

    Raises:
      UserError: where address and form do not go together, the key cannot be sent, the store cannot be opened, or a
        model that takes soft prompts does not answer.
    """
    check_api(address, form, api)
    store = _store(folders.expanded(api.store, "api.store") if api.store else None)
    client = Client(address, api, store, _say)
    known_as = known_as or address
    if form == "soft":
        return _soft(known_as, class_names, template, client, store)
    name = f"{form} {known_as} {api.model}".strip()
    owner = (
        EmbeddingOwner(name, client, store, api)
        if form == "embeddings"
        else ScoringOwner(_scores(form, client, api), name, client, store, api, _say)
    )
    about = {"api": form, **{_PREFIX + setting: getattr(api, setting) for setting in SHAPES_ANSWERS}}
    return remote.connect(
        owner,  # type: ignore[arg-type]  # it has no soft side
        class_names,
        image_size=api.image_size,
        name=known_as,
        template=template,
        about=about,
        fingerprint=_fingerprint(known_as, about),
    )


def connect_again(
    identity: Mapping[str, Any], class_names: Sequence[str], asking: ApiConfig, address: str = ""
) -> RemoteBlackBox:
    """The black box that an identity is of, for these classes.

    Args:
      identity: of one that `connect_api` made.
      class_names: C names.
      asking: how it is asked; what shapes answers is as it was.
      address: where it is now, if not where it was.
    """
    kept = {name: identity[_PREFIX + name] for name in SHAPES_ANSWERS if _PREFIX + name in identity}
    return connect_api(
        address or identity["model"],
        class_names,
        identity["template"],
        form=identity["api"],
        api=dataclasses.replace(asking, **kept),
        known_as=identity["model"],
    )


def _soft(known_as: str, class_names: Sequence[str], template: str, client: Client, store: Store) -> RemoteBlackBox:
    told = soft.about(client, template)
    black_box = remote.connect(
        soft.SoftOwner(told, class_names, template, client, store),
        class_names,
        told.initial_prompt,
        image_size=told.image_size,
        name=known_as,
        template=template,
        about={"api": "soft"},
        fingerprint=_fingerprint("soft", {"fingerprint": told.fingerprint}),
    )
    return black_box.replace(_resizing=pixels.Resizing(*told.resizing)) if told.resizing else black_box


def _scores(form: str, client: Client, api: ApiConfig) -> labels.Form:
    if form == "chat":
        return Chat(client.address, api)
    if form == "compare":
        return labels.Compare(client.address, client.key)
    return labels.Rank(client.address) if form == "rank" else labels.ZeroShot(client.address)


def _fingerprint(name: str, about: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{name} {sorted(about.items())}".encode()).hexdigest()[:16]


@functools.cache
def _store(path: Path | None) -> Store:
    return Store(path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
