"""Links in messages: signed, for one person, request, revision, action and decision, and used once (rule 18).

Looking at one changes nothing: whatever scans messages follows links.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import jwt

from orchestrator.chores.message import Link as MessageLink
from orchestrator.chores.message import Links
from orchestrator.core.errors import Expired, NotFound, NotStorable, SelfApproval, TokenInvalid, TokenWrongUser
from orchestrator.core.model import Kind, Level, Verdict
from orchestrator.core.votes import CLOCK, selves_of
from orchestrator.service import approvals as decided_by
from orchestrator.service.approvals import current
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice
from orchestrator.service.refusals import audited, noted
from orchestrator.store import events, links, people, workflows
from orchestrator.store.db import Params
from orchestrator.store.decisions import view_of
from orchestrator.store.events import EVENTS_CHANNEL, Event
from orchestrator.wire import Decided, LinkRecord, LinkRequest

_ALGORITHM = "HS256"
_AUDIENCE = "keyturn-link"
_BY_LINK = frozenset({"read", "decide"})


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says, once its signature is checked."""

    link_id: str
    namespace: str
    person: str
    approval_id: str
    revision: int
    digest: str
    verdict: Verdict
    expires_at: datetime
    created_by: str

    @property
    def caller(self) -> Caller:
        """Whoever the link was made for."""
        return Caller(self.namespace, self.person, _BY_LINK, f"link:{self.link_id}")


async def create(ctx: Context, caller: Caller, approval_id: str, request: LinkRequest, base: str) -> LinkRecord:
    """A link for a person to decide by; one's own, or with `admin` anybody's. NotFound, SelfApproval."""
    wanted = {"wanted": "link", "approval_id": approval_id, "person": request.person}
    async with noted(ctx, caller, **wanted):
        caller.need("decide" if request.person == caller.person else "admin")
        row = await current(ctx, caller, approval_id)
        async with ctx.db.connection() as conn:
            if await people.find_person(conn, caller.namespace, request.person) is None:
                detail = f"there is no person {request.person!r} in this namespace"
                raise NotFound(detail, person=request.person)
            now = await workflows.present(conn, ctx.clock())
        _check_maker(row, caller.person, request.person)
    expires_at = now + timedelta(seconds=request.ttl_seconds)
    link_id = secrets.token_hex(12)
    token = await _issue(ctx, row, (request.person, caller.person), link_id, Verdict(request.verdict), expires_at)
    told: dict[str, object] = {
        "request_id": approval_id, "link": link_id, "person": request.person, "verdict": request.verdict,
        "expires_at": expires_at.isoformat(), "revision": row["revision"], "key_id": caller.key_id,
    }  # fmt: skip
    async with ctx.db.transaction() as conn:
        await workflows.lock(conn, caller.namespace, row["workflow_id"], ctx.clock())
        await events.append(conn, row["workflow_id"], [Event("link-created", caller.person, told)], ctx.clock())
    ctx.db.ring(EVENTS_CHANNEL, row["workflow_id"], patient=True)
    return LinkRecord(url=f"{base}/links/{token}", expires_at=expires_at)


def _check_maker(row: Params, maker: str, person: str) -> None:
    """Whoever asked, or edited last, has nobody decide by a link of theirs (rule 6)."""
    if maker == person or row["kind"] != Kind.APPROVAL or maker not in selves_of(view_of(row)):
        return
    detail = f"{maker} asked for this or edited it last, so nobody else decides it by a link that {maker} makes"
    raise SelfApproval(detail, voter=person, via=maker)


async def _issue(
    ctx: Context, row: Params, who: tuple[str, str], link_id: str, verdict: Verdict, expires_at: datetime
) -> str:
    """The token of a new link for an approval's row as it stands; `who` it is for, and who makes it."""
    async with ctx.db.connection() as conn:
        key = await links.key(conn, row["namespace"])
    person, created_by = who
    claims = {
        "aud": _AUDIENCE, "jti": link_id, "ns": row["namespace"], "sub": person, "created_by": created_by,
        "approval": row["approval_id"], "revision": row["revision"], "digest": row["digest"],
        "verdict": verdict.value, "exp": int(expires_at.timestamp()),
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def maker(ctx: Context, public_address: str) -> Links:
    """Makes the links in messages: to decide for one person, else to the request."""

    async def make(link: MessageLink) -> str:
        if link.person is None or link.verdict is None or link.expires_at is None:
            return f"{public_address}/approvals/{link.approval_id}" if link.approval_id else public_address
        row: Params = {
            "namespace": link.namespace, "approval_id": link.approval_id, "revision": link.revision,
            "digest": link.digest,
        }  # fmt: skip
        who = (link.person, CLOCK)
        token = await _issue(ctx, row, who, secrets.token_hex(12), Verdict(link.verdict), link.expires_at)
        return f"{public_address}/links/{token}"

    return make


async def read(ctx: Context, token: str) -> Link:
    """What a link says. TokenInvalid when it was not made here, Expired once its time has passed."""
    link = _link(await _claims(ctx, token))
    await _check_time(ctx, link)
    return link


async def _check_time(ctx: Context, link: Link) -> None:
    async with ctx.db.connection() as conn:
        now = await workflows.present(conn, ctx.clock())
    if now >= link.expires_at:
        detail = f"the link expired at {link.expires_at.isoformat()}; open the request instead"
        raise Expired(detail, expired_at=link.expires_at.isoformat())


async def _claims(ctx: Context, token: str) -> dict[str, Any]:
    try:
        # Which namespace's key: what is claimed is believed only once the signature is checked with it.
        unchecked = jwt.decode(token, options={"verify_signature": False})
        namespace = str(unchecked.get("ns", ""))
        async with ctx.db.connection() as conn:
            known = await people.any_people(conn, namespace)
            key = await links.key(conn, namespace) if known else secrets.token_bytes(32)
        required = ["exp", "jti", "sub", "aud", "created_by"]
        return jwt.decode(
            token, key, algorithms=[_ALGORITHM], audience=_AUDIENCE,
            options={"require": required, "verify_exp": False},
        )  # fmt: skip
    except (jwt.InvalidTokenError, ValueError, NotStorable) as error:
        detail = "this link was not made here, or it was changed on the way"
        raise TokenInvalid(detail) from error


def _link(claims: dict[str, Any]) -> Link:
    expires_at = datetime.fromtimestamp(cast("int", claims["exp"]), UTC)
    return Link(
        str(claims["jti"]), str(claims["ns"]), str(claims["sub"]), str(claims["approval"]), int(claims["revision"]),
        str(claims["digest"]), Verdict(claims["verdict"]), expires_at, str(claims["created_by"]),
    )  # fmt: skip


async def look(ctx: Context, token: str) -> tuple[Link, Params, bool]:
    """The link, the request it is for, and whether it was used. Nothing is changed."""
    link = await read(ctx, token)
    row = await current(ctx, link.caller, link.approval_id)
    async with ctx.db.connection() as conn:
        return link, row, await links.is_used(conn, link.link_id)


def needs_credential(row: Params) -> bool:
    """Whether having the link is not enough: a high risk takes the person's own credential too."""
    return Level(row["risk_level"]).rank >= Level.HIGH.rank


async def decide(ctx: Context, token: str, justification: str, caller: Caller | None) -> Decided:
    """Decide by a link. `caller` is whoever showed a credential with it, if anybody did.

    TokenWrongUser, TokenUsed, Expired, TokenInvalid, and the refusals of a vote.
    """
    if caller is None:
        link = _link(await _claims(ctx, token))
    else:
        async with noted(ctx, caller, wanted="link"):
            link = _link(await _claims(ctx, token))
    row = await current(ctx, link.caller, link.approval_id)
    who = caller or link.caller
    wanted: dict[str, object] = {"wanted": "link", "link": link.link_id, "approval_id": link.approval_id}
    if who.namespace != link.namespace:
        # It is the link's workflow that this concerns.
        wanted |= {"of_namespace": who.namespace}
    async with audited(ctx, replace(who, namespace=link.namespace), row["workflow_id"], **wanted):
        await _check_time(ctx, link)
        _check_maker(row, link.created_by, link.person)
        if caller is not None and (caller.person, caller.namespace) != (link.person, link.namespace):
            detail = f"this link was made for {link.person}, not for {caller.person}"
            raise TokenWrongUser(detail, person=caller.person)
        if caller is None and needs_credential(row):
            detail = f"a request of {row['risk_level']} risk needs {link.person}'s own key besides the link"
            raise TokenWrongUser(detail, needed="credential")
        if caller is not None:
            caller.need("decide")
        async with ctx.db.connection() as conn:
            if await links.is_used(conn, link.link_id):
                raise links.used_up(link.link_id)
        choice = Choice(
            link.verdict, justification, None, link.approval_id, link.revision, link.digest, link=link.link_id,
            link_by=None if link.created_by == link.person else link.created_by,
        )  # fmt: skip
        used: Params = {"link_id": link.link_id, "namespace": link.namespace, "approval_id": link.approval_id}
        return await decided_by.decide_held(ctx, who, row["workflow_id"], choice, None, used)
