"""Settings: defaults, types and ranges, with one clear error for a bad value.

Read once at the edge, validated once, then frozen. `configs/*.py` turn these defaults into ConfigDicts that the command
line can override (`mappings`).
"""

import dataclasses

from craft_jax.config.api import FORMS, ApiConfig, check_api
from craft_jax.config.checks import check_budget, check_search
from craft_jax.config.language import TEXTS_ALONE, ChatConfig, LanguageConfig
from craft_jax.config.probes import DeployConfig, ProbeConfig
from craft_jax.config.validation import (
    CLIP,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    TEMPLATE,
    at_least,
    check,
    one_of,
    setting,
)
from craft_jax.errors import UserError

BUNDLED = "bundled"
DEFAULT_BUDGET = 8000
GAUSS_NEWTON = "gauss-newton"
ESTIMATORS = (GAUSS_NEWTON, "antithetic", "guided", "spsa", "one-sided", "cma-es", "white-box")
CALIBRATION_PROMPTS = 21  # p0, and ten sizes of perturbation in pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the photographs come from and how shots are drawn.

    Attributes:
      source: `coop` (images and a split file in CoOp's form), `fgvc` (FGVC-Aircraft's own lists), `imagenet` (its
        folders and class names), `folder` (a sub-folder a class), `csv` (a list of path,label) or `tfds` (TensorFlow
        Datasets).
      name: what tables call the set; one of the field's sets goes by its name in `config.published`.
      root: folder that holds the data; `bundled` is the set inside the package; for `tfds` its data_dir.
      images: folder of the images, below root; with `coop` a zip archive of it will do.
      split: below root, the split file (coop), the folder of lists (fgvc), the class names (imagenet) or the list
        (csv); for `tfds` a split file in CoOp's form to follow instead of TFDS's own split.
      tfds: what TFDS calls the set (tfds).
      split_seed: of the automatic split (folder, and csv without a column `split`); not the run's seed, so that all
        runs are tested on the same photographs.
      classes: `all`, or the `base` or `new` half of them, by label.
      shots: training photographs a class, drawn as CoOp draws them.
      with_replacement: draw with replacement, as CoOp does, from a class with fewer photographs than shots.
      views: of each training photograph, encoded once: random crops, but where texts are asked (`probe`) the centre
        crop first and its mirror image second, and of many photographs there are fewer (`probe.most_views`); 0 uses
        the centre crop alone.
    """

    source: str = setting("coop", one_of("coop", "fgvc", "imagenet", "folder", "csv", "tfds"))
    name: str = setting("")
    root: str = setting(BUNDLED)
    images: str = setting("")
    split: str = setting("")
    tfds: str = setting("")
    split_seed: int = setting(0, SEED)
    classes: str = setting("all", one_of("all", "base", "new"))
    shots: int = setting(16, at_least(1))
    with_replacement: bool = setting(False)
    views: int = setting(8, at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlackBoxConfig:
    """The model that may only be queried.

    Attributes:
      model: `bundled`; a folder in the transformers layout or, for ResNets, in open_clip's; a hub name such as
        openai/clip-vit-base-patch16; or OpenAI's RN50, RN101, RN50x4, RN50x16, RN50x64. With `api` an address.
      api: form of the requests to a model that is not on this machine: `labels` (Hugging Face's zero-shot image
        classification), `compare` (Roboflow's CLIP), `rank` (clip-as-service), `embeddings` or `chat` (OpenAI's forms),
        or `soft` (our own, for soft prompts); empty for a local one.
      template: caption of a class; the words before `{}` start the soft prompt and set n_ctx.
      dtype: that its towers compute in, float32 or bfloat16; losses are float32 either way.
    """

    model: str = setting(BUNDLED)
    api: str = setting("", one_of("", *FORMS))
    template: str = setting("a photo of a {}.", TEMPLATE)
    dtype: str = setting("float32", one_of("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The map from z to soft prompts, p(z) = p0 + A z.

    Attributes:
      context: `class`, a soft prompt of its own for each class, judged by what it did to its class's predictions;
        `unified`, one for all, as published; `full`, one for all without A; `low-rank`, ZIP's.
      intrinsic_dim: how many numbers z has, or each class's z; m of `low-rank`; `full` needs none.
      std: standard deviation of A's entries, or those of `low-rank`'s maps; of `full`, the unit of z. 0 measures it
        with the first queries, so that a perturbation of sigma = 1 is the largest that predictions still follow
        linearly (`calibration`); with search.estimator=gauss-newton it is the root mean square of p0, unasked.
      bound: clips each coordinate of z to [-bound, bound]; 0 leaves it free.
      rank: of `low-rank`.
    """

    context: str = setting("class", one_of("unified", "class", "full", "low-rank"))
    intrinsic_dim: int = setting(256, at_least(1))
    std: float = setting(0.0, NOT_NEGATIVE)
    bound: float = setting(0.0, NOT_NEGATIVE)
    rank: int = setting(5, at_least(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search over z.

    Attributes:
      estimator: `gauss-newton` (whole answers, fitted to the probes' head: `method.gauss_newton`); `antithetic`;
        `guided` (antithetic, one pair along the previous estimate); `spsa` (ZIP's); `one-sided` (CBBT's);
        `cma-es` (the paper's); `white-box` (the true gradient of a local model: no black-box
        method, but the bound for studies; it is booked as population_size prompts a step).
      population_size: prompts queried in a step.
      query_images: training images that answer a query, drawn anew each step and the same for all its prompts; 0, or
        more than there are, asks for all.
      sigma: length of the perturbation, in units of z.
      directions: `orthogonal`, `gaussian`, `rademacher` (SPSA's) or `sphere`.
      shaping: `ranks` (centred ranks) or `none` (the losses themselves).
      optimizer: `adam`, `momentum` or `sgd`.
      schedule: of the learning rate, `cosine` (to zero over the budget), `constant`, or `spall` (ZIP's: learning rate
        over (k + 1)^0.4 and sigma over k^0.1 at step k, the first being 1).
      learning_rate: of the optimiser, in units of z.
      clip: largest norm of an estimate; 0 does not clip; -1 is the square root of the number of coordinates.
      fitness: which predictions' cross-entropy judges a candidate: `prompt` (its own, as published), `refined` (with
        the head of the moment), or the mean of `both`: a head that fits the few shots leaves little loss to search by,
        and the prompt's own does not see what the head corrects.
      guarded: takes a search that diverges back to its best point and halves its steps.
    """

    estimator: str = setting("gauss-newton", one_of(*ESTIMATORS))
    population_size: int = setting(20, at_least(2))
    query_images: int = setting(0, at_least(0))
    sigma: float = setting(0.02, POSITIVE)
    directions: str = setting("orthogonal", one_of("orthogonal", "gaussian", "rademacher", "sphere"))
    shaping: str = setting("none", one_of("ranks", "none"))
    optimizer: str = setting("adam", one_of("adam", "momentum", "sgd"))
    schedule: str = setting("cosine", one_of("cosine", "constant", "spall"))
    learning_rate: float = setting(1.0, POSITIVE)
    clip: float = setting(0.0, CLIP)
    fitness: str = setting("both", one_of("both", "refined", "prompt"))
    guarded: bool = setting(True)


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
    epochs: int = setting(1, at_least(1))
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
    """How the run is carried out; but for `chunk_pairs` nothing here changes what is learnt.

    The same settings may change where a run is resumed.

    Attributes:
      devices: how many to use, in equal shares of every host; 0 takes all.
      chunk_pairs: antithetic pairs that one device evaluates at once, which bounds memory; 0 chooses for the machine.
        Sums in other groups round otherwise, so that a run keeps it.
      steps_per_call: collaborative steps inside one compiled call, and between two log lines.
      eval_every: most steps between two test evaluations for the curve, which of a local model has six where the run
        is short; 0 evaluates at the end alone.
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
      query_budget: prompts that the search may query; the paper's count. 0 is 8,000, and in a sweep the published one
        for the number of shots.
      learn: `both`, or an ablation: `prompt` or `refinement` alone, the `probes` without a search, or the `texts` that
        a search over language finds (`language`).
      held_out: photographs, never tested on, whose loss chooses between zero-shot, the tuned prompt, the tuned prompt
        with the head, and the probes with theirs, and adjusts the last: `validation` (the set's own, at most 4 a class,
        where it has any), `shots` (a quarter of the shots, which are then not trained on), or `none` (the probes with
        their head, or the prompt with the head where no texts are asked, unseen).
    """

    seed: int = setting(1, SEED)
    query_budget: int = setting(0, at_least(0))
    learn: str = setting("both", one_of("both", "prompt", "refinement", "probes", "texts"))
    held_out: str = setting("validation", one_of("validation", "shots", "none"))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    black_box: BlackBoxConfig = dataclasses.field(default_factory=BlackBoxConfig)
    api: ApiConfig = dataclasses.field(default_factory=ApiConfig)
    probe: ProbeConfig = dataclasses.field(default_factory=ProbeConfig)
    language: LanguageConfig = dataclasses.field(default_factory=LanguageConfig)
    chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
    deploy: DeployConfig = dataclasses.field(default_factory=DeployConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    refinement: RefinementConfig = dataclasses.field(default_factory=RefinementConfig)
    consistency: ConsistencyConfig = dataclasses.field(default_factory=ConsistencyConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Raises UserError where a value is of the wrong type, out of range, or at odds with another."""
        check(self, prefix="")
        check_api(self.black_box.model, self.black_box.api, self.api)
        check_budget(self)
        check_search(self.search, self.prompt)
        for name in ("eval_every", "checkpoint_every"):
            every = getattr(self.run, name)
            if every % self.run.steps_per_call:
                raise UserError(
                    f"run.{name}={every} must be a multiple of run.steps_per_call={self.run.steps_per_call}"
                )

    @property
    def budget(self) -> int:
        """Prompts that the search may query, where no sweep says otherwise."""
        return self.query_budget or DEFAULT_BUDGET

    @property
    def steps(self) -> int:
        """Collaborative steps that the budget pays for after measuring the prompt's scale, were no texts asked."""
        if self.learn in TEXTS_ALONE:
            return 0
        return (self.budget - self.calibration_prompts) // self.search.population_size

    @property
    def calibration_prompts(self) -> int:
        """Prompts queried before the first step, to measure the prompt's scale."""
        measured = self.prompt.std == 0 and self.search.estimator != GAUSS_NEWTON
        return CALIBRATION_PROMPTS if measured and self.learn in ("both", "prompt") else 0
