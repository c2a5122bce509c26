"""Settings: defaults, types and ranges, with one clear error for a bad value.

Read once at the edge, validated once, then frozen. `configs/*.py` turn these defaults into ConfigDicts that the command
line can override; `from_config_dict` brings them back.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from craft_jax.errors import UserError
from craft_jax.validation import (
    EVEN,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    TEMPLATE,
    at_least,
    build,
    check,
    one_of,
    setting,
)

BUNDLED = "bundled"


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

    source: str = setting("coop", one_of("coop", "tfds"))
    root: str = setting(BUNDLED)
    images: str = setting("images")
    split: str = setting("split_caltech24_64px.json")
    name: str = setting("")
    shots: int = setting(16, at_least(1))
    with_replacement: bool = setting(False)
    views: int = setting(32, at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlackBoxConfig:
    """The model that may only be queried.

    Attributes:
      model: `bundled`; a folder in the transformers layout or, for ResNets, in open_clip's; a hub name such as
        openai/clip-vit-base-patch16; or OpenAI's RN50, RN101, RN50x4, RN50x16, RN50x64.
      template: caption of a class; the words before `{}` start the soft prompt and set n_ctx.
      dtype: that its towers compute in, float32 or bfloat16; losses are float32 either way.
    """

    model: str = setting(BUNDLED)
    template: str = setting("a photo of a {}.", TEMPLATE)
    dtype: str = setting("float32", one_of("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The map from z to the soft prompt, p(z) = p0 + A z.

    Attributes:
      intrinsic_dim: how many numbers z has.
      std: standard deviation of A's entries.
      bound: clips each coordinate of z to [-bound, bound]; 0 leaves it free.
    """

    intrinsic_dim: int = setting(512, at_least(1))
    std: float = setting(0.02, POSITIVE)
    bound: float = setting(0.0, NOT_NEGATIVE)


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

    population_size: int = setting(40, EVEN)
    sigma: float = setting(0.1, POSITIVE)
    directions: str = setting("orthogonal", one_of("orthogonal", "gaussian"))
    shaping: str = setting("ranks", one_of("ranks", "none"))
    learning_rate: float = setting(0.05, POSITIVE)
    fitness: str = setting("refined", one_of("refined", "prompt"))


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

    hidden: int = setting(256, at_least(1))
    dropout: float = setting(0.5, SHARE)
    mixup: bool = setting(True)
    epochs: int = setting(3, at_least(1))
    learning_rate: float = setting(3e-3, POSITIVE)
    batch_size: int = setting(256, at_least(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """The loss that ties prompt and head.

    Attributes:
      weight: lambda, on both sides.
      head_share: share of the query budget during which the head's side counts (the paper's 1 / n).
    """

    weight: float = setting(0.1, NOT_NEGATIVE)
    head_share: float = setting(0.25, SHARE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How the run is carried out; nothing here changes what is learnt.

    Attributes:
      devices: how many to use, in equal shares of every host; 0 takes all.
      chunk_pairs: antithetic pairs that one device evaluates at once, which bounds memory; 0 chooses for the machine.
      steps_per_call: collaborative steps inside one compiled call, and between two log lines.
      eval_every: steps between two test evaluations for the curve; 0 evaluates at the end alone.
      checkpoint_every: steps between two checkpoints.
      shard_images: `yes` keeps a share of the encoded training images on each device and gathers the views that a step
        draws; `no` keeps all on every device; `auto` shares them where they would fill a quarter of its memory.
      reuse_features: keeps encoded images in the user's cache folder, for later runs with the same images and model.
    """

    devices: int = setting(0, at_least(0))
    chunk_pairs: int = setting(0, at_least(0))
    steps_per_call: int = setting(5, at_least(1))
    eval_every: int = setting(20, at_least(0))
    checkpoint_every: int = setting(50, at_least(1))
    shard_images: str = setting("auto", one_of("auto", "yes", "no"))
    reuse_features: bool = setting(True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    Attributes:
      seed: of the shots and of everything random.
      query_budget: prompts that the search may query; the paper's count.
      learn: `both`, or an ablation: `prompt` or `refinement` alone.
    """

    seed: int = setting(1, SEED)
    query_budget: int = setting(8000, at_least(1))
    learn: str = setting("both", one_of("both", "prompt", "refinement"))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    black_box: BlackBoxConfig = dataclasses.field(default_factory=BlackBoxConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    refinement: RefinementConfig = dataclasses.field(default_factory=RefinementConfig)
    consistency: ConsistencyConfig = dataclasses.field(default_factory=ConsistencyConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Raises UserError where a value is of the wrong type, out of range, or at odds with another."""
        check(self, prefix="")
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


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The settings as a ConfigDict, which the command line can override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
    """Validated settings from a ConfigDict or nested mapping; what is left out takes its default.

    Raises:
      UserError: for an unknown setting (with the nearest known one), a wrong type, or a value out of range.
    """
    return build(Config, values, prefix="")


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full name, such as `data.shots`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
