"""The routes of `/links`: a page that changes nothing, and the decision. The link itself says who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import ValidationError

from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import InvalidInput, KeyturnError
from orchestrator.service import links
from orchestrator.service.views import masked_action
from orchestrator.store.db import Params
from orchestrator.web.auth import BEARER, KEY_HEADER, Ctx
from orchestrator.web.limits import is_form
from orchestrator.web.parts import parts_of
from orchestrator.web.problems import Malformed, status_of
from orchestrator.wire import Decided, LinkDecision

router = APIRouter(tags=["links"])

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_FIELDS = {"justification", "key"}
_TAKES = 'a link takes no body, a form, or {"justification": …} of at most 4000 characters'
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>Keyturn</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem}}
dt{{font-weight:600}}pre{{white-space:pre-wrap;background:#f4f4f4;padding:.8rem}}
label,input,button{{font:inherit;display:block;margin:.4rem 0}}input{{width:100%;box-sizing:border-box}}</style>
{content}</html>"""


async def _form(request: Request) -> Mapping[str, str] | None:
    """The fields of the page's form; None when something else was sent."""
    if not is_form(request.headers.get("content-type", "")):
        return None
    fields = parse_qs((await request.body()).decode(), keep_blank_values=True)
    if not set(fields) <= _FIELDS:
        raise Malformed(_TAKES)
    return {name: values[-1] for name, values in fields.items()}


async def _justification(request: Request, form: Mapping[str, str] | None) -> str:
    content = await request.body()
    try:
        if form is not None:
            return LinkDecision(justification=form.get("justification", "")).justification
        return LinkDecision.model_validate_json(content).justification if content.strip() else ""
    except ValidationError as error:
        raise InvalidInput(_TAKES) from error


# What scans messages asks by HEAD too.
@router.head("/links/{token}", include_in_schema=False)
@router.get("/links/{token}", response_class=HTMLResponse)
async def look(ctx: Ctx, token: str) -> HTMLResponse:
    """What the link would decide. Looking changes nothing."""
    try:
        link, row, used = await links.look(ctx, token)
    except KeyturnError as error:
        return _page(f"<h1>{escape(error.title)}</h1><p>{escape(error.detail)}</p>", status_of(error))
    return _page(_request(link, row, used=used))


@router.post("/links/{token}", response_model=Decided)
async def decide(
    request: Request,
    ctx: Ctx,
    token: str,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    header: Annotated[str | None, Depends(KEY_HEADER)],
) -> Response | Decided:
    """Decide by the link: once, and for a high risk only with the credential of the person it was made for, in a header
    or in the page's form.
    """
    form = await _form(request)
    try:
        key = bearer.credentials if bearer else header or (form or {}).get("key")
        who = await (await parts_of(request)).keyring.authenticate(key) if key else None
        decided = await links.decide(ctx, token, await _justification(request, form), who)
    except KeyturnError as error:
        if form is None:
            raise
        return _page(f"<h1>{escape(error.title)}</h1><p>{escape(error.detail)}</p>", status_of(error))
    return decided if form is None else _page(f"<h1>Done</h1><p>The request is {escape(decided.state)}.</p>")


def _page(content: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(content=content), status, headers=_HEADERS)


def _request(link: links.Link, row: Params, *, used: bool) -> str:
    """The request as an approver sees it, and the one button that the link stands for."""
    reasons = "".join(f"<li>{escape(str(reason['text']))}</li>" for reason in row["reasons"])
    action = escape(canonical_json(masked_action(row))) if row["action"] else ""
    facts = {
        "Risk": row["risk_level"], "Asked by": row["requester"], "Due": row["due_at"].isoformat(timespec="minutes"),
        "State": row["state"], "You are": link.person,
    }  # fmt: skip
    listed = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    head = f"<h1>{escape(row['description'] or row['node'])}</h1><dl>{listed}</dl><ul>{reasons}</ul><pre>{action}</pre>"
    if used or row["state"] != "pending" or row["revision"] != link.revision:
        why = "This link was used." if used else "This cannot be decided by this link any more."
        return f"{head}<p>{why}</p>"
    key = '<label>Your key<input name="key" type="password" autocomplete="off" required></label>'
    return (
        f'{head}<form method="post"><label>Why<input name="justification" maxlength="4000"></label>'
        f"{key if links.needs_credential(row) else ''}<button>{link.verdict.value.title()}</button></form>"
    )
