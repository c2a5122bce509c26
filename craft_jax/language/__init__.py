"""The search over texts: ask and tell over templates and descriptions, by a language model or by changing words.

`find` does it for a run; what comes back is texts and heads on their answers, which a tuned model holds.
"""

from craft_jax.language.finding import find
from craft_jax.language.results import BEST, COMBINED, PROBES, Found
from craft_jax.language.search import Shown

__all__ = ["BEST", "COMBINED", "Found", "PROBES", "Shown", "find"]
