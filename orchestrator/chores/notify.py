"""Notifications: from a notice to deliveries (fan out), and one attempt at a delivery (deliver).

The rows say what is to be done and are written before anything is sent, and what came of it is recorded after, with
an event: a crash in between repeats the attempt under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, cast

from orchestrator.chores.message import Link, Links, Message, Sender, Undeliverable, Undelivered, asks, facts_of, hidden
from orchestrator.chores.templates import Templates
from orchestrator.core.channels import Channels, EmailChannel, Involved, NoticeKind, Subject, recipients
from orchestrator.store import events, notices, people, workflows
from orchestrator.store.db import Clock, Connection, Database, Params, database_clock
from orchestrator.store.events import Event
from orchestrator.store.notices import Backoff

log = logging.getLogger("keyturn.notify")

ACTOR: Final = "keyturn"
# Nobody else begins an attempt before this one must have ended.
LEASE: Final = timedelta(seconds=120)
# An attempt may need several requests; together they end before its lease.
_ATTEMPT_SECONDS: Final = 100.0
# How long a delivery waits for one before it that is under way; the end of that one wakes it.
PAUSE: Final = timedelta(seconds=30)
# A channel that fails may hang: so many attempts at it at a time, which leaves the others their turn.
_PROBES: Final = 2
# What has not been looked at for so long has lost its job.
LATE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class PageLinks:
    """The links without a maker of signed ones: whatever they are for, the request's page."""

    public_url: str

    async def __call__(self, link: Link) -> str:
        """The page; of Keyturn itself where there is no request."""
        return f"{self.public_url}/approvals/{link.approval_id}" if link.approval_id else self.public_url


@dataclass(frozen=True, slots=True)
class Notifier:
    """Everything that telling somebody needs. `templates` is None where no channel is set up."""

    db: Database
    channels: Channels = field(default_factory=Channels)
    senders: Mapping[str, Sender] = field(default_factory=dict[str, Sender])
    templates: Templates | None = None
    links: Links = field(default_factory=lambda: PageLinks("http://127.0.0.1:8001"))
    backoff: Backoff = field(default_factory=Backoff)
    clock: Clock = database_clock
    # How many attempts are under way by channel, and the channels whose last one failed.
    running: Counter[str] = field(default_factory=Counter[str])
    failing: set[str] = field(default_factory=set[str])

    async def fan_out(self, workflow_id: str) -> None:
        """Write the deliveries of a workflow's notices; what was written before stays."""
        async with self.db.transaction() as conn:
            for notice in await notices.waiting(conn, workflow_id, self.clock()):
                deliveries = await self._deliveries(conn, notice)
                await notices.queue_deliveries(conn, notice["notice_id"], deliveries, self.clock())

    async def deliver(self, delivery_id: str, channel: str) -> datetime | None:
        """Make one attempt if it is time; returns when to look at the delivery again, None when it has ended."""
        if channel in self.failing and self.running[channel] >= _PROBES:
            async with self.db.connection() as conn:
                return await notices.again(conn, delivery_id, PAUSE, self.clock())
        self.running[channel] += 1
        try:
            return await self._attempt(delivery_id)
        finally:
            self.running[channel] -= 1

    async def _attempt(self, delivery_id: str) -> datetime | None:
        now = self.clock()
        async with self.db.connection() as conn:
            row = await notices.claim(conn, delivery_id, LEASE, now)
            if row is None:
                return await notices.again(conn, delivery_id, PAUSE, now)
            about = await notices.subject(conn, row["notice_id"])
        if about is None:
            return None
        private: list[str] = []
        try:
            if row["attempts"] > self.backoff.attempts:
                raise Undeliverable("every attempt was cut off before it ended")  # noqa: TRY301 one place records it
            sender = self.senders.get(row["channel"])
            if sender is None:
                raise Undelivered(f"there is no channel {row['channel']} in channels.yaml any more")  # noqa: TRY301
            private += sender.secrets
            message = await self._message(row, about)
            private += message.links.values()
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                external = await sender.send(message)
        except Undelivered as error:
            return await self._failed(row, about, error, private)
        except Exception as error:  # noqa: BLE001 whatever it was, the attempt is recorded as failed
            # Not its text: it may hold what must not be shown.
            log.error("delivery %s broke: %s", delivery_id, type(error).__name__)  # noqa: TRY400 nor its trace
            return await self._failed(row, about, Undelivered(f"{type(error).__name__} while sending"), private)
        await self._sent(row, about, external)
        return None

    async def late(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Workflows with notices, and deliveries with their channels, whose jobs were lost."""
        async with self.db.connection() as conn:
            return await notices.late(conn, LATE, self.clock())

    # Fanning out

    async def _deliveries(self, conn: Connection, notice: Params) -> list[Params]:
        kind = cast("NoticeKind", notice["kind"])
        roles = _roles(notice)
        action = cast("Mapping[str, object]", notice["action"] or {})
        environment = str(action.get("environment") or "")
        subject = Subject(kind, notice["risk_level"] or "", notice["namespace"], environment, roles)
        names = self.channels.names_for(subject)
        if not names:
            return []
        told = recipients(kind, await self._involved(conn, notice, kind, roles))
        found = await notices.addresses(conn, notice["namespace"], told)
        rows: list[Params] = []
        for name in names:
            entry = self.channels.entries[name]
            if not isinstance(entry, EmailChannel):
                rows.append({"channel": name, "recipient": "", "people": told})
            elif entry.to:
                rows += [{"channel": name, "recipient": to, "people": told} for to in dict.fromkeys(entry.to)]
            else:
                rows += [{"channel": name, "recipient": person, "people": told} for person in found]
        return rows

    async def _involved(self, conn: Connection, notice: Params, kind: NoticeKind, roles: frozenset[str]) -> Involved:
        namespace = notice["namespace"]
        holders = frozenset(await people.holders(conn, namespace, roles)) if roles else frozenset[str]()
        side = ("requester", "on_behalf_of", "launched_by", "last_editor")
        named = notice["data"].get("people")
        return Involved(
            holders=holders,
            selves=frozenset(notice[one] for one in side if notice[one]) or frozenset((notice["submitter"],)),
            voted=frozenset(notice["voted"]),
            resolved_by=notice["resolved_by"],
            question=notice["asks"] == "question",
            delegations=await notices.delegations(conn, namespace, sorted(holders), self.clock()),
            admins=await notices.admins(conn, namespace) if kind == "unroutable" else frozenset(),
            named=None if named is None else frozenset(map(str, named)),
        )

    # One attempt

    async def _message(self, row: Params, about: Params) -> Message:
        if self.templates is None:
            raise Undelivered("this worker has no templates")
        entry = self.channels.entries.get(row["channel"])
        personal = isinstance(entry, EmailChannel) and not entry.to and row["recipient"] in row["people"]
        person = str(row["recipient"]) if personal else None
        links = await self._links(row["namespace"], about, person)
        facts = facts_of(about, links, row["people"], row["recipient"])
        words = self.templates.render(facts)
        # What a program is told goes to one place, however many people that tells.
        told = {name: value for name, value in facts.items() if name not in ("links", "recipient")}
        return Message(
            delivery_id=row["delivery_id"], notice_id=row["notice_id"], attempt=row["attempts"],
            queued_at=row["queued_at"], at=row["now"], kind=about["kind"], approval_id=about["approval_id"] or "",
            state=str(facts["state"]), recipient=await self._address(row, person), subject=words.subject,
            text=words.text, html=words.html, links=links,
            facts={**told, "workflow_id": row["workflow_id"], "namespace": row["namespace"], "url": links["page"]},
        )  # fmt: skip

    async def _address(self, row: Params, person: str | None) -> str:
        if person is None:
            return str(row["recipient"])
        async with self.db.connection() as conn:
            found = await notices.addresses(conn, row["namespace"], [person])
        if person not in found:
            raise Undeliverable(f"{person} has no mail address any more")
        return found[person]

    async def _links(self, namespace: str, about: Params, person: str | None) -> dict[str, str]:
        approval_id = str(about["approval_id"] or "")
        page = await self.links(Link(namespace, approval_id))
        links = {"page": page}
        if person is None or not asks(about) or about["asks"] != "approval":
            return links
        for verdict in ("approve", "reject"):
            link = Link(
                namespace, approval_id, person, verdict, about["revision"], about["digest"], about["expires_at"]
            )
            links[verdict] = await self.links(link)
        # Without a maker of signed links all of them are the page.
        return links if links["approve"] != page else {"page": page}

    # What came of it

    async def _sent(self, row: Params, about: Params, external: str | None) -> None:
        self.failing.discard(row["channel"])
        async with self.db.transaction() as conn:
            there = await workflows.lock(conn, row["namespace"], row["workflow_id"], self.clock())
            new = await notices.sent(conn, row["delivery_id"], external, self.clock())
            if there is not None and new:
                await self._note(conn, row, Event("notification-sent", ACTOR, _told(row, about)))
        self.db.ring(events.EVENTS_CHANNEL, row["workflow_id"], patient=True)

    async def _failed(self, row: Params, about: Params, error: Undelivered, private: Sequence[str]) -> datetime | None:
        self.failing.add(row["channel"])
        why = hidden(str(error), private)
        final = isinstance(error, Undeliverable)
        now = self.clock()
        async with self.db.transaction() as conn:
            there = await workflows.lock(conn, row["namespace"], row["workflow_id"], now)
            last = await notices.failed(conn, row, why, self.backoff, now, asked=error.asked, final=final)
            if there is not None and last:
                await self._note(conn, row, Event("notification-failed", ACTOR, {**_told(row, about), "error": why}))
            again = None if last else await notices.again(conn, row["delivery_id"], timedelta(), now)
        log.warning("delivery %s over %s failed (%s): %s", row["delivery_id"], row["channel"], row["attempts"], why)
        if last:
            self.db.ring(events.EVENTS_CHANNEL, row["workflow_id"], patient=True)
        return again

    async def _note(self, conn: Connection, row: Params, event: Event) -> None:
        await events.append(conn, row["workflow_id"], [event], self.clock())


def _roles(notice: Params) -> frozenset[str]:
    given = notice["data"].get("roles")
    return frozenset(map(str, given if given is not None else notice["roles"] or ()))


def _told(row: Params, about: Params) -> dict[str, object]:
    """What the event of a delivery says."""
    return {
        "request_id": about["approval_id"], "kind": about["kind"], "channel": row["channel"],
        "recipient": row["recipient"], "delivery_id": row["delivery_id"], "attempts": row["attempts"],
    }  # fmt: skip
