"""A proxy that spoils some of what passes it, in threads of the test's own process, and counts what comes."""

import contextlib
import hashlib
import json
import random
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AGAIN = ("500", "429", "hang", "close")  # after which the client may come again
WRONG = ("short", "nan", "fewer", "renamed")  # answers that are none
HARMLESS = ("reorder",)


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `target`.

    `faults` are drawn from for a share of the requests; `gone` closes every connection without an answer. `arrived`
    counts requests, `repeated` those that were answered well before.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, target, faults=(), share=0.0, seed=0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.faults, self.share = target, faults, share
        self.arrived, self.repeated, self.gone = 0, 0, False
        self._random, self._lock, self._answered = random.Random(seed), threading.Lock(), set()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def draw(self, body):
        """What happens to a request."""
        with self._lock:
            self.arrived += 1
            self.repeated += hashlib.sha256(body).digest() in self._answered
            return self._random.choice(self.faults) if self._random.random() < self.share else ""

    def note(self, body):
        with self._lock:
            self._answered.add(hashlib.sha256(body).digest())

    def handle_error(self, *_):
        pass


@contextlib.contextmanager
def proxy(*args, **kwargs):
    with Proxy(*args, **kwargs) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._pass_on(None)

    def do_POST(self):
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, body):
        if self.server.gone:
            self.close_connection = True
            return
        if body is None:
            self._answer(*self._fetch(body))
            return
        fault = self.server.draw(body)
        if fault in ("500", "429"):
            self._answer(int(fault), b"not now", {"Retry-After": "0.01"} if fault == "429" else {})
            return
        if fault == "hang":
            self.connection.settimeout(60.0)
            self.connection.recv(1)  # which says when the client has gone
            self.close_connection = True
            return
        status, content = self._fetch(body)
        if fault == "close":
            self._answer(status, content, {"Content-Length": str(len(content) + 10)})
            self.close_connection = True
            return
        if status == 200 and fault not in WRONG:
            self.server.note(body)
        self._answer(status, _spoilt(content, fault))

    def _fetch(self, body):
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]}
        asked = urllib.request.Request(self.server.target + self.path, body, headers)
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 502, b"the server is away"

    def _answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def _spoilt(content, fault):
    """An answer in Hugging Face's form, spoilt."""
    if not fault:
        return content
    if fault == "short":
        return content[: len(content) // 2]
    rows = json.loads(content)
    if fault == "nan":
        rows[0]["score"] = float("nan")
    if fault == "fewer":
        rows.pop()
    if fault == "renamed":
        rows[0]["label"] = "something else"
    if fault == "reorder":
        rows.reverse()
    return json.dumps(rows).encode()
