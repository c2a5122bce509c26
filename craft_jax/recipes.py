"""Named ways to tune, as settings: this project's own, and the published runs' of CraFT."""

import dataclasses
from collections.abc import Callable

from craft_jax.config import Config
from craft_jax.errors import UserError
from craft_jax.published import PUBLISHED


def apply(config: Config, name: str) -> Config:
    """The settings with a recipe's in their place.

    Raises:
      UserError: where the recipe is unknown, or not published for this data set.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe {name!r}; known are {', '.join(RECIPES)}")
    return RECIPES[name](config)


def _craft(config: Config) -> Config:
    return config


def _paper(config: Config) -> Config:
    """As the published runs: their backbone, head and numbers for the set, where today's settings have them."""
    if config.data.name not in PUBLISHED:
        raise UserError(
            f"data.name={config.data.name!r}: the recipe paper is published for {', '.join(PUBLISHED)} alone"
        )
    its = PUBLISHED[config.data.name]["settings"]
    return dataclasses.replace(
        config,
        black_box=dataclasses.replace(config.black_box, model="RN50"),
        prompt=dataclasses.replace(config.prompt, std=its["std"], bound=its["bound"]),
        search=dataclasses.replace(config.search, sigma=its["sigma"], fitness="prompt"),
        refinement=dataclasses.replace(
            config.refinement,
            hidden=its.get("hidden", 256),
            dropout=0.0,
            mixup=False,
            epochs=1,
            learning_rate=1e-3,
            batch_size=its["batch_size"],
        ),
        consistency=dataclasses.replace(config.consistency, weight=its["consistency"], head_share=1 / its["n"]),
    )


RECIPES: dict[str, Callable[[Config], Config]] = {"craft": _craft, "paper": _paper}
