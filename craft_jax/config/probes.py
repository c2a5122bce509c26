"""Settings of what is asked before the search, and of what an image may cost that is labelled later."""

import dataclasses

from craft_jax.config.validation import at_least, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What is asked once, before the search, and answered by a head in closed form (`method.stacked`).

    Attributes:
      texts: captions asked at most, the class names among them, each counted as 1 / C of a prompt. A local black box is
        asked until they are twice as many as the independent numbers that come back; a remote one for all, at once,
        since a request takes many. 0 asks none.
      most_views: of all training photographs together, the pieces that a soft prompt is fitted on among them. Where
        `data.views` and as many pieces of each would be more, each has fewer, but two views and a piece at least: the
        more photographs, the less does another view of them tell. 0 sets no limit.
    """

    texts: int = setting(512, at_least(0))
    most_views: int = setting(6144, at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """What an image may cost that is labelled later.

    Attributes:
      prompts_per_image: prompts to ask about it at most: 1 deploys a soft prompt and its refinement, more the probes
        and their head where they fit in (C captions are a prompt); 0 sets no limit.
    """

    prompts_per_image: int = setting(0, at_least(0))
