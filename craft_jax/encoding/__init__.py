"""Images through the black box's image side, once, and the cache of what came back."""

from craft_jax.encoding import feature_cache
from craft_jax.encoding.encoder import Encoder, batch_size

__all__ = [
    "Encoder",
    "batch_size",
    "feature_cache",
]
