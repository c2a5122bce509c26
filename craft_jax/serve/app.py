"""The application: addresses, the token before them, and errors as JSON."""

import dataclasses
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from craft_jax.errors import UserError
from craft_jax.serve import bodies, embeddings, labels, own, tuned
from craft_jax.serve.limits import Counts, Limits, Refused
from craft_jax.serve.model import Served

Form = Callable[[Request, Any], Awaitable[Response]]

_OPEN = {"/health"}  # without the token, for whoever looks whether the server lives
_NOT_COUNTED = {"/health", "/counts", "/v1/about"}


def build(served: Served, labeller: tuned.Labeller | None, token: str | None) -> Starlette:
    """The application.

    Args:
      served: the CLIP behind the forms.
      labeller: of a tuned model, for one address more.
      token: that requests must bring; None takes all.
    """
    forms: list[tuple[str, str, Form]] = [
        ("/", "POST", labels.zero_shot),
        ("/models/{model:path}", "POST", labels.zero_shot),
        ("/clip/compare", "POST", labels.compare),
        ("/post", "POST", labels.rank),
        ("/embeddings", "POST", embeddings.embeddings),
        ("/v1/embeddings", "POST", embeddings.embeddings),
        ("/v1/about", "GET", own.about),
        ("/v1/images", "POST", own.images),
        ("/v1/predict", "POST", own.predict),
        ("/v1/texts", "POST", own.texts),
    ]
    routes = [_route(path, method, form, served) for path, method, form in forms]
    if labeller:
        routes.append(_route("/label", "POST", tuned.label, labeller))
    return _application(routes, served.name, served.counts, served.limits, token)


def _route(path: str, method: str, form: Form, asked: Any) -> Route:
    async def answer(request: Request) -> Response:
        return await form(request, asked)

    return Route(path, answer, methods=[method])


def _application(routes: Sequence[Route], name: str, counts: Counts, limits: Limits, token: str | None) -> Starlette:
    async def health(_: Request) -> Response:
        return bodies.Json({"status": "ok", "model": name})

    async def counted(_: Request) -> Response:
        return bodies.Json(dataclasses.asdict(counts))

    return Starlette(
        routes=[*routes, Route("/health", health), Route("/counts", counted)],
        middleware=[Middleware(_Gate, counts=counts, limits=limits, token=token)],
        exception_handlers={
            UserError: _mistake,
            HTTPException: _no_such,
            ClientDisconnect: _gone,
            Exception: _failure,
        },
    )


class _Gate:
    """Stands before the application: the token, the number of requests at once, and what is counted of each."""

    def __init__(self, app: ASGIApp, counts: Counts, limits: Limits, token: str | None) -> None:
        self._app, self._counts, self._limits, self._token = app, counts, limits, token
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asks = scope["path"] not in _NOT_COUNTED
        self._counts.requests += asks
        refusal = self._refusal(scope)
        if refusal:
            await refusal(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._counts.answered += asks
            await send(message)

        self._in_flight += asks
        try:
            await self._app(scope, receive, counting)
        finally:
            self._in_flight -= asks

    def _refusal(self, scope: Scope) -> Response | None:
        if self._token and scope["path"] not in _OPEN:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                message = "the token is missing or wrong; send the header Authorization: Bearer TOKEN"
                return bodies.Json({"error": message}, 401, {"WWW-Authenticate": "Bearer"})
        if self._in_flight >= self._limits.in_flight and scope["path"] not in _NOT_COUNTED:
            message = f"{self._in_flight} requests are being answered; ask again later"
            return bodies.Json({"error": message}, 503, {"Retry-After": "1"})
        return None


async def _mistake(_: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused(str(error))
    return bodies.Json({"error": str(refused), **refused.about}, refused.status)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; docs/serve.md lists what there is"
    return bodies.Json({"error": message}, error.status_code, error.headers)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _failure(_: Request, error: Exception) -> Response:
    return bodies.Json({"error": "the server failed at this request; its own log says why"}, 500)
