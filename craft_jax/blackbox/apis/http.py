"""Requests that arrive: connections kept, several in flight, tried again where that may help, never past a ceiling.

Every answer goes through the caller's own check; what is wrong with one is told with the request's number.
"""

import concurrent.futures
import dataclasses
import email.utils
import math
import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import httpx
import tenacity

from craft_jax.blackbox.apis.messages import Answer, Request, Wrong
from craft_jax.blackbox.apis.store import Store
from craft_jax.blackbox.billing import Ceilings, Estimate
from craft_jax.blackbox.meter import Ledger
from craft_jax.config import ApiConfig
from craft_jax.errors import UserError

T = TypeVar("T")

_LONGEST_PAUSE = 60.0  # seconds, unless the server says more
_LONGEST_RETRY_AFTER = 600.0
_AGAIN = (408, 409, 425, 429)
_BETWEEN_LINES = 20.0  # seconds
_SHOWN = 200  # characters of an answer
_GOES_ON = "the same command goes on from what was answered"


class _MayComeAgain(Exception):
    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Stopped(Exception):
    """Another request has failed for good."""


class Client:
    """Asks one address.

    Args:
      address: as the user gave it, for the bill and for messages.
      api: how it is asked. The key is read from the environment here, and goes nowhere but into requests.
      store: keeps the bill.
      say: is told now and then how far many requests are.

    Raises:
      UserError: where the key cannot be sent.
    """

    def __init__(self, address: str, api: ApiConfig, store: Store, say: Callable[[str], None]) -> None:
        self.address, self._api, self._store, self._say = address, api, store, say
        self._key = os.environ.get(api.key_variable, "").strip()
        self._ceilings = ceilings(api)
        self._client = httpx.Client(
            timeout=api.timeout,
            limits=httpx.Limits(max_connections=api.in_flight, max_keepalive_connections=api.in_flight),
            headers={"User-Agent": "craft_jax", **self._key_header()},
        )
        self._pool = concurrent.futures.ThreadPoolExecutor(api.in_flight, thread_name_prefix="api")
        weakref.finalize(self, _close, self._client, self._pool)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sent = Ledger()
        self._tokens_over_expected: dict[bool, float] = {}

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def key(self) -> str:
        """The key, for a form that carries it in the body; empty where there is none."""
        return self._key

    def estimate(self, requests: Sequence[tuple[Request, float]], later: int, answered: float) -> Estimate:
        """What requests of several kinds would take, each with its number."""
        return Estimate(
            requests=math.ceil(round(sum(times for _, times in requests), 6)),
            size=sum(times * len(request.content or b"") for request, times in requests),
            tokens=math.ceil(sum(times * request.tokens for request, times in requests)),
            later=later,
            answered=answered,
            before=self._store.bill(self.address),
            ceilings=self._ceilings,
        )

    @property
    def sent(self) -> Ledger:
        """What was sent since this client was made, in the units that are billed."""
        money = self._ceilings.price(self._sent.requests, self._sent.tokens)
        return dataclasses.replace(self._sent, money=money)

    def ask(self, request: Request, read: Callable[[Answer], T]) -> T:
        """Sends a request, again where that may help, and reads its answer.

        Args:
          request: what is sent.
          read: makes something of the answer, or raises Wrong.

        Raises:
          UserError: for a refusal, an answer that is wrong, an address that does not answer, or a ceiling.
        """
        number, answer = self._until_answered(request)
        try:
            return read(answer)
        except Wrong as error:
            raise UserError(
                f"request {number} to {request.address} got a wrong answer: {error}; it begins "
                f"{self._shown(answer.content)}"
            ) from error

    def each(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Does jobs, several at once; after the first that fails no other is begun, and its error is raised."""
        self._stop.clear()
        waiting = [self._pool.submit(self._unless_stopped, job) for job in jobs]
        left, began = set(waiting), time.monotonic()
        try:
            while left:
                _, left = concurrent.futures.wait(left, timeout=_BETWEEN_LINES)
                if left:
                    passed = time.monotonic() - began
                    self._say(f"{len(waiting) - len(left):,} of {len(waiting):,} requests answered in {passed:.0f} s")
        except BaseException:  # Ctrl-C
            self._stop.set()
            raise
        errors = [error for one in waiting if (error := one.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
            raise error

    def _unless_stopped(self, job: Callable[[], None]) -> None:
        if self._stop.is_set():
            raise _Stopped
        try:
            job()
        except BaseException:
            self._stop.set()
            raise

    def _until_answered(self, request: Request) -> tuple[int, Answer]:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MayComeAgain),
            stop=tenacity.stop_after_attempt(self._api.attempts),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        began = time.monotonic()
        try:
            return attempts(self._once, request)
        except _MayComeAgain as error:
            tries = f"{attempts.statistics['attempt_number']} attempts in {time.monotonic() - began:.0f} s"
            raise UserError(f"{request.address} does not answer: {error} ({tries}); {_GOES_ON}") from error

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.seconds if isinstance(error, _MayComeAgain) else 0.0
        doubled = tenacity.wait_exponential(multiplier=self._api.pause, max=_LONGEST_PAUSE)
        return max(asked, (doubled + tenacity.wait_random(0, self._api.pause))(state))

    def _once(self, request: Request) -> tuple[int, Answer]:
        """Books a request, sends it, and tells what may come again from what may not."""
        if self._stop.is_set():
            raise _Stopped
        expected = math.ceil(request.tokens * self._tokens_over_expected.get(request.texts > 0, 1.0))
        spacing = 60 / self._api.per_minute if self._api.per_minute else 0.0
        if request.content is not None:  # what only asks what there is, is no business of a bill
            turn = self._store.book(self.address, expected, self._ceilings, spacing)
            self._stop.wait(turn)
        number = self._count(request)
        try:
            response = self._client.request(
                "GET" if request.content is None else "POST",
                request.address,
                content=request.content,
                headers={"Content-Type": request.kind} if request.content is not None else None,
            )
        except httpx.TransportError as error:
            raise self._broken(error, request) from error
        answer = Answer(response.status_code, response.content)
        self._check_status(number, request, answer, response.headers)
        if request.tokens:
            self._settle(request, answer, expected)
        return number, answer

    def _count(self, request: Request) -> int:
        """Takes note of a request that is about to be sent; its number."""
        if self._stop.is_set():
            raise _Stopped
        with self._lock:
            if request.content is not None:
                self._sent += Ledger(requests=1, texts_sent=request.texts, bytes_sent=len(request.content))
            return self._sent.requests

    def _settle(self, request: Request, answer: Answer, expected: int) -> None:
        """Puts the tokens that an answer took in the place of those that were booked, and expects the like from now."""
        try:
            told = answer.tokens if answer.status == 200 else 0
        except Wrong:  # whoever reads it says so
            return
        tokens, kind = expected if told is None else told, request.texts > 0
        with self._lock:
            self._sent += Ledger(tokens=tokens)
            known = self._tokens_over_expected.get(kind, 0.0)
            self._tokens_over_expected[kind] = max(known, tokens / request.tokens)
        self._store.settle(self.address, tokens - expected)

    def _broken(self, error: httpx.TransportError, request: Request) -> Exception:
        """What is said of a connection that could not be made, or broke."""
        reason = str(error).strip() or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return _MayComeAgain(f"nothing came within api.timeout={self._api.timeout:g} s")
        by_us = isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError))
        if by_us or isinstance(error.__cause__ and error.__cause__.__cause__, ssl.SSLCertVerificationError):
            return UserError(self._hidden(f"{request.address} cannot be asked: {reason}"))
        return _MayComeAgain(self._hidden(reason))

    def _check_status(self, number: int, request: Request, answer: Answer, headers: httpx.Headers) -> None:
        if answer.status in request.accept:
            return
        shown = self._shown(answer.content)
        if answer.status in _AGAIN or answer.status >= 500:
            seconds = _seconds(headers.get("Retry-After", ""))
            if seconds <= _LONGEST_RETRY_AFTER:
                raise _MayComeAgain(f"it answers with status {answer.status}, {shown}", seconds)
            raise UserError(f"{request.address} asks to come again in {seconds:.0f} s ({shown}); {_GOES_ON}")
        remedy = ""
        if answer.status in (401, 403):
            variable = self._api.key_variable
            remedy = (
                f"; look at the key in the environment variable {variable}"
                if self._key
                else (f"; put a key into the environment variable {variable}")
            )
        elif 300 <= answer.status < 400:
            remedy = f"; it points to {headers.get('Location', 'nowhere')!r}: set black_box.model to where it answers"
        raise UserError(
            f"request {number} to {request.address} was refused with status {answer.status}, {shown}{remedy}"
        )

    def _key_header(self) -> dict[str, str]:
        if not self._key:
            return {}
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError(f"the environment variable {self._api.key_variable} holds characters that no key has")
        bearer = self._api.key_header.lower() == "authorization"
        return {self._api.key_header: f"Bearer {self._key}" if bearer else self._key}

    def _shown(self, content: bytes) -> str:
        """The beginning of what came, on one line, without the key."""
        text = self._hidden(" ".join(content.decode("utf-8", "replace").split()))
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _close(client: httpx.Client, pool: concurrent.futures.Executor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    client.close()


def ceilings(api: ApiConfig) -> Ceilings:
    """Those of the settings."""
    return Ceilings(api.max_requests, api.max_tokens, api.max_money, api.price_request, api.price_1000_tokens)


def _seconds(retry_after: str) -> float:
    """What a header Retry-After asks to wait, given in seconds or as a date; 0 where it is neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
