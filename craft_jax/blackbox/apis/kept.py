"""Answers about texts that are asked once: from the store as far as they are there, from the owner otherwise.

What is kept are scores as they came, so that a better treatment of them costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from craft_jax.blackbox.apis.chunks import Plan
from craft_jax.blackbox.apis.messages import Picture
from craft_jax.blackbox.apis.store import Store

Pictures = Mapping[bytes, Picture]
"""Images by digest."""


class KeptAnswers:
    """The rows of scores that a store has of one owner.

    Args:
      store: that keeps them.
      name: of the owner in it.
      plan: chunks of T texts.
      join: from the scores of a plan's chunks to the logits of all texts.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        plan: Callable[[int], Plan],
        join: Callable[[Plan, Sequence[Float[np.ndarray, "N _"]]], Float[np.ndarray, "N T"]],
    ) -> None:
        self._store, self._number, self._plan, self._join = store, store.owner(name), plan, join
        self._asked: list[list[str]] = []

    def logits(
        self,
        texts: Sequence[str],
        images: Sequence[Picture],
        fetch: Callable[[list[str], Sequence[Picture], int], None],
    ) -> Float[np.ndarray, "N T"]:
        """Logits of N images for T texts.

        Args:
          texts: asked for; those that are alike are asked once.
          images: asked about; the same.
          fetch: asks for the scores of a chunk of texts about images, and calls `keep` with them and this number.
        """
        wanted = list(dict.fromkeys(texts))
        by_digest = {image.digest: image for image in images}
        ask = self._to_ask(wanted)
        found = self._found(wanted, by_digest)
        missing = {digest: image for digest, image in by_digest.items() if digest not in found}
        if missing:
            self._fetch(ask, missing, fetch)
            found |= self._found(wanted, missing)
        places = {text: place for place, text in enumerate(wanted)}
        return np.stack([found[image.digest] for image in images])[:, [places[text] for text in texts]]

    def keep(self, scores: Mapping[bytes, Float[np.ndarray, " m"]], number: int) -> None:
        """Keeps rows of scores by their image's digest."""
        rows = {digest: np.asarray(row, np.float64).tobytes() for digest, row in scores.items()}
        self._store.put(self._number, rows, number)

    def answered(self, texts: Sequence[str], images: Sequence[Picture]) -> float:
        """The share of images whose answers are in the store."""
        found = self._found(list(dict.fromkeys(texts)), {image.digest: image for image in images})
        return sum(image.digest in found for image in images) / len(images)

    def parts(self, texts: Sequence[str]) -> list[list[str]]:
        """The chunks in which texts are asked."""
        wanted = list(dict.fromkeys(texts))
        return self._plan(len(wanted)).of(wanted)

    def _to_ask(self, wanted: list[str]) -> list[str]:
        """What to ask where answers are missing: a longer list that was asked before, where it costs no more."""
        requests = len(self._plan(len(wanted)).chunks)
        longer = [
            other
            for other in self._asked
            if set(wanted) <= set(other) and len(self._plan(len(other)).chunks) == requests
        ]
        if wanted not in self._asked:
            self._asked.append(wanted)
        return max([wanted, *longer], key=len)

    def _found(self, wanted: list[str], images: Pictures) -> dict[bytes, Float[np.ndarray, " T"]]:
        """The logits of images whose answers are in the store, for these texts or for more."""
        found: dict[bytes, Float[np.ndarray, " T"]] = {}
        for listed in [wanted, *self._store.wider(self._number, wanted)]:
            places = {text: place for place, text in enumerate(listed)}
            columns = [places[text] for text in wanted]
            rows = self._rows(listed, [digest for digest in images if digest not in found])
            found |= {digest: row[columns] for digest, row in rows.items()}
        return found

    def _rows(self, listed: Sequence[str], digests: Sequence[bytes]) -> dict[bytes, Float[np.ndarray, " T"]]:
        """The logits of those images for which every chunk of a list is answered."""
        plan = self._plan(len(listed))
        kept = [self._store.get(self._number, digests, self._store.list_of(part)) for part in plan.of(listed)]
        whole = [digest for digest in digests if all(digest in answers for answers in kept)]
        if not whole:
            return {}
        scores = [np.stack([np.frombuffer(answers[digest]) for digest in whole]) for answers in kept]
        return dict(zip(whole, self._join(plan, scores), strict=True))

    def _fetch(
        self, ask: list[str], images: Pictures, fetch: Callable[[list[str], Sequence[Picture], int], None]
    ) -> None:
        """Asks what is not in the store yet."""
        self._store.note_asked(self._number, ask)
        for part in self._plan(len(ask)).of(ask):
            number = self._store.list_of(part)
            kept = self._store.get(self._number, images, number)
            fetch(part, [image for digest, image in images.items() if digest not in kept], number)
