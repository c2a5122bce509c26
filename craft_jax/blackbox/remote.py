"""A black box that is asked from the host: an API, another process, another library. NumPy goes out, NumPy comes back.

The rest of the package sees the same interface as of a local one. It is asked from one device, each query exactly once.
"""

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import io_callback
from jaxtyping import Array, Float, Int, UInt8

from craft_jax.blackbox.interface import SOFT_PROMPTS, TEXTS, Description, Handle, opaque
from craft_jax.errors import UserError, silenced

_LEAST_PROBABILITY = 1e-6  # APIs round, and log 0 is no logit
_KIND = "remote"


class Owner(Protocol):
    """What asks the owner of the model; yours to write. Called once at a time, from several threads.

    One that takes no soft prompts leaves out `predict`, one that takes no texts `predict_texts`.
    """

    def encode_images(self, images: UInt8[np.ndarray, "N size size 3"]) -> Sequence[Any]:
        """Sends RGB images; N of anything that stands for them in queries, such as the owner's numbers for them."""

    def predict(
        self, prompts: Float[np.ndarray, "K n_ctx d"] | Float[np.ndarray, "K C n_ctx d"], images: Sequence[Any]
    ) -> Float[np.ndarray, "K N C"]:
        """The answers about N images under each of K soft prompts, or K sets of one soft prompt a class.

        A run asks in both forms: zero-shot is one prompt for all classes.
        """

    def predict_texts(self, texts: Sequence[str], images: Sequence[Any]) -> Float[np.ndarray, "N T"]:
        """The answers about N images for each of T texts, whole captions; probabilities are over all T."""


class _Desk:
    """Where queries leave and answers arrive, on the host.

    Args:
      owner: who is asked.
      probabilities: whether answers are probabilities, taken as `logits_of` them.
      classes: C.
    """

    def __init__(self, owner: Owner, probabilities: bool, classes: int) -> None:
        self.owner, self._probabilities, self._classes = owner, probabilities, classes
        self._taken: list[Any] = []
        self._one_at_a_time = threading.Lock()
        self._told = False
        self.failure: Exception | None = None

    def take(self, images: UInt8[Array | np.ndarray, "N size size 3"]) -> Int[np.ndarray, " N"]:
        """Sends images; their places in what has been taken."""
        images = np.asarray(images)
        count = _unpadded(images)
        with self._asking():
            taken = self.owner.encode_images(images[:count])
            if len(taken) != count:
                raise UserError(f"encode_images answered {len(taken)} handles for {count} images; return one for each")
            places = np.minimum(np.arange(len(images)), count - 1) + len(self._taken)
            self._taken.extend(taken)
        return places.astype(np.int32)

    def ask(self, prompts: Any, places: Any) -> Float[np.ndarray, "K N C"]:
        """Sends queries, [K, n_ctx, d] or [K, C, n_ctx, d], about images at N places; their answers as logits."""
        prompts = np.asarray(prompts)
        count, images = _unpadded(prompts), [self._taken[place] for place in np.asarray(places)]
        with self._asking():
            answers = self.owner.predict(prompts[:count], images)
            logits = self._logits("predict", answers, (count, len(images), self._classes), "[K, N, C]")
        return logits[np.minimum(np.arange(len(prompts)), count - 1)]

    def ask_texts(self, texts: Sequence[str], places: Any) -> Float[np.ndarray, "N T"]:
        """Sends texts about images at N places; their answers as logits."""
        images = [self._taken[place] for place in np.asarray(places)]
        with self._asking():
            answers = self.owner.predict_texts(texts, images)
            return self._logits("predict_texts", answers, (len(images), len(texts)), "[N, T]")

    def _logits(self, name: str, answers: Any, expected: tuple[int, ...], axes: str) -> np.ndarray:
        """What an owner's method has answered, as logits; raises UserError where it cannot be that."""
        answers = np.asarray(answers, np.float32)
        if answers.shape != expected:
            raise UserError(f"{name} answered an array of shape {answers.shape}, not {expected}, {axes}")
        if not np.isfinite(answers).all():
            raise UserError(
                f"{name} answered numbers that are not finite; raise an error in the place of such an answer"
            )
        if self._probabilities:
            self._check_probabilities(name, answers)
            answers = logits_of(answers)
        return answers

    def _check_probabilities(self, name: str, answers: Float[np.ndarray, "*K N C"]) -> None:
        """Raises UserError where they are none; says once where they lack most of what probabilities tell."""
        sums = answers.sum(axis=-1)
        if answers.min() < 0:
            raise UserError(f"{name} answered negative probabilities; for logits connect without probabilities=True")
        if (abs(sums - 100) < 10).all():
            raise UserError(f"{name} answered percentages, which sum to 100; divide them by 100")
        zeros = float((answers == 0).mean())
        if self._told or (zeros < 0.5 and (abs(sums - 1) < 0.5).all()):
            return
        self._told = True
        found = f"{zeros:.0%} of them are exactly 0" if zeros >= 0.5 else f"they sum to {sums.mean():.3g}"
        print(
            f"note: {name} answers probabilities of which {found}; answers for the likeliest classes alone, or of "
            "another kind, tell little of the rest, and tuning may end below zero-shot",
            file=sys.stderr,
            flush=True,
        )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        with self._one_at_a_time:
            try:
                yield
            except Exception as error:
                self.failure = error
                raise


class RemoteBlackBox(Description):
    """A black box behind an `Owner`; see `interface.BlackBox` for its interface. Build it with `connect`.

    Its identity is its name, and a fingerprint of all that `connect` was told.
    """

    _desk: _Desk = struct.field(pytree_node=False)
    _takes: frozenset[str] = struct.field(pytree_node=False)

    @property
    def takes(self) -> frozenset[str]:
        """What its owner has methods for."""
        return self._takes

    def encode_images(self, images: UInt8[Array | np.ndarray, "N size size 3"]) -> Handle:
        """Sends images; repeats of the last one at the end, which pad a batch, are not sent."""
        if isinstance(images, jax.core.Tracer):
            return _encode_images(self, images)
        return jnp.asarray(self._desk.take(images))

    def predict(
        self, prompts: Float[Array, "K n_ctx d"] | Float[Array, "K C n_ctx d"], handle: Handle
    ) -> Float[Array, "K N C"]:
        """Sends queries; repeats of the last prompt at the end, which pad a chunk, are not sent."""
        if isinstance(prompts, jax.core.Tracer) or isinstance(handle, jax.core.Tracer):
            return _predict(self, prompts, handle)
        return jnp.asarray(self._desk.ask(prompts, handle))

    def predict_texts(self, texts: Sequence[str], handle: Handle) -> Float[Array, "N T"]:
        """Sends texts, whole captions."""
        return jnp.asarray(self._desk.ask_texts(list(texts), handle))


def connect(
    owner: Owner,
    class_names: Sequence[str],
    initial_prompt: Float[Array | np.ndarray, "n_ctx d"] | None = None,
    *,
    image_size: int,
    name: str,
    probabilities: bool = False,
    template: str = "a photo of a {}.",
    about: Mapping[str, Any] | None = None,
    fingerprint: str = "",
) -> RemoteBlackBox:
    """Puts whoever answers queries behind the interface.

    Args:
      owner: asks it; see `Owner`. What it raises ends a run, which the same call resumes. What it returns for images is
        kept as long as the process.
      class_names: C names, one per label, in the order of the answers.
      initial_prompt: p0, where the search starts: as a rule the embedded words of a template. None where the owner
        takes texts alone.
      image_size: side of the square images to send, in pixels.
      name: of the model and its version. A checkpoint is for one name, first prompt, image size and kind of answers.
      probabilities: whether it answers probabilities in the place of logits; see `logits_of`.
      template: caption of a class, for texts.
      about: more of its identity, as JSON values that hash.
      fingerprint: by which it is told from another; by default of the above.

    Raises:
      UserError: where the first prompt is no [n_ctx, d], the owner takes neither soft prompts nor texts, or XLA has one
        thread alone.
    """
    _check_threads()
    takes = _takes(owner, initial_prompt)
    # One that is never asked, where there is none: checkpoints hold no empty arrays.
    start = np.asarray(np.zeros((1, 1)) if initial_prompt is None else initial_prompt, np.float32)
    if SOFT_PROMPTS in takes and (start.ndim != 2 or not start.size):
        raise UserError(f"initial_prompt has shape {start.shape}, not [n_ctx, d]")
    told = f"{name} {image_size} {probabilities} {start.shape}".encode()
    fingerprint = fingerprint or hashlib.sha256(told + start.tobytes()).hexdigest()[:16]
    return RemoteBlackBox(
        _initial_prompt=jnp.asarray(start),
        _desk=_Desk(owner, probabilities, len(class_names)),
        _takes=takes,
        _image_size=image_size,
        _class_names=tuple(class_names),
        _identity=(
            ("model", name),
            ("template", template if TEXTS in takes else ""),
            ("dtype", _KIND),
            ("fingerprint", fingerprint),
            *(about or {}).items(),
        ),
    )


def _takes(owner: Owner, initial_prompt: Any) -> frozenset[str]:
    """What an owner takes, by the methods that it has."""
    if initial_prompt is not None and not hasattr(owner, "predict"):
        raise UserError("initial_prompt is given, and the owner has no method predict to ask soft prompts by")
    texts = {TEXTS} if hasattr(owner, "predict_texts") else set()
    takes = texts if initial_prompt is None else texts | {SOFT_PROMPTS}
    if not takes:
        raise UserError(
            "the owner takes no texts (it has no method predict_texts); give the initial_prompt of a search"
        )
    return frozenset(takes)


def _check_threads() -> None:
    """Raises UserError where XLA has one thread alone: in a callback it would wait for its own copy of the query."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores == 1 and not os.environ.get("NPROC"):
        raise UserError("a remote black box needs two threads and this machine has one core; start Python with NPROC=2")


def logits_of(probabilities: Float[Any, "*K N C"], numpy: Any = np) -> Float[Any, "*K N C"]:
    """Logits less their mean over classes, which is all that probabilities tell of them; `numpy` may be JAX's.

    Less their mean, and not less the logarithm of a sum as softmax leaves them: that follows the likely classes alone,
    and would tell each class's own prompt more of what others' did (`method.candidates.by_class`).
    """
    logs = numpy.log(numpy.maximum(probabilities, _LEAST_PROBABILITY))
    return logs - logs.mean(axis=-1, keepdims=True)


def is_remote(identity: Mapping[str, Any]) -> bool:
    """Whether an identity is a remote black box's."""
    return bool(identity["dtype"] == _KIND)


@contextlib.contextmanager
def owners_errors(black_box: Any) -> Iterator[None]:
    """Raises what an owner has raised inside a compiled program in the place of XLA's report of it."""
    desk = black_box._desk if isinstance(black_box, RemoteBlackBox) else None
    if desk is None:
        yield
        return
    desk.failure = None
    with silenced("jax._src.callback"):  # it would show the owner's error, traceback and all, before we do
        try:
            yield
        except jax.errors.JaxRuntimeError:
            if desk.failure is None:
                raise
            raise desk.failure from None


@opaque
def _encode_images(black_box: RemoteBlackBox, images: Any) -> Handle:
    return io_callback(black_box._desk.take, jax.ShapeDtypeStruct(images.shape[:1], jnp.int32), images)


@opaque
def _predict(black_box: RemoteBlackBox, prompts: Array, handle: Handle) -> Array:
    shape = (prompts.shape[0], handle.shape[0], len(black_box.class_names))
    return io_callback(black_box._desk.ask, jax.ShapeDtypeStruct(shape, jnp.float32), prompts, handle)


def _unpadded(rows: np.ndarray) -> int:
    """How many rows there are without those at the end that repeat the last one."""
    same = (rows == rows[-1]).reshape(len(rows), -1).all(axis=1)
    return 1 if same.all() else min(len(rows), len(rows) - int(np.argmin(same[::-1])) + 1)
