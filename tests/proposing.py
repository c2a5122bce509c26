"""A language model, as far as tests and studies need one: rules in the place of weights, in OpenAI's chat form.

    python -m tests.proposing [MANNER]

prints its port. MANNER is `structured` (JSON where a schema is sent, the default), `lines` (refuses a schema with
status 400, and answers lines), or `hostile` (each reply is bad in another way). GET /asked says how many calls came,
GET /last what the last one asked.
"""

import hashlib
import json
import random
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VIEWS = (
    "a photo of",
    "a picture of",
    "a close-up of",
    "a low resolution photo of",
    "a thumbnail of",
    "an old photo of",
)
ARTICLES = ("a", "the", "one", "a small", "a large", "a typical")
PLACES = ("", "on a plain background", "outdoors", "indoors", "in the centre of the frame", "seen from the front")
LOOKS = ("metal", "wood", "fur", "leaves", "glass", "paper", "wheels", "strings", "round", "long", "flat", "shiny")
HOSTILE = (
    "- a photo of {} and {} in {} with {",
    "- " + "very " * 10_000 + "{}",
    "**`a <b>photo</b> of`**\n\n|{}|\n|---|\n\x00\x07",
    "- \u041a\u0440\u0430\u0441\u0438\u0432\u043e\u0435 \u0444\u043e\u0442\u043e {}",
    "I'm sorry, but I can't help with that.",
    "",
    '{"templates": ["a photo of',
    '{"templates": {"a": [1, null, {"b": []}]}}',
    "- a photo of a {}.\n- A photo of a {}\n- a  photo of a {}.",
    "[" * 5000,
    "- {0.__class__}\n- {%s}\n- $(rm -rf {})",
    None,
)
TOKENS = 120  # that a reply says it took


def proposals(question: str, count: int, number: int) -> list[str]:
    """Templates after those that the question names as good; others in each call, as of a model that samples."""
    rng = random.Random(hashlib.sha256(f"{number} {question}".encode()).digest())
    good = [line.lstrip("- 0123456789.") for line in question.splitlines() if line.startswith("- ") and "{}" in line][
        :3
    ]
    found = []
    for _ in range(count):
        before, _, after = rng.choice(good or ["a photo of a {}."]).partition("{}")
        if rng.random() < 0.5:
            before = f"{rng.choice(VIEWS)} {rng.choice(ARTICLES)} "
        if rng.random() < 0.5:
            after = f" {rng.choice(PLACES)}".rstrip() + "."
        found.append(before + "{}" + after)
    return found


def descriptions(question: str) -> list[tuple[str, str]]:
    """Two phrases for each class that the question lists."""
    rng = random.Random(hashlib.sha256(question.encode()).digest())
    names = re.findall(r"^- (.+) \(now: .*\)$", question, flags=re.MULTILINE)
    return [(name, f"with {rng.choice(LOOKS)} and {rng.choice(LOOKS)}") for name in names for _ in range(2)]


def reply(body: dict, manner: str, number: int) -> str | None:
    """What the model says."""
    question = body["messages"][0]["content"]
    if manner == "hostile":
        return HOSTILE[number % len(HOSTILE)]
    structured = "response_format" in body
    if "phrases for each class" in question:
        rows = descriptions(question)
        if structured:
            return json.dumps({"descriptions": [{"class": name, "text": text} for name, text in rows]})
        return "\n".join(f"{name}: {text}" for name, text in rows)
    wanted = re.search(r"Write (\d+) new", question)
    found = proposals(question, int(wanted[1]) if wanted else 1, number)
    return json.dumps({"templates": found}) if structured else "Here they are:\n" + "\n".join(f"- {t}" for t in found)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    manner, asked, last = "structured", 0, ""

    def do_GET(self):
        self._answer(200, {"asked": _Handler.asked, "last": _Handler.last}[self.path.strip("/")])

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._answer(404, {"error": "not here"})
        if self.manner == "lines" and "response_format" in body:
            return self._answer(400, {"error": {"message": "response_format is not supported"}})
        content = reply(body, self.manner, _Handler.asked)
        _Handler.asked, _Handler.last = _Handler.asked + 1, body["messages"][0]["content"]
        message = {"role": "assistant", "content": content, "refusal": None if content else "I cannot"}
        return self._answer(200, {"choices": [{"message": message}], "usage": {"total_tokens": TOKENS}})

    def _answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    _Handler.manner = sys.argv[1] if len(sys.argv) > 1 else "structured"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
