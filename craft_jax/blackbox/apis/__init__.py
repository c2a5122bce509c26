"""Models that are asked over HTTP: a file a form of requests, all of them owners behind the same interface.

`http` sends, `store` keeps what was answered, `treatment` makes logits of it; `opening` puts these together. A new
form is a file here that does what `labels.Form` says, a name in `config.FORMS` and a line in `opening`.
"""

from craft_jax.blackbox.apis.http import Client
from craft_jax.blackbox.apis.messages import Answer, Wrong, ending, field, json_request, rows
from craft_jax.blackbox.apis.opening import connect_again, connect_api
from craft_jax.blackbox.apis.store import Store

__all__ = [
    "Answer",
    "Client",
    "Store",
    "Wrong",
    "connect_again",
    "connect_api",
    "ending",
    "field",
    "json_request",
    "rows",
]
