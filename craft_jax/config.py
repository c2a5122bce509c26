"""Settings: defaults, types and ranges, with one clear error for a bad value.

Read once at the edge, validated once, then frozen. `configs/*.py` turn these defaults into ConfigDicts that the command
line can override; `from_config_dict` brings them back.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from craft_jax.errors import UserError

BUNDLED = "bundled"

Rule = tuple[Callable[[Any], bool], str]


def _one_of(*allowed: str) -> Rule:
    return (lambda value: value in allowed), "must be one of " + ", ".join(allowed)


def _at_least(low: int) -> Rule:
    return (lambda value: value >= low), f"must be at least {low}"


_POSITIVE: Rule = (lambda value: value > 0), "must be above 0"
_NOT_NEGATIVE: Rule = (lambda value: value >= 0), "must be 0 or more"
_SHARE: Rule = (lambda value: 0 <= value <= 1), "must lie between 0 and 1"
_SEED: Rule = (lambda value: 0 <= value < 2**32), "must lie between 0 and 2**32 - 1"
_EVEN: Rule = (lambda value: value >= 2 and value % 2 == 0), "must be even and at least 2: candidates come in pairs"
_TEMPLATE: Rule = (
    lambda value: value.count("{}") == 1 and bool(value.split("{}")[0].strip()),
    "must hold {} once, with words before it that start the soft prompt",
)


def _setting(default: Any, rule: Rule | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the photographs come from and how shots are drawn.

    Attributes:
      source: `coop` (a folder and a split file in CoOp's form) or `tfds` (TensorFlow Datasets).
      root: folder that holds the data; `bundled` is the set inside the package; for `tfds` its data_dir.
      images: folder of the split file's paths, below root (coop).
      split: the split file, below root (coop).
      name: name of the TFDS data set (tfds).
      shots: training photographs a class, drawn as CoOp draws them.
      with_replacement: draw with replacement, as CoOp does, from a class with fewer photographs than shots.
      views: augmented views of each training photograph, encoded once; 0 uses the centre crop alone.
    """

    source: str = _setting("coop", _one_of("coop", "tfds"))
    root: str = _setting(BUNDLED)
    images: str = _setting("images")
    split: str = _setting("split_caltech24_64px.json")
    name: str = _setting("")
    shots: int = _setting(16, _at_least(1))
    with_replacement: bool = _setting(False)
    views: int = _setting(32, _at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlackBoxConfig:
    """The model that may only be queried.

    Attributes:
      model: `bundled`; a folder in the transformers layout or, for ResNets, in open_clip's; a hub name such as
        openai/clip-vit-base-patch16; or OpenAI's RN50, RN101, RN50x4, RN50x16, RN50x64.
      template: caption of a class; the words before `{}` start the soft prompt and set n_ctx.
      dtype: that its towers compute in, float32 or bfloat16; losses are float32 either way.
    """

    model: str = _setting(BUNDLED)
    template: str = _setting("a photo of a {}.", _TEMPLATE)
    dtype: str = _setting("float32", _one_of("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The map from z to the soft prompt, p(z) = p0 + A z.

    Attributes:
      intrinsic_dim: how many numbers z has.
      std: standard deviation of A's entries.
      bound: clips each coordinate of z to [-bound, bound]; 0 leaves it free.
    """

    intrinsic_dim: int = _setting(512, _at_least(1))
    std: float = _setting(0.02, _POSITIVE)
    bound: float = _setting(0.0, _NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The antithetic zeroth-order search over z.

    Attributes:
      population_size: prompts queried in a step, in antithetic pairs.
      sigma: length of the perturbation, in units of z.
      directions: `orthogonal` or `gaussian`.
      shaping: `ranks` (centred ranks) or `none` (the losses themselves).
      learning_rate: Adam's, decayed to zero by a cosine over the budget.
      fitness: which predictions' cross-entropy judges a candidate: `refined` (with the head of the moment) or `prompt`
        (as published).
    """

    population_size: int = _setting(40, _EVEN)
    sigma: float = _setting(0.1, _POSITIVE)
    directions: str = _setting("orthogonal", _one_of("orthogonal", "gaussian"))
    shaping: str = _setting("ranks", _one_of("ranks", "none"))
    learning_rate: float = _setting(0.05, _POSITIVE)
    fitness: str = _setting("refined", _one_of("refined", "prompt"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """The residual head on the predictions.

    Attributes:
      hidden: its hidden width.
      dropout: share of hidden units that training drops.
      mixup: trains on random mixtures of two images' predictions.
      epochs: over the training images in each step, each on other views.
      learning_rate: Adam's, decayed to zero by a cosine over the run.
      batch_size: images in a minibatch.
    """

    hidden: int = _setting(256, _at_least(1))
    dropout: float = _setting(0.5, _SHARE)
    mixup: bool = _setting(True)
    epochs: int = _setting(3, _at_least(1))
    learning_rate: float = _setting(3e-3, _POSITIVE)
    batch_size: int = _setting(256, _at_least(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """The loss that ties prompt and head.

    Attributes:
      weight: lambda, on both sides.
      head_share: share of the query budget during which the head's side counts (the paper's 1 / n).
    """

    weight: float = _setting(0.1, _NOT_NEGATIVE)
    head_share: float = _setting(0.25, _SHARE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How the run is carried out; nothing here changes what is learnt.

    Attributes:
      devices: how many to use; 0 takes all.
      chunk_pairs: antithetic pairs that one device evaluates at once, which bounds memory; 0 chooses for the machine.
      steps_per_call: collaborative steps inside one compiled call, and between two log lines.
      eval_every: steps between two test evaluations for the curve; 0 evaluates at the end alone.
      checkpoint_every: steps between two checkpoints.
      reuse_features: keeps encoded images in the user's cache folder, for later runs with the same images and model.
    """

    devices: int = _setting(0, _at_least(0))
    chunk_pairs: int = _setting(0, _at_least(0))
    steps_per_call: int = _setting(5, _at_least(1))
    eval_every: int = _setting(20, _at_least(0))
    checkpoint_every: int = _setting(50, _at_least(1))
    reuse_features: bool = _setting(True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    Attributes:
      seed: of the shots and of everything random.
      query_budget: prompts that the search may query; the paper's count.
      learn: `both`, or an ablation: `prompt` or `refinement` alone.
    """

    seed: int = _setting(1, _SEED)
    query_budget: int = _setting(8000, _at_least(1))
    learn: str = _setting("both", _one_of("both", "prompt", "refinement"))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    black_box: BlackBoxConfig = dataclasses.field(default_factory=BlackBoxConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    refinement: RefinementConfig = dataclasses.field(default_factory=RefinementConfig)
    consistency: ConsistencyConfig = dataclasses.field(default_factory=ConsistencyConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Raises UserError where a value is of the wrong type, out of range, or at odds with another."""
        _validate(self, prefix="")
        if self.query_budget < self.search.population_size:
            raise UserError(
                f"query_budget={self.query_budget} does not pay for one step of "
                f"search.population_size={self.search.population_size}; raise the one or lower the other"
            )
        pairs = self.search.population_size // 2
        if self.search.directions == "orthogonal" and pairs > self.prompt.intrinsic_dim:
            raise UserError(
                f"search.directions=orthogonal has room for {self.prompt.intrinsic_dim} pairs (prompt.intrinsic_dim), "
                f"not for {pairs}; lower search.population_size or use gaussian"
            )

        for name in ("eval_every", "checkpoint_every"):
            every = getattr(self.run, name)
            if every % self.run.steps_per_call:
                raise UserError(
                    f"run.{name}={every} must be a multiple of run.steps_per_call={self.run.steps_per_call}"
                )

    @property
    def steps(self) -> int:
        """Collaborative steps that the budget pays for."""
        return self.query_budget // self.search.population_size


def _validate(section: Any, prefix: str) -> None:
    for field in dataclasses.fields(section):
        name, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            _validate(value, prefix=f"{name}.")
            continue
        if not _has_type(value, field.type):
            raise UserError(f"{name}={value!r} must be {_type_name(field.type)}, not {type(value).__name__}")
        rule = field.metadata.get("rule")
        if rule and not rule[0](value):
            raise UserError(f"{name}={value!r} {rule[1]}")


def _type_name(expected: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}.get(expected, str(expected))


def _has_type(value: Any, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The settings as a ConfigDict, which the command line can override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
    """Validated settings from a ConfigDict or nested mapping; what is left out takes its default.

    Raises:
      UserError: for an unknown setting (with the nearest known one), a wrong type, or a value out of range.
    """
    return _build(Config, values, prefix="")


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full name, such as `data.shots`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"unknown setting {prefix}{name}{_did_you_mean(name, known)}")
        section = known[name].type
        if isinstance(section, type) and dataclasses.is_dataclass(section):
            if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
                raise UserError(
                    f"{prefix}{name} is a group of settings; set one of them, as in {prefix}{name}.NAME=..."
                )
            value = _build(section, value, prefix=f"{prefix}{name}.")
        arguments[name] = value
    return cls(**arguments)


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known here: {', '.join(known)}"
