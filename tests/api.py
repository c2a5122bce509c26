"""An API for the tests to ask: the bundled CLIP in a process of its own, over HTTP, which counts what it is asked.

    python -m tests.api CLASS CLASS ...

prints its port. POST /images takes npz with `images` and answers their numbers; /predict takes `prompts` and numbers,
and answers probabilities; GET /asked says how many images and prompts have come.
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import jax
import numpy as np

from craft_jax import blackbox


class _Api(BaseHTTPRequestHandler):
    black_box = None
    images = []
    asked = {"images": 0, "prompts": 0}

    def do_GET(self):
        self._answer(json.dumps(self.asked).encode())

    def do_POST(self):
        given = np.load(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.path == "/images":
            first = len(self.images)
            self.images.extend(np.asarray(self.black_box.encode_images(given["images"])))
            self.asked["images"] += len(given["images"])
            return self._array(np.arange(first, len(self.images)))
        handle = np.stack([self.images[number] for number in given["images"]])
        self.asked["prompts"] += len(given["prompts"])
        return self._array(np.asarray(jax.nn.softmax(self.black_box.predict(given["prompts"], handle))))

    def _array(self, array):
        content = io.BytesIO()
        np.save(content, array)
        self._answer(content.getvalue())

    def _answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    _Api.black_box = blackbox.load("bundled", sys.argv[1:])
    server = HTTPServer(("127.0.0.1", 0), _Api)
    print(server.server_port, flush=True)
    server.serve_forever()
