"""A language model's server for tests: a real socket that speaks OpenAI's chat interface, whole or as a stream."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

# What the model says to itself before it calls the tool.
MUSING = "Secret musing of the router"


@dataclass(frozen=True)
class Say:
    """One answer of the model: a call of the tool it was given, mere text, or a failure of its server."""

    call: Mapping[str, object] | str | None = None
    text: str = MUSING
    status: int = 200

    def pieces(self, tool: str) -> list[dict[str, Any]]:
        """The deltas of a stream."""
        told: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        told += [{"content": f"{word} "} for word in self.text.split()]
        if self.call is not None:
            arguments = self._arguments()
            half = len(arguments) // 2
            first = {"index": 0, "id": "call-1", "type": "function", "function": {"name": tool, "arguments": ""}}
            told.append({"tool_calls": [first]})
            told += [
                {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
                for part in (arguments[:half], arguments[half:])
            ]
        return told

    def message(self, tool: str) -> dict[str, Any]:
        """The answer whole."""
        calls = [{"id": "call-1", "type": "function", "function": {"name": tool, "arguments": self._arguments()}}]
        return {"role": "assistant", "content": self.text, **({"tool_calls": calls} if self.call is not None else {})}

    def _arguments(self) -> str:
        return self.call if isinstance(self.call, str) else json.dumps(self.call)


@dataclass
class Model:
    """What the server will say, in order, and what it was asked."""

    url: str = ""
    says: deque[Say] = field(default_factory=deque)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def will(self, category: str, confidence: float, *others: tuple[str, float], title: str = "") -> None:
        """Let the next answer be this verdict."""
        alternatives = [{"category": name, "confidence": share} for name, share in others]
        verdict = {"category": category, "confidence": confidence, "alternatives": alternatives, "title": title}
        self.says.append(Say(verdict))

    @property
    def heard(self) -> list[str]:
        """The newest words of each request."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextlib.contextmanager
def model_server() -> Generator[Model]:
    """Serve while the block runs."""
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.asked.append(body)
            say = model.says.popleft()
            tool = body["tools"][0]["function"]["name"] if body.get("tools") else ""
            self.send_response(say.status)
            kind = "text/event-stream" if body.get("stream") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Connection", "close")
            self.end_headers()
            if body.get("stream"):
                for piece in say.pieces(tool):
                    self._event(json.dumps({"choices": [{"index": 0, "delta": piece}]}))
                self._event("[DONE]")
            else:
                self.wfile.write(json.dumps({"choices": [{"message": say.message(tool)}]}).encode())

        def _event(self, data: str) -> None:
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
