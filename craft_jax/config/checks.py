"""Settings that must fit one another: what the budget pays for, and what a search can do with a prompt."""

from typing import TYPE_CHECKING

from craft_jax.config.language import TEXTS_ALONE
from craft_jax.errors import UserError

if TYPE_CHECKING:
    from craft_jax.config.settings import Config, PromptConfig, SearchConfig

_SMALLEST_GAUSS_NEWTON = 5
_IN_PAIRS = ("antithetic", "guided", "spsa")


def check_budget(config: "Config") -> None:
    """Raises UserError where nothing could be learnt within the budget."""
    if config.learn in TEXTS_ALONE and not config.probe.texts:
        raise UserError(f"learn={config.learn} asks texts, and probe.texts=0 allows none; raise probe.texts")
    if config.search.estimator == "gauss-newton" and config.learn != "refinement" and not config.probe.texts:
        raise UserError(
            "search.estimator=gauss-newton fits prompts to the probes' head; raise probe.texts, or choose "
            "search.estimator=antithetic"
        )
    if config.steps < 1 and not config.probe.texts:
        raise UserError(_too_little(config))


def _too_little(config: "Config") -> str:
    """Says by how much a budget falls short of one step, and the nearest settings that would do."""
    population, measuring = config.search.population_size, config.calibration_prompts
    also = f" and {measuring} prompts that measure prompt.std" if measuring else ""
    room = config.budget - measuring
    room -= room % 2 if config.search.estimator in _IN_PAIRS else 0
    lower = f" or lower search.population_size to {room} at most" if room >= 2 else ""
    return (
        f"query_budget={config.budget} does not pay for one step of search.population_size={population}{also}; "
        f"raise query_budget to {population + measuring} at least{lower}"
    )


def check_search(search: "SearchConfig", prompt: "PromptConfig") -> None:
    """Raises UserError where the search does not fit the prompt, or itself."""
    name = search.estimator
    if name == "gauss-newton" and prompt.context != "class":
        raise UserError(
            f"search.estimator=gauss-newton needs prompt.context=class, not {prompt.context}; take the recipe unified, "
            "as in --config=configs/demo.py:unified, or another search.estimator"
        )
    if name == "gauss-newton" and search.population_size < _SMALLEST_GAUSS_NEWTON:
        raise UserError(
            f"search.population_size={search.population_size} must be at least {_SMALLEST_GAUSS_NEWTON} with "
            "search.estimator=gauss-newton: 4 of them try how far to go"
        )
    in_pairs = name in _IN_PAIRS
    pairs = search.population_size // 2
    if in_pairs and search.population_size % 2:
        raise UserError(
            f"search.population_size={search.population_size} must be even with search.estimator={name}: "
            "candidates come in pairs"
        )
    orthogonal = name == "guided" or (name == "antithetic" and search.directions == "orthogonal")
    if orthogonal and prompt.context in ("unified", "class") and pairs > prompt.intrinsic_dim:
        raise UserError(
            f"orthogonal directions have room for {prompt.intrinsic_dim} pairs (prompt.intrinsic_dim), not "
            f"for {pairs}; lower search.population_size or use search.directions=gaussian"
        )
    if prompt.context == "class" and name in ("cma-es", "spsa", "one-sided"):
        raise UserError(
            f"search.estimator={name} moves all coordinates by one loss; it needs prompt.context=unified, full or "
            "low-rank, not class"
        )
    if search.guarded and name == "cma-es":
        raise UserError("search.estimator=cma-es adapts its own steps; set search.guarded=False")
