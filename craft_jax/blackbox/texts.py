"""The door for texts of a local CLIP: from any captions to the text tower that encodes them, by the same fast path.

The owner's side of the interface. Texts are data that change from call to call, so this works on the host.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.blackbox.towers.text import TextTower
from craft_jax.errors import UserError

_SIZES = (1024, 128, 16)  # texts of one length encoded in one call: few, since each is compiled for each length
_KEPT = 4  # lists of texts whose features are kept: those of a run's probes, asked about many chunks of images


class Captions(NamedTuple):
    """Of classes: token ids from SOS to the position that is pooled, of which `n_ctx` after SOS are the template's."""

    ids: list[list[int]]
    n_ctx: int


class TextDoor:
    """From captions to their features.

    Args:
      tokenize: a caption's token ids, from SOS to the position that is pooled.
      tokens: the embedding of every token, [vocabulary, d].
      positions: the embedding of every position, [context length, d].
    """

    def __init__(
        self, tokenize: Callable[[str], list[int]], tokens: Float[Array, "V d"], positions: Float[Array, "L d"]
    ) -> None:
        self._tokenize = tokenize
        # Kept on the host: a black box is copied to every device, and its compiled programs need none of this.
        self._tokens, self._positions = np.asarray(tokens), np.asarray(positions)
        self._features = functools.lru_cache(maxsize=_KEPT)(self._encode)
        self._tower: TextTower | None = None

    def features(self, tower: TextTower, texts: Sequence[str]) -> Float[Array, "T p"]:
        """Normalised features of T texts, float32.

        Args:
          tower: the encoder; what it is arranged for does not matter.
          texts: whole captions.

        Raises:
          UserError: where there are none, or one does not fit.
        """
        if not texts:
            raise UserError("there are no texts to ask; give one at least")
        if tower is not self._tower:
            self._tower = tower
            self._features.cache_clear()
        return self._features(tuple(texts))

    def token_ids(self, text: str) -> list[int]:
        """A text's tokens, from SOS to the position that is pooled; raises UserError where it does not fit."""
        return self._tokenize(text)

    def features_of_ids(self, tower: TextTower, captions: Sequence[Sequence[int]]) -> Float[Array, "T p"]:
        """Normalised features of T captions of one length, as `token_ids` gives them; compiled for each T."""
        return _features(self._arranged(tower, [caption[1:] for caption in captions]))

    def for_classes(
        self, tower: TextTower, class_names: Sequence[str], template: str
    ) -> tuple[TextTower, Float[Array, "n_ctx d"]]:
        """The tower arranged for soft prompts before C class names, and the unlearnt prompt.

        Raises:
          UserError: where a caption does not fit, or the template's words run into a class name.
        """
        captions, n_ctx = captions_of(self._tokenize, class_names, template)
        suffixes = [caption[n_ctx + 1 :] for caption in captions]
        order = np.argsort([len(suffix) for suffix in suffixes], kind="stable")
        packed = [self._tokens[suffixes[c]] + self._positions[n_ctx + 1 : n_ctx + 1 + len(suffixes[c])] for c in order]
        arranged = tower.replace(
            suffix=jnp.asarray(np.concatenate(packed)).astype(tower.dtype),
            prompt_positions=jnp.asarray(self._positions[1 : n_ctx + 1]),
            class_rows=jnp.asarray(np.argsort(order)),
            lengths=tuple(len(suffixes[c]) for c in order),
        )
        return arranged, jnp.asarray(self._tokens[captions[0][1 : n_ctx + 1]])

    def _encode(self, texts: tuple[str, ...]) -> Float[Array, "T p"]:
        """By groups of one length, so that other texts of the same lengths need no other programs."""
        assert self._tower is not None
        captions = [self._tokenize(text)[1:] for text in texts]  # SOS is in the tower
        lengths = np.array([len(caption) for caption in captions])
        order = np.argsort(lengths, kind="stable")
        parts = []
        for length in np.unique(lengths):
            alike = [captions[i] for i in order if lengths[i] == length]
            for part, size in _groups(alike):
                filled = part + part[-1:] * (size - len(part))
                parts.append(_features(self._arranged(self._tower, filled))[: len(part)])
        return jnp.concatenate(parts)[np.argsort(order)]

    def _arranged(self, tower: TextTower, captions: Sequence[Sequence[int]]) -> TextTower:
        """The tower for captions in order of length, without a soft prompt."""
        packed = [self._tokens[caption] + self._positions[1 : 1 + len(caption)] for caption in map(list, captions)]
        return tower.replace(
            suffix=jnp.asarray(np.concatenate(packed)).astype(tower.dtype),
            prompt_positions=jnp.zeros((0, self._tokens.shape[1]), jnp.float32),
            class_rows=jnp.arange(len(captions)),
            lengths=tuple(len(caption) for caption in captions),
        )


def fits(black_box: object, text: str) -> bool:
    """Whether a local model takes a text; True where nobody can tell before it is asked."""
    door = getattr(black_box, "_texts", None)
    if not isinstance(door, TextDoor):
        return True
    try:
        door.token_ids(text)
    except UserError:
        return False
    return True


def _groups(captions: list[list[int]]) -> Iterator[tuple[list[list[int]], int]]:
    """Captions in groups, each with the size that it is filled up to."""
    while captions:
        size = next((size for size in _SIZES if size <= len(captions)), _SIZES[-1])
        yield captions[:size], size
        captions = captions[size:]


def captions_of(tokenize: Callable[[str], list[int]], class_names: Sequence[str], template: str) -> Captions:
    """The captions of C classes.

    Raises:
      UserError: where one does not fit, or the template's words run into a class name.
    """
    ids = [tokenize(template.replace("{}", name)) for name in class_names]
    start = tokenize(template.split("{}")[0].rstrip())[:-1]  # without EOS
    for name, caption in zip(class_names, ids, strict=True):
        if caption[: len(start)] != start:
            raise UserError(f"black_box.template: the words before {{}} run into class name {name!r}; add a space")
    return Captions(ids, len(start) - 1)


@jax.jit
def _features(tower: TextTower) -> Float[Array, "T p"]:
    with jax.default_matmul_precision("float32"):
        return tower.features(jnp.zeros((1, *tower.prompt_positions.shape), jnp.float32))[0]
