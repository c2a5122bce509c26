"""The interface: what the owner of a black box exposes, and nothing else.

Images and prompts, soft ones or texts, go in, predictions come out. Gradients are refused with an error that says why.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

from craft_jax.data import pixels
from craft_jax.errors import UserError

Handle = Any
"""Encoded images. Opaque but for one thing: it is a pytree whose leaves lead with the image axis N."""

SOFT_PROMPTS, TEXTS = "soft prompts", "texts"
"""What a black box may take."""

F = TypeVar("F", bound=Callable[..., Any])


class GradientRefused(TypeError):
    """A gradient was asked for through a black box, which answers queries only."""


class Described(Protocol):
    """What a black box tells of itself, for nothing; `Metered` tells it too."""

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON values: enough to load it again and to tell it from another."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the logits."""

    @property
    def image_size(self) -> int:
        """Side of the square images that it takes, in pixels."""

    @property
    def resizing(self) -> pixels.Resizing:
        """How a photograph is resized before that square is cut out of it."""

    @property
    def takes(self) -> frozenset[str]:
        """SOFT_PROMPTS, TEXTS, or both: which of `predict` and `predict_texts` it answers."""

    @property
    def initial_prompt(self) -> Float[Array, "n_ctx d"]:
        """The unlearnt soft prompt: the embedded words of the template."""


class BlackBox(Described, Protocol):
    """A vision-language classifier that can only be queried.

    A local black box is a pytree and its methods can be traced by jax.jit, vmap and pmap, but never differentiated.
    A run has it as a `Metered`, which counts what is asked.
    """

    def encode_images(self, images: UInt8[Array | np.ndarray, "N size size 3"]) -> Handle:
        """Takes RGB images in; their handle answers any number of queries."""

    def predict(
        self, prompts: Float[Array, "K n_ctx d"] | Float[Array, "K C n_ctx d"], handle: Handle
    ) -> Float[Array, "K N C"]:
        """The logits of N images under each of K soft prompts, or K sets of one soft prompt a class."""

    def predict_texts(self, texts: Sequence[str], handle: Handle) -> Float[Array, "N T"]:
        """The logits of N images for each of T whole texts, up to a constant an image; asked from the host."""


class Description(struct.PyTreeNode):
    """What a black box tells of itself, kept; `Described` says what each part is."""

    _initial_prompt: Array
    _image_size: int = struct.field(pytree_node=False)
    _class_names: tuple[str, ...] = struct.field(pytree_node=False)
    _identity: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False)
    _resizing: pixels.Resizing = struct.field(pytree_node=False, default=pixels.USUAL, kw_only=True)

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        return dict(self._identity)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the logits."""
        return self._class_names

    @property
    def image_size(self) -> int:
        """Side of the square images that it takes, in pixels."""
        return self._image_size

    @property
    def resizing(self) -> pixels.Resizing:
        """How a photograph is resized before that square is cut out of it."""
        return self._resizing

    @property
    def initial_prompt(self) -> Float[Array, "n_ctx d"]:
        """The unlearnt soft prompt."""
        return self._initial_prompt


def opaque(query: F) -> F:
    """Makes a pure function of pytrees refuse differentiation, forward and reverse, with GradientRefused."""
    name = query.__qualname__
    walled = jax.custom_jvp(query)

    @walled.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise GradientRefused(
            f"{name} is a black box: it answers queries but gives no gradient. "
            "Estimate one from its losses instead (craft_jax.method.estimators)."
        )

    return walled  # type: ignore[return-value]


def captions(black_box: Described, names: Sequence[str]) -> list[str]:
    """The caption of each name, by the black box's template."""
    template = black_box.identity["template"]
    return [template.replace("{}", name) for name in names]


def check_finite(numbers: Any, black_box: Described) -> None:
    """Raises UserError where a black box has answered, or brought about, NaN or infinity."""
    if not np.isfinite(np.asarray(numbers)).all():
        raise UserError(
            f"{black_box.identity['model']} answers numbers that are not finite; look at its weights, or compute in "
            "float32 (black_box.dtype)"
        )


def join_handles(handles: list[Handle]) -> Handle:
    """The handle of all images of `handles`, in order, in the host's memory."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *handles)


def draw_views(stacked: Handle, views: Int[Array, "E N"]) -> Handle:
    """The handle of E N images, E times over the N images, each in the view named; from leaves [V, N, ...]."""
    rows = jax.numpy.broadcast_to(jax.numpy.arange(views.shape[1]), views.shape)
    return jax.tree.map(lambda leaf: leaf[views.ravel(), rows.ravel()], stacked)
