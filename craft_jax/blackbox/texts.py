"""The door for texts of a local model: from any captions to the text tower that encodes them, by the same fast path.

The owner's side of the interface. Texts are data that change from call to call, so this works on the host.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.errors import UserError

_SIZES = (1024, 128, 16)  # texts of one length encoded in one call: few, since each is compiled for each length
_KEPT = 4  # lists of texts whose features are kept: those of a run's probes, asked about many chunks of images


@runtime_checkable
class TextTower(Protocol):
    """A text encoder that is arranged for C captions which begin with a soft prompt; a pytree."""

    @property
    def dtype(self) -> Any:
        """What its layers compute in."""

    @property
    def prompt_positions(self) -> Float[Array, "n_ctx d"]:
        """Position embeddings of the soft prompt."""

    def features(self, prompts: Float[Array, "K n_ctx d"]) -> Float[Array, "K C p"]:
        """Normalised text features of every class under every prompt, float32."""

    def class_features(self, prompts: Float[Array, "K C n_ctx d"]) -> Float[Array, "K C p"]:
        """The same where every class has a soft prompt of its own."""

    def arranged(
        self,
        tokens: Float[Array | np.ndarray, "V d"],
        positions: Float[Array | np.ndarray, "L d"],
        captions: Sequence[Sequence[int]],
        n_ctx: int,
    ) -> "TextTower":
        """The same encoder for other captions, whose first `n_ctx` words a soft prompt takes the place of."""


class Tokenization(NamedTuple):
    """How a model makes tokens of captions.

    Attributes:
      caption: the token ids of a whole caption, as the tower takes them; raises UserError where they are too many.
      words: those of a caption's first words, without what ends and fills it.
      first: where the words begin in both: 1 after a start token, else 0.
    """

    caption: Callable[[str], list[int]]
    words: Callable[[str], list[int]]
    first: int


class Captions(NamedTuple):
    """Of classes: whole captions as token ids, of which `n_ctx` are the template's words from `first` on."""

    ids: list[list[int]]
    n_ctx: int
    first: int

    @property
    def prompt(self) -> list[int]:
        """The template's words."""
        return self.ids[0][self.first : self.first + self.n_ctx]


class TextDoor:
    """From captions to their features.

    Args:
      tokenization: from captions to tokens.
      tokens: the embedding of every token, [vocabulary, d].
      positions: the embedding of every position, [context length, d].
    """

    def __init__(self, tokenization: Tokenization, tokens: Float[Array, "V d"], positions: Float[Array, "L d"]) -> None:
        self._tokenization = tokenization
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
        """A text's tokens as the model takes them; raises UserError where it does not fit."""
        return self._tokenization.caption(text)

    def features_of_ids(self, tower: TextTower, captions: Sequence[Sequence[int]]) -> Float[Array, "T p"]:
        """Normalised features of T captions of one length, as `token_ids` gives them; compiled for each T."""
        return _features(tower.arranged(self._tokens, self._positions, captions, 0))

    def for_classes(
        self, tower: TextTower, class_names: Sequence[str], template: str
    ) -> tuple[TextTower, Float[Array, "n_ctx d"]]:
        """The tower arranged for soft prompts before C class names, and the unlearnt prompt.

        Raises:
          UserError: where a caption does not fit, or the template's words run into a class name.
        """
        captions = captions_of(self._tokenization, class_names, template)
        arranged = tower.arranged(self._tokens, self._positions, captions.ids, captions.n_ctx)
        return arranged, jnp.asarray(self._tokens[captions.prompt])

    def _encode(self, texts: tuple[str, ...]) -> Float[Array, "T p"]:
        """By groups of one length, so that other texts of the same lengths need no other programs."""
        assert self._tower is not None
        captions = [self.token_ids(text) for text in texts]
        lengths = np.array([len(caption) for caption in captions])
        order = np.argsort(lengths, kind="stable")
        parts = []
        for length in np.unique(lengths):
            alike = [captions[i] for i in order if lengths[i] == length]
            for part, size in _groups(alike):
                filled = part + part[-1:] * (size - len(part))
                parts.append(self.features_of_ids(self._tower, filled)[: len(part)])
        return jnp.concatenate(parts)[np.argsort(order)]


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


def check_length(caption: str, tokens: int, most: int) -> None:
    """Raises UserError where a caption has more tokens than a model takes."""
    if tokens > most:
        raise UserError(
            f"the caption {caption!r} has {tokens} tokens and the model takes {most}; "
            "shorten the class name or black_box.template"
        )


def captions_of(tokenization: Tokenization, class_names: Sequence[str], template: str) -> Captions:
    """The captions of C classes.

    Raises:
      UserError: where one does not fit, or the template's words run into a class name.
    """
    ids = [tokenization.caption(template.replace("{}", name)) for name in class_names]
    words = template.split("{}")[0].rstrip()
    start = tokenization.words(words)
    if words and len(start) == tokenization.first:
        raise UserError(f"black_box.template: the model reads no token in {words!r} before {{}}; put words there")
    for name, caption in zip(class_names, ids, strict=True):
        if caption[: len(start)] != start:
            raise UserError(f"black_box.template: the words before {{}} run into class name {name!r}; add a space")
    return Captions(ids, len(start) - tokenization.first, tokenization.first)


@jax.jit
def _features(tower: TextTower) -> Float[Array, "T p"]:
    with jax.default_matmul_precision("float32"):
        return tower.features(jnp.zeros((1, *tower.prompt_positions.shape), jnp.float32))[0]
