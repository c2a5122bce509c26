"""Models that are asked over HTTP: a file a form of requests, all of them owners behind the same wall.

`http` sends, `store` keeps what was answered, `treatment` makes logits of it; `opening` puts these together.
"""

from craft_jax.blackbox.apis.opening import connect_again, connect_api

__all__ = ["connect_again", "connect_api"]
