"""The door for texts of a local CLIP: from any captions to the text tower that encodes them, by the same fast path.

The owner's side of the wall. Texts are data that change from call to call, so this works on the host.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from craft_jax.blackbox.towers.text import TextTower
from craft_jax.errors import UserError

_AT_ONCE = 2048  # texts encoded in one call, which bounds memory
_KEPT = 4  # lists of texts whose features are kept: those of a run's probes, asked about many chunks of images


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

    def _encode(self, texts: tuple[str, ...]) -> Float[Array, "T p"]:
        captions = [self._tokenize(text)[1:] for text in texts]  # SOS is in the tower
        order = np.argsort([len(caption) for caption in captions], kind="stable")
        parts = [
            _features(self._arranged([captions[i] for i in order[first : first + _AT_ONCE]]))
            for first in range(0, len(order), _AT_ONCE)
        ]
        return jnp.concatenate(parts)[np.argsort(order)]

    def _arranged(self, captions: Sequence[Sequence[int]]) -> TextTower:
        """The tower for captions in order of length, without a soft prompt."""
        assert self._tower is not None
        packed = [self._tokens[caption] + self._positions[1 : 1 + len(caption)] for caption in map(list, captions)]
        return self._tower.replace(
            suffix=jnp.asarray(np.concatenate(packed)).astype(self._tower.dtype),
            prompt_positions=jnp.zeros((0, self._tokens.shape[1]), jnp.float32),
            class_rows=jnp.arange(len(captions)),
            lengths=tuple(len(caption) for caption in captions),
        )


@jax.jit
def _features(tower: TextTower) -> Float[Array, "T p"]:
    with jax.default_matmul_precision("float32"):
        return tower.features(jnp.zeros((1, *tower.prompt_positions.shape), jnp.float32))[0]
