"""A chat-completions endpoint on loopback that can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-not-to-be-written-anywhere"
Misbehaviour = Callable[["Handler"], None]


def completion(content: str | None) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
    }


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counted():
            self.server.requests.append(body | {"authorization": self.headers["Authorization"], "path": self.path})
            number = len(self.server.requests)
            act = self.server.misbehave(number, body)
            if act is not None:
                act(self)
            else:
                self.reply(200, completion(self.server.answer(body["messages"][-1]["content"])))

    def reply(self, status: int, content: Any, **headers: str) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *given: Any) -> None:
        pass


def status(code: int, message: str = "busy", **headers: str) -> Misbehaviour:
    return lambda handler: handler.reply(code, {"error": {"message": message}}, **headers)


def body(content: Any) -> Misbehaviour:
    return lambda handler: handler.reply(200, content)


def says(content: str | None) -> Misbehaviour:
    return body(completion(content))


def drop(handler: Handler) -> None:
    """Half an answer, and the connection is gone."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    handler.close_connection = True


class ChatServer(ThreadingHTTPServer):
    """Answers what `answer` says; `misbehave(number, body)` may name something else to do."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[str], str] = lambda text: "70"
        self.misbehave: Callable[[int, dict[str, Any]], Misbehaviour | None] = lambda number, body: None
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that stopped waiting is no news."""


@contextmanager
def serving() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
