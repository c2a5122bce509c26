"""The page over HTTP, in a thread, at this machine's own address alone."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from craft_jax.errors import UserError
from craft_jax.progress import Pace
from craft_jax.training import read_log
from craft_jax.watch.page import page

_HOST = "127.0.0.1"


@contextlib.contextmanager
def watched(log: Path, budget: int, port: int) -> Iterator[str]:
    """Serves the page of a run inside the block, and gives its address.

    Args:
      log: metrics.jsonl of the run.
      budget: prompts that the run may query.
      port: to listen at; 0 takes a free one.

    Raises:
      UserError: where the port is taken.
    """
    rows = read_log(log)  # of an earlier part of the run, whose pace says nothing of this one's
    render = functools.partial(page, log, budget, Pace(budget, start=rows[-1]["prompts"] if rows else 0))
    try:
        server = _Server((_HOST, port), functools.partial(_Handler, render))
    except OSError as error:
        raise UserError(f"--watch={port}: {error.strerror}; take another port, or 0 for a free one") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A browser that goes away in the middle is no concern of the run's."""


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, render: Callable[[], str], *request: object) -> None:
        self._render = render
        super().__init__(*request)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path != "/":
            self.send_error(404)
            return
        content = self._render().encode()
        self.send_response(200)
        for name, value in {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
