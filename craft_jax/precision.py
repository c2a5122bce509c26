"""Everything is computed in 32 bits, whatever JAX is told elsewhere: the same call gives the same bits.

And how exactly a model's matrix products are, which on accelerators need not be float32's own, slow ones.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

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


AUTO = "auto"
PRODUCTS = {
    "float32": "float32",
    "3xtf32": "TF32_TF32_F32_X3",
    "6xbf16": "BF16_BF16_F32_X6",
    "3xbf16": "BF16_BF16_F32_X3",
    "tf32": "TF32_TF32_F32",
}
"""JAX's name for each precision of float32 products: float32's own, in terms of shorter numbers, tf32."""

_FASTEST_THAT_LOSES_NOTHING: dict[str, str] = {}  # by kind of device; float32 elsewhere


def products(precision: str, dtype: Any) -> contextlib.AbstractContextManager[None]:
    """Inside, a model's matrix products are computed so; to be entered while JAX traces.

    Args:
      precision: of `PRODUCTS`, or `AUTO` for the fastest that was measured to lose nothing on this kind of device. A
        CPU has float32's own alone.
      dtype: that the model computes in; the precision is float32's.
    """
    import jax

    device = jax.default_backend()
    chosen = _FASTEST_THAT_LOSES_NOTHING.get(device, "float32") if precision == AUTO else precision
    # In half precision JAX would widen the operands for any but float32's own.
    return jax.default_matmul_precision(PRODUCTS[chosen if device != "cpu" and dtype == "float32" else "float32"])
