"""Mail is handed over under TLS to a server whose certificate is good, and a refused password is not repeated."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from orchestrator.chores.mail import MailSender
from orchestrator.chores.message import Message, Undelivered, hidden
from orchestrator.core.channels import EmailChannel
from tests.chores.receivers import Mailbox, certificate, free_port

PASSWORD = "very-private-password"
MESSAGE = Message(
    delivery_id="dl_1", notice_id=1, attempt=1, queued_at=datetime(2026, 1, 1, tzinfo=UTC),
    at=datetime(2026, 1, 1, tzinfo=UTC), kind="requested", approval_id="ap_1", state="pending",
    recipient="tom@example.org", subject="Ärger über Größe", text="Hello\n.\nänd so on\n", html="<p>Hello</p>",
    links={"page": "https://k/a"}, facts={},
)  # fmt: skip


class Checks:
    def __call__(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        del server, session, envelope, mechanism
        good = data.login == b"keyturn" and data.password == PASSWORD.encode()
        return AuthResult(success=good, handled=False)


@contextlib.contextmanager
def secure_server(folder: Path) -> Generator[tuple[Mailbox, ssl.SSLContext]]:
    """An SMTP server that wants STARTTLS and a login, and who trusts it."""
    pem = certificate("localhost", folder / "both.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    mailbox = Mailbox()
    controller = Controller(
        mailbox, hostname="127.0.0.1", port=free_port(), tls_context=context, require_starttls=True,
        auth_required=True, authenticator=Checks(),
    )  # fmt: skip
    controller.start()
    mailbox.port = controller.port
    try:
        yield mailbox, ssl.create_default_context(cadata=pem)
    finally:
        controller.stop()


def sender(port: int, password: str, trusted: ssl.SSLContext | None) -> MailSender:
    channel = EmailChannel.model_validate(
        {"type": "email", "host": "localhost", "port": port, "user": "keyturn", "password": "env:P",
         "from": "Keyturn <k@example.org>"}
    )  # fmt: skip
    return MailSender(channel, password, trusted)


async def test_a_mail_is_handed_over_under_tls_after_a_login(tmp_path: Path) -> None:
    with secure_server(tmp_path) as (mailbox, trusted):
        assert await sender(mailbox.port, PASSWORD, trusted).send(MESSAGE) == "<dl_1@example.org>"
        (mail,) = mailbox.mails
        assert mail["Subject"] == "Ärger über Größe"
        assert mail["Message-ID"] == "<dl_1@example.org>"
        parts = {part.get_content_type(): part.get_content() for part in mail.iter_parts()}
        assert parts["text/plain"].replace("\r\n", "\n") == MESSAGE.text
        assert parts["text/html"].strip() == MESSAGE.html


async def test_a_refused_password_is_said_and_not_repeated(tmp_path: Path) -> None:
    with secure_server(tmp_path) as (mailbox, trusted), pytest.raises(Undelivered) as failed:
        await sender(mailbox.port, "wrong-private", trusted).send(MESSAGE)
    assert str(failed.value) == "localhost answered 535"
    assert "private" not in hidden(f"{failed.value} wrong-private", ["wrong-private"])


async def test_a_server_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    with secure_server(tmp_path) as (mailbox, _), pytest.raises(Undelivered, match="SSLCertVerificationError"):
        await sender(mailbox.port, PASSWORD, None).send(MESSAGE)
    assert mailbox.mails == []
