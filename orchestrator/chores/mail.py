"""E-mail over SMTP, by the standard library: Apprise makes a new Message-ID for every attempt.

The Message-ID is the delivery's, so that a mail that was taken although its answer was lost is one mail to its reader.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from orchestrator.chores.message import Message, Undeliverable, Undelivered
from orchestrator.core.channels import EmailChannel

_PERMANENT = range(500, 600)


@dataclass(frozen=True, slots=True)
class MailSender:
    """Sends by one SMTP server; a message's recipient is an address."""

    channel: EmailChannel
    password: str | None = field(default=None, repr=False)
    trusted: ssl.SSLContext | None = None
    seconds: float = 15.0

    @property
    def secrets(self) -> Sequence[str]:
        """The password of the server."""
        return (self.password,) if self.password else ()

    async def send(self, message: Message) -> str | None:
        """Send it; returns its Message-ID."""
        mail = self._mail(message)
        try:
            await asyncio.to_thread(self._hand_over, mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {answer[0] for answer in error.recipients.values()}
            refused = f"{self.channel.host} refuses the recipient ({', '.join(map(str, sorted(codes)))})"
            hopeless = all(code in _PERMANENT for code in codes)
            raise (Undeliverable if hopeless else Undelivered)(refused) from None
        except smtplib.SMTPResponseException as error:
            raise Undelivered(f"{self.channel.host} answered {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise Undelivered(f"{self.channel.host}: {type(error).__name__}") from None
        return str(mail["Message-ID"])

    def _mail(self, message: Message) -> EmailMessage:
        domain = parseaddr(self.channel.sender)[1].rpartition("@")[2]
        mail = EmailMessage()
        mail["Message-ID"] = f"<{message.delivery_id}@{domain}>"
        # All about one approval is one conversation.
        if message.approval_id:
            mail["References"] = f"<{message.approval_id}@{domain}>"
        mail["Date"] = format_datetime(message.queued_at)
        mail["From"] = self.channel.sender
        try:
            mail["To"] = message.recipient
        except ValueError:
            raise Undeliverable("the recipient's address cannot be written in a mail") from None
        mail["Subject"] = message.subject
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        mail.add_alternative(message.html, subtype="html")
        return mail

    def _hand_over(self, mail: EmailMessage) -> None:
        context = self.trusted or ssl.create_default_context()
        if self.channel.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.channel.host, self.channel.port, timeout=self.seconds, context=context
            )
        else:
            server = smtplib.SMTP(self.channel.host, self.channel.port, timeout=self.seconds)
        with server:
            if self.channel.security == "starttls":
                server.starttls(context=context)
            if self.channel.user and self.password:
                server.login(self.channel.user, self.password)
            server.send_message(mail)
