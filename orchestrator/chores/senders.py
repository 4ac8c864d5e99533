"""From the channels of the configuration to what sends: the variables they refer to are read here, once, at start."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.chores.guarded_http import GuardedHttp, Resolver, system_resolver
from orchestrator.chores.linear import LinearSender
from orchestrator.chores.mail import MailSender
from orchestrator.chores.message import Sender
from orchestrator.chores.slack import SlackBot, SlackWebhook
from orchestrator.chores.webhook import WebhookSender, signing_key
from orchestrator.core.channels import (
    AppriseChannel,
    Channel,
    Channels,
    EmailChannel,
    LinearChannel,
    SlackChannel,
    WebhookChannel,
    variable,
)
from orchestrator.core.errors import InvalidDocument


def make_senders(
    channels: Channels, environment: Mapping[str, str], resolver: Resolver = system_resolver, seconds: float = 15.0
) -> dict[str, Sender]:
    """A sender for each channel, by name.

    Raises InvalidDocument with file, line and path for each variable that is missing or does not hold what it should.
    """
    problems = list(channels.missing(environment))
    if problems:
        raise InvalidDocument(tuple(problems))
    made: dict[str, Sender] = {}
    for name, entry in channels.entries.items():
        try:
            made[name] = _Making(environment, resolver, seconds).sender(entry)
        except _WrongValueError as error:
            problems.append(channels.problem(("channels", name, *error.path), f"the value of {error}"))
    if problems:
        raise InvalidDocument(tuple(problems))
    return made


class _WrongValueError(Exception):
    """A variable does not hold what its channel needs."""

    def __init__(self, path: tuple[str | int, ...], reference: str, why: object) -> None:
        super().__init__(f"{variable(reference) or 'the url'} {why}")
        self.path = path


class _Making:
    def __init__(self, environment: Mapping[str, str], resolver: Resolver, seconds: float) -> None:
        self._environment = environment
        self._resolver = resolver
        self._seconds = seconds

    def sender(self, entry: Channel) -> Sender:
        """What sends to this channel."""
        match entry:
            case SlackChannel(token=str(token), channel=str(channel)):
                return SlackBot(self._address(entry.api, "api"), self._value(token), channel, self._http(entry))
            case SlackChannel():
                return SlackWebhook(self._address(entry.url or "", "url"), self._http(entry))
            case EmailChannel():
                password = self._value(entry.password) if entry.password else None
                return MailSender(entry, password, seconds=self._seconds)
            case LinearChannel():
                url = self._address(entry.url, "url")
                return LinearSender(url, self._value(entry.key), entry.team, self._http(entry))
            case WebhookChannel():
                return self._webhook(entry)
            case AppriseChannel():
                return self._apprise(entry)

    def _webhook(self, entry: WebhookChannel) -> Sender:
        secrets = [self._value(one) for one in entry.secrets]
        for index, secret in enumerate(secrets):
            try:
                signing_key(secret)
            except ValueError as error:
                raise _WrongValueError(("secrets", index), entry.secrets[index], error) from None
        return WebhookSender(self._address(entry.url, "url"), tuple(secrets), self._http(entry))

    def _apprise(self, entry: AppriseChannel) -> Sender:
        # Loading its hundred services takes a second, so only who uses it waits.
        from orchestrator.chores.apprise_channel import AppriseSender, check_address

        url = self._value(entry.url)
        try:
            check_address(url)
        except ValueError as error:
            raise _WrongValueError(("url",), entry.url, error) from None
        return AppriseSender(url)

    def _http(self, entry: SlackChannel | LinearChannel | WebhookChannel) -> GuardedHttp:
        return GuardedHttp(entry.allow_private, entry.allow_http, self._resolver, seconds=self._seconds)

    def _address(self, reference: str, key: str) -> str:
        url = self._value(reference)
        if not url.startswith(("https://", "http://")):
            raise _WrongValueError((key,), reference, "is no address; allowed: https://…")
        return url.rstrip("/") if key == "api" else url

    def _value(self, reference: str) -> str:
        name = variable(reference)
        return reference if name is None else self._environment[name]
