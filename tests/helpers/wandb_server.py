"""A stand-in for W&B's server on this machine: it takes what `wandb sync` sends, or misbehaves."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0" * 40


def _upserted(given: dict, base: str) -> dict:
    project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": given["entity"] or "somebody"}}
    bucket = {"id": "r", "name": given["name"], "displayName": given["displayName"], "config": "{}", "project": project}
    return {"bucket": bucket, "inserted": True}


def _files(given: dict, base: str) -> dict:
    nodes = [
        {"name": file["name"], "uploadUrl": f"{base}/put/{file['name']}", "uploadHeaders": [], "artifact": {"id": "a"}}
        for file in given["input"]["artifactFiles"]
    ]
    return {"files": {"edges": [{"node": node} for node in nodes]}}


def _manifest(given: dict, base: str) -> dict:
    file = {
        "id": "f",
        "name": given["name"],
        "displayName": "",
        "uploadUrl": f"{base}/put/manifest",
        "uploadHeaders": [],
    }
    return {"artifactManifest": {"id": "m", "file": file}}


ANSWERS = {  # by the name of a GraphQL field; longer names first
    "upsertBucket": _upserted,
    "upsertView": lambda given, base: {"view": {"id": "v", "name": given["name"]}, "inserted": True},
    "createArtifactManifest": _manifest,
    "createArtifactFiles": _files,
    "createArtifact": lambda given, base: {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": {}}},
    "commitArtifact": lambda given, base: {"artifact": {"id": "a", "digest": ""}},
    "createRunFiles": lambda given, base: {
        "runID": "r",
        "uploadHeaders": [],
        "files": [{"name": name, "uploadUrl": f"{base}/put/{name}"} for name in given["files"]],
    },
    "viewer": lambda given, base: {"id": "u", "username": "somebody", "entity": "somebody", "flags": "{}", "teams": {}},
    "model": lambda given, base: {"bucket": None},  # no run to go on with
    "serverInfo": lambda given, base: {"features": []},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        is_question = self.path.endswith("/graphql")
        if self.server.mood == "hangs" or (self.server.mood == "stalls" and not is_question):
            self.server.over.wait()
        elif isinstance(self.server.mood, int):
            self._reply(self.server.mood, {"errors": [{"message": "user is not logged in"}]})
        elif is_question:
            asked = json.loads(content)
            given, base = asked.get("variables") or {}, f"http://127.0.0.1:{self.server.server_port}"
            field = next(name for name in ANSWERS if name in asked["query"])
            self.server.told.append((field, given))
            self._reply(200, {"data": {field: ANSWERS[field](given, base)}})
            if self.server.mood == "dies":
                threading.Thread(target=self.server.die).start()
        else:
            self.server.streamed.append(content)
            self._reply(200, {})

    def do_PUT(self) -> None:
        self.server.put[self.path.removeprefix("/put/")] = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._reply(200, {})

    def _reply(self, code: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """W&B's server in a mood: `works`, `hangs`, `stalls` when it is sent numbers, `dies` after its first answer, 403.

    Attributes:
        told: what it was asked, with the variables.
        streamed: the numbers and lines that it was sent.
        put: name -> content of the files that it was sent.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, mood: str | int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mood, self.over = mood, threading.Event()
        self.told, self.streamed, self.put = [], [], {}
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Says nothing where a client is killed."""

    def die(self) -> None:
        self.shutdown()
        self.server_close()


@contextmanager
def serve(mood: str | int) -> Iterator[Server]:
    server = Server(mood)
    try:
        yield server
    finally:
        server.over.set()
        server.die()


def environment(server: Server) -> dict[str, str]:
    """What makes W&B's programs use the server."""
    return {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": KEY}
