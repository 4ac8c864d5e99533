"""Links in messages: signed, for one person, request, revision, action and decision, and used once (rule 18).

Looking at one changes nothing: whatever scans messages follows links.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import jwt

from orchestrator.chores.message import Link as MessageLink
from orchestrator.chores.message import Links
from orchestrator.core.errors import Expired, NotFound, TokenInvalid, TokenWrongUser
from orchestrator.core.model import Level, Verdict
from orchestrator.service import approvals as decided_by
from orchestrator.service.approvals import current
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice
from orchestrator.service.refusals import audited
from orchestrator.store import links, people, workflows
from orchestrator.store.db import Params
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

    @property
    def caller(self) -> Caller:
        """Whoever the link was made for."""
        return Caller(self.namespace, self.person, _BY_LINK, f"link:{self.link_id}")


async def create(ctx: Context, caller: Caller, approval_id: str, request: LinkRequest, base: str) -> LinkRecord:
    """A link for a person to decide by; one's own, or with `admin` anybody's. NotFound."""
    caller.need("decide" if request.person == caller.person else "admin")
    row = await current(ctx, caller, approval_id)
    async with ctx.db.connection() as conn:
        if await people.find_person(conn, caller.namespace, request.person) is None:
            detail = f"there is no person {request.person!r} in this namespace"
            raise NotFound(detail, person=request.person)
        now = await workflows.present(conn, ctx.clock())
    expires_at = now + timedelta(seconds=request.ttl_seconds)
    token = await issue(ctx, row, request.person, Verdict(request.verdict), expires_at)
    return LinkRecord(url=f"{base}/links/{token}", expires_at=expires_at)


async def issue(ctx: Context, row: Params, person: str, verdict: Verdict, expires_at: datetime) -> str:
    """The token of a new link for an approval's row as it stands."""
    async with ctx.db.connection() as conn:
        key = await links.key(conn, row["namespace"])
    claims = {
        "aud": _AUDIENCE, "jti": secrets.token_hex(12), "ns": row["namespace"], "sub": person,
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
        token = await issue(ctx, row, link.person, Verdict(link.verdict), link.expires_at)
        return f"{public_address}/links/{token}"

    return make


async def read(ctx: Context, token: str) -> Link:
    """What a link says. TokenInvalid when it was not made here, Expired once its time has passed."""
    link = _link(await _claims(ctx, token))
    async with ctx.db.connection() as conn:
        now = await workflows.present(conn, ctx.clock())
    if now >= link.expires_at:
        detail = f"the link expired at {link.expires_at.isoformat()}; open the request instead"
        raise Expired(detail, expired_at=link.expires_at.isoformat())
    return link


async def _claims(ctx: Context, token: str) -> dict[str, Any]:
    try:
        # Which namespace's key: what is claimed is believed only once the signature is checked with it.
        unchecked = jwt.decode(token, options={"verify_signature": False})
        namespace = str(unchecked.get("ns", ""))
        async with ctx.db.connection() as conn:
            known = await people.any_people(conn, namespace)
            key = await links.key(conn, namespace) if known else secrets.token_bytes(32)
        required = ["exp", "jti", "sub", "aud"]
        return jwt.decode(
            token, key, algorithms=[_ALGORITHM], audience=_AUDIENCE,
            options={"require": required, "verify_exp": False},
        )  # fmt: skip
    except (jwt.InvalidTokenError, ValueError) as error:
        detail = "this link was not made here, or it was changed on the way"
        raise TokenInvalid(detail) from error


def _link(claims: dict[str, Any]) -> Link:
    expires_at = datetime.fromtimestamp(cast("int", claims["exp"]), UTC)
    return Link(
        str(claims["jti"]), str(claims["ns"]), str(claims["sub"]), str(claims["approval"]), int(claims["revision"]),
        str(claims["digest"]), Verdict(claims["verdict"]), expires_at,
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
    link = await read(ctx, token)
    row = await current(ctx, link.caller, link.approval_id)
    who = caller or link.caller
    async with audited(ctx, who, row["workflow_id"], wanted="link", link=link.link_id, approval_id=link.approval_id):
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
            link.verdict, justification, None, link.approval_id, link.revision, link.digest, link=link.link_id
        )
        used: Params = {"link_id": link.link_id, "namespace": link.namespace, "approval_id": link.approval_id}
        return await decided_by.decide_held(ctx, who, row["workflow_id"], choice, None, used)
