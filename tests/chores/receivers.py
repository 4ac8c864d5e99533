"""Receivers of messages on real sockets: any HTTP one, one like Slack's, one like Linear's, and a mail server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What is answered; `lost` ends the connection instead, after all was taken."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False


@dataclass
class Receiver:
    """An HTTP server. `troubles` are answered first, one a request, before `respond` sees anything if `before` is set
    and after it otherwise.
    """

    respond: Callable[[Request], Answer] = lambda _: Answer()
    requests: list[Request] = field(default_factory=list)
    troubles: list[Answer] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None and not trouble.lost:
            return trouble
        answer = self.respond(request)
        return trouble or answer


@contextlib.contextmanager
def receiving(respond: Callable[[Request], Answer] | None = None, port: int = 0) -> Generator[Receiver]:
    """A receiver on 127.0.0.1 while the block runs."""
    receiver = Receiver(respond or (lambda _: Answer()))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.answer(Request(self.command, self.path, headers, body))
            self.close_connection = True
            if answer.lost:
                return
            content = b"ok" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    receiver.port = server.server_address[1]
    receiver.url = f"http://127.0.0.1:{receiver.port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(name: str, file: Path) -> str:
    """Write a certificate for `name` with its key into `file`; returns the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem + private)
    return pem.decode()


def free_port() -> int:
    """A port that nothing listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SlackWorkspace:
    """The two methods of Slack's Web API that a bot needs; `posted` is what people see in the channel."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Answer:
        if request.headers.get("authorization") != "Bearer xoxb-very-private":
            return Answer(body={"ok": False, "error": "invalid_auth"})
        parts = urlsplit(request.path)
        if parts.path.endswith("/chat.postMessage"):
            message = {**request.json, "ts": f"{1_000 + len(self.posted)}.0001"}
            self.posted.append(message)
            return Answer(body={"ok": True, "ts": message["ts"]})
        start = int(parse_qs(parts.query).get("cursor", ["0"])[0])
        found: dict[str, Any] = {"ok": True, "messages": self.posted[start : start + 1]}
        if start + 1 < len(self.posted):
            found["response_metadata"] = {"next_cursor": str(start + 1)}
        return Answer(body=found)


class LinearWorkspace:
    """Linear's GraphQL as far as it is used, with its refusal of an id that is taken."""

    def __init__(self) -> None:
        self.issues: dict[str, dict[str, Any]] = {}
        self.comments: dict[str, dict[str, Any]] = {}
        self.key = "lin_api_very_private"

    def __call__(self, request: Request) -> Answer:
        if request.headers.get("authorization") != self.key:
            return Answer(status=401, body={"errors": [{"message": f"bad key {request.headers['authorization']}"}]})
        query, given = request.json["query"], request.json["variables"]
        name = query.split()[1].partition("(")[0]
        return getattr(self, f"_{name.lower()}")(given)

    def _team(self, given: dict[str, Any]) -> Answer:
        states = [
            {"id": "s3", "type": "canceled", "position": 3}, {"id": "s9", "type": "completed", "position": 9},
            {"id": "s2", "type": "completed", "position": 2}, {"id": "s0", "type": "unstarted", "position": 0},
        ]  # fmt: skip
        nodes = [{"id": "team-1", "states": {"nodes": states}}] if given["key"] == "OPS" else []
        return Answer(body={"data": {"teams": {"nodes": nodes}}})

    def _issue(self, given: dict[str, Any]) -> Answer:
        found = self.issues.get(given["id"])
        return Answer(body={"data": {"issues": {"nodes": [found] if found else []}}})

    def _comment(self, given: dict[str, Any]) -> Answer:
        found = self.comments.get(given["id"])
        return Answer(body={"data": {"comments": {"nodes": [found] if found else []}}})

    def _create(self, given: dict[str, Any]) -> Answer:
        made = given["input"]
        if made["id"] in self.issues:
            return Answer(status=400, body={"errors": [{"message": "id is taken"}]})
        identifier = f"OPS-{len(self.issues) + 1}"
        self.issues[made["id"]] = {**made, "identifier": identifier, "state": {"type": "unstarted"}}
        return Answer(body={"data": {"issueCreate": {"success": True, "issue": {"identifier": identifier}}}})

    def _say(self, given: dict[str, Any]) -> Answer:
        self.comments[given["input"]["id"]] = given["input"]
        return Answer(body={"data": {"commentCreate": {"success": True}}})

    def _close(self, given: dict[str, Any]) -> Answer:
        ended = {"s2": "completed", "s9": "completed", "s3": "canceled"}[given["input"]["stateId"]]
        self.issues[given["id"]].update(state={"type": ended}, state_id=given["input"]["stateId"])
        return Answer(body={"data": {"issueUpdate": {"success": True}}})


def plain_text(mail: EmailMessage) -> str:
    """What a mail says to who reads plain text."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


class Mailbox:
    """What an SMTP server took. `refusals` are answered first, `lost` times it takes a mail and says it did not."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.refusals: list[str] = []
        self.lost = 0
        self.port = 0

    @property
    def readers_view(self) -> set[str]:
        """One entry for each mail that its reader sees: mail programs show a Message-ID once."""
        return {f"{mail['To']} {mail['Message-ID']}" for mail in self.mails}

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 aiosmtpd's
        del server, session
        if self.refusals:
            return self.refusals.pop(0)
        content = cast("bytes", envelope.content)
        self.raw.append(content)
        self.mails.append(message_from_bytes(content, policy=default))
        if self.lost:
            self.lost -= 1
            return "451 the disk of the log is full"
        return "250 taken"


@contextlib.contextmanager
def mail_server() -> Generator[Mailbox]:
    """An SMTP server on 127.0.0.1 while the block runs."""
    mailbox = Mailbox()
    # aiosmtpd connects to itself to see that it runs, which port 0 does not allow.
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    mailbox.port = port
    try:
        yield mailbox
    finally:
        controller.stop()
