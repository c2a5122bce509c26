"""A model that sees and chats, as far as the tests need one: the bundled CLIP behind OpenAI's chat form."""

import base64
import contextlib
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from craft_jax import blackbox

_TOKENS = 300  # that an answer says it took


@contextlib.contextmanager
def chatting():
    """The address of a chat that knows what the bundled CLIP knows."""
    computing = threading.Lock()
    owned = blackbox.Owned("bundled")
    text_features = {}

    def logits(pixels, texts):
        with computing:
            new = [text for text in texts if text not in text_features]
            text_features.update(zip(new, (found.feature for found in owned.texts(new)), strict=True))
            of_texts = np.stack([text_features[text] for text in texts])
            return owned.logit_scale * (owned.images(pixels[None]) @ of_texts.T)[0].astype(float)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            assert body["logprobs"]
            image, question = body["messages"][0]["content"]
            pixels = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
            labels = re.findall(r"^(\w+)\. (.*)$", question["text"], flags=re.MULTILINE)
            scores = logits(np.asarray(pixels), [text for _, text in labels])
            logarithms = scores - np.log(np.exp(scores).sum())
            best = np.argsort(-logarithms)[: body["top_logprobs"]]
            told = [{"token": labels[i][0], "logprob": float(logarithms[i])} for i in best]
            content = [told[0] | {"top_logprobs": told}]
            answer = {"choices": [{"logprobs": {"content": content}}], "usage": {"total_tokens": _TOKENS}}
            written = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
