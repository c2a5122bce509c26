"""Everything is computed in 32 bits, whatever JAX is told elsewhere: the same call gives the same bits."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function compute as without JAX_ENABLE_X64."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # Imported here, so that --help and errors in settings do not wait for it.
        import jax

        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return run
