"""Actors that are killed while they label a collection, by SIGKILL, as where memory or a machine is lost."""

import os
import signal
from pathlib import Path

from craft_jax.labelling import on_ray, output


class Twice(on_ray.Actor):
    """Is killed before it labels the third unit that is begun, and after it has labelled the fifth."""

    def _label(self, unit):
        turns = Path(self._folder).parent / "turns"
        turns.mkdir(exist_ok=True)
        turn = len(list(turns.iterdir()))
        (turns / f"{turn}-{os.getpid()}").touch()
        if turn == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        images = super()._label(unit)
        if turn == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return images


class Always(on_ray.Actor):
    """Is killed by a shard of that name, as by one that its memory does not hold."""

    def _label(self, unit):
        if "doomed" in unit.path and output.tries(self._folder, unit.part) <= 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._label(unit)
