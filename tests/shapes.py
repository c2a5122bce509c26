"""jaxtyping's shapes, executed: every annotated function of the package checks the arrays that it is given and gives.

Of annotations those alone that name a shape are looked at: other types are mypy's business. For `make test-slow`, which
sets CRAFT_JAX_SHAPES; there ranks are not promoted silently either.
"""

import typing
from collections.abc import Callable
from typing import Any

import beartype
import jax
import jaxtyping


def install() -> None:
    """Before the package is imported."""
    jaxtyping.install_import_hook("craft_jax", "tests.shapes.checked")
    jax.config.update("jax_numpy_rank_promotion", "raise")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which looks at those of its arguments and results that are annotated by shape."""
    shaped = {name: kind for name, kind in function.__annotations__.items() if _names_a_shape(kind)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype.beartype(function)


def _names_a_shape(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray):
        return True
    return any(map(_names_a_shape, typing.get_args(kind)))
