"""`channels.yaml`: where messages go (channels) and which of them (routes), and who is told of what.

Secrets are never in the file: it names the environment variables that hold them. Nothing is sent or resolved here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, cast, get_args

from pydantic import AfterValidator, Field

from orchestrator.core.documents import Document, DocumentModel, OneOrMany, parse
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.risk import folded

NoticeKind: TypeAlias = Literal[
    "requested", "revised", "reminder", "escalated", "settled", "break_glass", "review_due", "unroutable"
]
KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
# In these somebody is asked to decide.
ASKING: frozenset[NoticeKind] = frozenset(("requested", "revised", "reminder", "escalated"))
_REFERENCE = "env:"
_ALLOWED = "A to Z, 0 to 9 and _, such as env:KEYTURN_SLACK_URL"


def variable(reference: str) -> str | None:
    """The environment variable that a value refers to; None for a value that stands for itself."""
    return reference.removeprefix(_REFERENCE) if reference.startswith(_REFERENCE) else None


def _well_named(value: str) -> str:
    name = variable(value)
    if name is not None and not (name.isascii() and name.isidentifier() and name == name.upper()):
        raise ValueError(f"{value!r} names no environment variable; allowed: env: and then {_ALLOWED}")
    return value


def _secret(value: str) -> str:
    # The value is not repeated: it may be the secret itself.
    if variable(value) is None:
        raise ValueError(f"is a secret and must not stand in the file; allowed: env: and then {_ALLOWED}")
    return _well_named(value)


def _address(value: str) -> str:
    if variable(value) is None and not value.startswith(("https://", "http://")):
        raise ValueError("is no address; allowed: https://…, or env: and the name of a variable that holds one")
    return _well_named(value)


def _filled(values: tuple[str, ...]) -> tuple[str, ...]:
    # Where an entry is wrong itself, a limit of the list's would repeat all of them in its message.
    if not values:
        raise ValueError("is empty; allowed: one entry or more")
    return values


Secret = Annotated[str, AfterValidator(_secret)]
"""A field that holds a secret: written as `env:NAME`."""

Address = Annotated[str, AfterValidator(_address)]
"""An https:// address, or `env:NAME` where it is a secret."""


class _Guarded(DocumentModel):
    """What is sent over HTTP by us. The switches are for receivers in one's own network."""

    allow_private: bool = False
    allow_http: bool = False


class SlackChannel(_Guarded):
    """A Slack incoming webhook (`url`), or a bot (`token` and `channel`), which never posts a message twice."""

    type: Literal["slack"]
    url: Secret | None = None
    token: Secret | None = None
    channel: str | None = None
    api: Address = "https://slack.com/api"


class EmailChannel(DocumentModel):
    """Mail to each person told, or to the addresses in `to` in their place."""

    type: Literal["email"]
    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: Secret | None = None
    sender: str = Field(alias="from", pattern=r"^[^@\r\n]+@[^@\r\n]+$")
    to: OneOrMany = ()


class LinearChannel(_Guarded):
    """An issue for each approval in the team with this key, closed when it is settled."""

    type: Literal["linear"]
    key: Secret
    team: str = Field(min_length=1, max_length=20)
    url: Address = "https://api.linear.app/graphql"


class WebhookChannel(_Guarded):
    """A signed POST to an address (Standard Webhooks). Of several `secrets` each signs."""

    type: Literal["webhook"]
    url: Address
    secrets: Annotated[tuple[Secret, ...], AfterValidator(_filled)]


class AppriseChannel(DocumentModel):
    """Anything that Apprise has an address for."""

    type: Literal["apprise"]
    url: Secret


Channel: TypeAlias = Annotated[
    SlackChannel | EmailChannel | LinearChannel | WebhookChannel | AppriseChannel, Field(discriminator="type")
]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Route(DocumentModel):
    """Which notices go to `channels`. What is left out does not matter; names of environments may hold `*`."""

    channels: Annotated[tuple[str, ...], AfterValidator(_filled)]
    kinds: tuple[NoticeKind, ...] = ()
    levels: tuple[Literal["low", "medium", "high", "critical"], ...] = ()
    roles: OneOrMany = ()
    environments: OneOrMany = ()
    namespaces: OneOrMany = ()


class ChannelsFile(DocumentModel):
    """The whole file."""

    channels: dict[_Name, Channel] = Field(default_factory=dict[str, Channel])
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What a route looks at."""

    kind: NoticeKind
    level: str
    namespace: str
    environment: str = ""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels and routes of a file; none by default. Values still refer to the environment."""

    entries: Mapping[str, Channel] = field(default_factory=dict[str, Channel])
    routes: tuple[Route, ...] = ()
    document: Document | None = None

    @property
    def active(self) -> bool:
        """Whether anybody can be told of anything: without it no notice is written."""
        return bool(self.entries and self.routes)

    @staticmethod
    def load(text: str, file: str) -> Channels:
        """Raises InvalidDocument with every mistake: file, line, path and what is allowed."""
        document = parse(text, file)
        found = document.validate(ChannelsFile)
        problems = [*_route_problems(document, found), *_channel_problems(document, found)]
        if problems:
            raise InvalidDocument(tuple(problems))
        return Channels(found.channels, found.routes, document)

    def names_for(self, subject: Subject) -> tuple[str, ...]:
        """The channels that all matching routes name together, in the order of the file."""
        wanted = {name for route in self.routes if _matches(route, subject) for name in route.channels}
        return tuple(name for name in self.entries if name in wanted)

    def missing(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """A sentence, with file, line and path, for each variable that is referred to and not set."""
        return tuple(
            self.problem(path, f"the environment has no {name}; set it where the worker runs")
            for path, name in self._references()
            if not environment.get(name)
        )

    def problem(self, path: tuple[str | int, ...], what: str) -> str:
        """A sentence about one place of the file."""
        return self.document.problem(path, what) if self.document else what

    def _references(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for channel, entry in self.entries.items():
            for key, value in entry:
                several = isinstance(value, tuple)
                values: tuple[object, ...] = cast("tuple[object, ...]", value) if several else (value,)
                for index, one in enumerate(values):
                    name = variable(one) if isinstance(one, str) else None
                    if name is not None:
                        yield ("channels", channel, key, *((index,) if several else ())), name


def _matches(route: Route, subject: Subject) -> bool:
    return (
        (not route.kinds or subject.kind in route.kinds)
        and (not route.levels or subject.level in route.levels)
        and (not route.namespaces or subject.namespace in route.namespaces)
        and (not route.roles or bool(subject.roles & set(route.roles)))
        and (not route.environments or _environment(subject.environment, route.environments))
    )


def _environment(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(folded(name), folded(pattern)) for pattern in patterns)


def _route_problems(document: Document, found: ChannelsFile) -> Iterator[str]:
    for index, route in enumerate(found.routes):
        for nth, name in enumerate(route.channels):
            if name not in found.channels:
                known = ", ".join(found.channels) or "none, as the file has no channels"
                yield document.problem(
                    ("routes", index, "channels", nth), f"there is no channel {name!r}; allowed: {known}"
                )


def _channel_problems(document: Document, found: ChannelsFile) -> Iterator[str]:
    for name, entry in found.channels.items():
        place = ("channels", name)
        if isinstance(entry, SlackChannel) and (entry.url is None) == (entry.token is None):
            yield document.problem(place, "needs either url (an incoming webhook) or token and channel (a bot)")
        elif isinstance(entry, SlackChannel) and (entry.token is None) != (entry.channel is None):
            yield document.problem(place, "needs token and channel together")
        elif isinstance(entry, EmailChannel) and (entry.user is None) != (entry.password is None):
            yield document.problem(place, "needs user and password together, or neither")
        elif isinstance(entry, EmailChannel) and entry.user and entry.security == "none":
            yield document.problem((*place, "security"), "would send the password in the clear; allowed: starttls, tls")


@dataclass(frozen=True, slots=True)
class Involved:
    """Who has to do with an approval, as of now.

    `holders` hold one of its roles; `selves` are the requester's side (rule 6); `voted` have voted on this revision;
    `delegations` are pairs of who is stood in for and by whom; `named` is whom the notice itself names.
    """

    holders: frozenset[str] = frozenset()
    selves: frozenset[str] = frozenset()
    voted: frozenset[str] = frozenset()
    resolved_by: str | None = None
    question: bool = False
    delegations: tuple[tuple[str, str], ...] = ()
    admins: frozenset[str] = frozenset()
    named: frozenset[str] | None = None

    @property
    def deciders(self) -> frozenset[str]:
        """Who can decide: the holders of the roles and who stands in for them, without the requester's side."""
        if self.question and not self.holders:
            return self.selves
        delegates = {to for principal, to in self.delegations if principal in self.holders - self.selves}
        return (self.holders | delegates) - self.selves


def recipients(kind: NoticeKind, who: Involved) -> tuple[str, ...]:
    """The people to be told, by name."""
    if who.named is not None:
        told = who.named
    elif kind == "settled":
        told = who.selves | who.deciders | who.voted
    elif kind == "unroutable":
        told = who.selves | who.admins
    elif kind in ("break_glass", "review_due"):
        told = who.deciders
    else:
        told = who.deciders - who.voted
    # Whoever settled it knows.
    knows = {who.resolved_by} if kind in ("settled", "break_glass", "review_due") and who.named is None else set[str]()
    return tuple(sorted(told - knows))
