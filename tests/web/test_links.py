"""Links by which people decide: looking at one changes nothing, deciding by one works once and for one person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from psycopg.sql import SQL, Identifier

from orchestrator.core.canonical import MASK
from orchestrator.wire import ApprovalRecord
from tests.harness import Keyturn
from tests.web.edge import Edge
from tests.web.team import HIGH, MEDIUM, Team, refusal

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EVIL = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>{0}"


@pytest.fixture
async def browser(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a credential."""
    async with edge.http() as client:
        yield client


async def linked(team: Team, one: ApprovalRecord, person: str = "tom", verdict: str = "approve", **more: Any) -> str:
    """The path of a new link."""
    body = {"person": person, "verdict": verdict, **more}
    made = await team.post("cleo", f"/approvals/{one.approval_id}/links", **body)
    assert made.status_code == 201, made.text
    assert made.json()["url"].startswith(f"{team.edge.url}/links/")
    return str(made.json()["url"].removeprefix(team.edge.url))


_TABLES = ("approvals", "votes", "links_used", "namespaces", "notices", "events", "workflows")


async def written(keyturn: Keyturn) -> list[Any]:
    """All rows of these tables, each with the transaction that wrote it."""
    async with keyturn.ctx.db.connection() as conn:
        found: list[Any] = []
        for table in _TABLES:
            statement = SQL("SELECT t.xmin::text AS writer, t.*::text AS row FROM {} t").format(
                Identifier("keyturn", table)
            )
            rows = await (await conn.execute(statement)).fetchall()
            found += sorted((table, row["writer"], row["row"]) for row in rows)
        return found


async def test_looking_at_a_link_changes_nothing_however_often(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked({**HIGH, "arguments": {"password": "hunter-one", "version": "v1"}})
    path = await linked(team, one)
    before = await written(team.keyturn)
    for _ in range(50):
        page = await browser.get(path)
        assert page.status_code == 200
    # Scanners ask by HEAD: they learn that there is a page, and nothing else.
    for _ in range(50):
        head = await browser.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert await written(team.keyturn) == before
    shown = (await browser.get(path)).text
    assert "hunter" not in shown
    assert MASK in shown
    assert "v1" in shown


async def test_a_link_decides_once(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    path = await linked(team, one, verdict="reject")
    assert refusal(await browser.post(path)) == (422, "justification_required")
    done = (await browser.post(path, json={"justification": "not now"})).json()
    assert (done["state"], done["resolved_by"]) == ("rejected", "tom")
    assert refusal(await browser.post(path, json={"justification": "not now"})) == (410, "token_used")
    page = await browser.get(path)
    assert "This link was used." in page.text
    assert "<form" not in page.text
    vote = (await team.record(one))["votes"][0]
    assert (vote["voter"], vote["justification"]) == ("tom", "not now")


async def test_the_page_of_a_link_decides_by_its_form(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    path = await linked(team, one)
    page = await browser.get(path)
    assert '<form method="post">' in page.text
    assert 'name="key"' not in page.text
    done = await browser.post(path, data={"justification": ""})
    assert (done.status_code, done.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "The request is approved." in done.text
    again = await browser.post(path, data={"justification": ""})
    assert (again.status_code, "The link was used" in again.text) == (410, True)


async def test_what_no_form_of_ours_sends_is_refused_and_never_a_fault(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    path = await linked(team, one)
    for content, status in [
        (b"justification=a%00b", 422),
        (b"justification=\xff", 400),
        (b"justification=" + b"x" * 4001, 422),
        (b"verdict=reject", 400),
        (b'{"justification": "as curl sends it"}', 400),
    ]:
        assert (await browser.post(path, content=content, headers=FORM)).status_code == status, content
    assert refusal(await browser.post(path, json={"justification": "x" * 4001})) == (422, "invalid_input")
    assert refusal(await browser.post(path, json={"verdict": "reject"})) == (422, "invalid_input")
    surrogate = await browser.post(path, content=b"justification=%ED%A0%80", headers=FORM)
    assert surrogate.status_code == 200, "bytes that are no text are replaced, as browsers do"
    elsewhere = await team.people["tom"].post(f"/approvals/{one.approval_id}/votes", content=b"a=b", headers=FORM)
    assert refusal(elsewhere) == (400, "malformed")


async def test_a_high_risk_takes_the_persons_own_key_besides_the_link(team: Team, browser: httpx.AsyncClient) -> None:
    one, other = await team.asked(HIGH), await team.asked(HIGH)
    path = await linked(team, one)
    tom, tara = await team.edge.key("tom"), await team.edge.key("tara")
    assert refusal(await browser.post(path)) == (403, "token_wrong_user")
    assert 'name="key" type="password"' in (await browser.get(path)).text
    for key, status in ((tara, 403), ("kt_no_such", 401), ("", 403)):
        refused = await browser.post(path, data={"justification": "", "key": key})
        assert (refused.status_code, refused.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert key not in refused.text or not key
    assert refusal(await team.post("tara", path)) == (403, "token_wrong_user")
    elsewhere = await team.edge.key("tom", namespace="elsewhere")
    async with team.edge.http(elsewhere) as stranger:
        assert refusal(await stranger.post(path)) == (403, "token_wrong_user")
    assert (await browser.post(path, data={"justification": "", "key": tom})).status_code == 200
    by_header = await browser.post(await linked(team, other), headers={"X-API-Key": tom})
    assert by_header.json()["resolved_by"] == "tom"


async def test_a_link_is_for_one_person_and_one_revision(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    path = await linked(team, one)
    assert refusal(await team.post("tara", path)) == (403, "token_wrong_user")
    unfit = await linked(team, one, person="rita")
    assert refusal(await browser.post(unfit)) == (403, "self_approval")
    await team.post("rita", f"/approvals/{one.approval_id}/edit", action=MEDIUM | {"target": "archive"})
    assert "cannot be decided by this link any more" in (await browser.get(path)).text
    assert refusal(await browser.post(path)) == (409, "stale_revision")
    assert (await team.record(one))["state"] == "pending"


async def test_a_link_expires_and_only_our_own_signature_counts(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    late = await linked(team, one, ttl_seconds=0.001)
    assert refusal(await browser.post(late)) == (410, "expired")
    assert (await browser.get(late)).status_code == 410
    good = (await linked(team, one)).removeprefix("/links/")
    claims = jwt.decode(good, options={"verify_signature": False})
    other = jwt.encode(claims | {"sub": "tara"}, "x" * 32, algorithm="HS256")
    forged = {
        "another key": jwt.encode(claims, "x" * 32, algorithm="HS256"),
        "no key": jwt.encode(claims, "", algorithm="none"),
        "another person": good.replace(good.split(".")[1], other.split(".")[1]),
        "another namespace": jwt.encode(claims | {"ns": "elsewhere"}, "x" * 32, algorithm="HS256"),
        "no token": "x.y.z",
    }
    for name, token in forged.items():
        assert refusal(await browser.post(f"/links/{token}")) == (404, "token_invalid"), name
        assert (await browser.get(f"/links/{token}")).status_code == 404, name
    assert (await team.record(one))["votes"] == []


async def test_nobody_makes_links_for_others_without_admin(team: Team) -> None:
    one = await team.asked(MEDIUM)
    path = f"/approvals/{one.approval_id}/links"
    async with team.edge.http(await team.edge.key("tom", ("read", "decide"))) as tom:
        theirs = await tom.post(path, json={"person": "tara", "verdict": "approve"})
        assert refusal(theirs) == (403, "forbidden")
        own = await tom.post(path, json={"person": "tom", "verdict": "approve"})
        assert own.status_code == 201
    assert refusal(await team.post("rita", path, person="nobody", verdict="approve")) == (404, "not_found")
    assert refusal(await team.post("rita", path, person="tom", verdict="edit")) == (422, "invalid_input")
    long = await team.post("rita", path, person="tom", verdict="approve", ttl_seconds=604_801)
    assert refusal(long) == (422, "invalid_input")


async def test_foreign_text_is_text_on_the_page_and_no_script_may_run(team: Team, browser: httpx.AsyncClient) -> None:
    action = {**MEDIUM, "target": EVIL, "arguments": {EVIL: EVIL}}
    one = await team.asked(action, description=EVIL)
    path = await linked(team, one)
    page = await browser.get(path)
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy, "the default holds for scripts: there are none"
    assert "frame-ancestors 'none'" in policy, "nobody can put the button under another page's"
    assert "form-action 'self'" in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_another_site_has_nothing_to_misuse(team: Team, browser: httpx.AsyncClient) -> None:
    """A forged cross-origin form decides only where the browser adds a credential by itself. Here it has none to add:
    no answer sets a cookie, no authentication that browsers remember is taken, and what permits a decision, the token
    or a key, has to be in the request. Nor can another origin read a page to get at it: no CORS header says it may.
    """
    one = await team.asked(MEDIUM)
    path = await linked(team, one)
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    page = await browser.get(path, headers=foreign)
    assert "set-cookie" not in page.headers
    assert "access-control-allow-origin" not in page.headers
    guessed = await browser.post("/links/", data={"justification": ""}, headers=foreign)
    assert guessed.status_code in {404, 405}
    vote = f"/approvals/{one.approval_id}/votes"
    remembered = {"Authorization": "Basic dG9tOnRvbQ==", "Cookie": "session=tom", **foreign}
    body = {"verdict": "approve"}
    assert refusal(await browser.post(vote, json=body, headers=remembered)) == (401, "unauthenticated")
    plain = {**foreign, "Content-Type": "text/plain"}
    assert (await browser.post(vote, content=b'{"verdict": "approve"}', headers=plain)).status_code == 401
    asked = await browser.options(vote, headers={**foreign, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in asked.headers
    high = await linked(team, await team.asked(HIGH))
    assert refusal(await browser.post(high, headers=remembered)) == (403, "token_wrong_user")
    assert (await team.record(one))["state"] == "pending"


# --- who made it, and what was refused ---


async def events(keyturn: Keyturn, stream: str, kind: str) -> list[dict[str, Any]]:
    """The events of one type in a chain: of a workflow, or of a namespace as `@name`."""
    async with keyturn.ctx.db.connection() as conn:
        statement = "SELECT actor, body FROM keyturn.events WHERE workflow_id = %s AND type = %s ORDER BY seq"
        rows = await (await conn.execute(statement, [stream, kind])).fetchall()
        return [{**row["body"], "actor": row["actor"]} for row in rows]


async def test_who_made_a_link_is_told_with_the_vote_and_in_the_chain(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    path = await linked(team, one)
    (made,) = await events(team.keyturn, one.workflow_id, "link-created")
    assert (made["actor"], made["person"], made["verdict"]) == ("cleo", "tom", "approve")
    assert path.removeprefix("/links/") not in str(made), "the chain is read by more people than may decide"
    assert (await browser.post(path)).status_code == 200
    vote = (await team.record(one))["votes"][0]
    assert (vote["voter"], vote["via"]) == ("tom", "cleo")
    (told,) = await events(team.keyturn, one.workflow_id, "vote-recorded")
    assert (told["via"], told["link"]) == ("cleo", made["link"])
    other = await team.asked(MEDIUM)
    own = await team.post("tom", f"/approvals/{other.approval_id}/links", person="tom", verdict="approve")
    assert (await browser.post(own.json()["url"].removeprefix(team.edge.url))).status_code == 200
    assert (await team.record(other))["votes"][0]["via"] is None


async def test_who_asked_or_edited_last_decides_through_nobodys_link(team: Team, browser: httpx.AsyncClient) -> None:
    one = await team.asked(MEDIUM)
    body = {"person": "tom", "verdict": "approve"}
    path = f"/approvals/{one.approval_id}/links"
    assert refusal(await team.post("rita", path, **body)) == (403, "self_approval")
    edited = await team.post("tara", f"/approvals/{one.approval_id}/edit", action=MEDIUM | {"target": "archive"})
    assert edited.status_code == 200
    assert refusal(await team.post("tara", path, **body)) == (403, "self_approval")
    refused = await events(team.keyturn, "@default", "refused")
    assert [(row["actor"], row["code"]) for row in refused] == [("rita", "self_approval"), ("tara", "self_approval")]
    by_another = await team.post("theo", path, **body)
    assert (await browser.post(by_another.json()["url"].removeprefix(team.edge.url))).status_code == 200


async def test_what_a_link_was_refused_for_is_in_the_workflows_chain(team: Team, browser: httpx.AsyncClient) -> None:
    one, high = await team.asked(MEDIUM), await team.asked(HIGH)
    late = await linked(team, one, ttl_seconds=0.001)
    assert refusal(await browser.post(late)) == (410, "expired")
    (told,) = await events(team.keyturn, one.workflow_id, "refused")
    assert (told["actor"], told["code"], told["wanted"]) == ("tom", "expired", "link")
    path = await linked(team, high)
    async with team.edge.http(await team.edge.key("tom", namespace="elsewhere")) as stranger:
        assert refusal(await stranger.post(path)) == (403, "token_wrong_user")
        assert refusal(await stranger.post("/links/x.y.z")) == (404, "token_invalid")
    (told,) = await events(team.keyturn, high.workflow_id, "refused")
    assert (told["code"], told["of_namespace"]) == ("token_wrong_user", "elsewhere")
    (told,) = await events(team.keyturn, "@elsewhere", "refused")
    assert (told["actor"], told["code"]) == ("tom", "token_invalid")


async def test_refused_links_delegations_and_policies_are_in_the_namespaces_chain(team: Team) -> None:
    one = await team.asked(MEDIUM)
    async with team.edge.http(await team.edge.key("tom", ("read", "decide"))) as tom:
        link = {"person": "cleo", "verdict": "approve"}
        assert (await tom.post(f"/approvals/{one.approval_id}/links", json=link)).status_code == 403
        theirs = {"from": "cleo", "to": "tom", "ends_at": "2100-01-01T00:00:00Z"}
        assert (await tom.post("/delegations", json=theirs)).status_code == 403
        assert (await tom.delete("/delegations/dg-none")).status_code == 404
        assert (await tom.post("/policy/publish", json={"text": "policies: []"})).status_code == 403
    assert (await team.post("cleo", "/policy/publish", text="policies: [{nam: x}]")).status_code == 422
    found = await events(team.keyturn, "@default", "refused")
    assert [(row["actor"], row["wanted"]) for row in found] == [
        ("tom", "link"), ("tom", "delegation"), ("tom", "end of a delegation"), ("tom", "POST /policy/publish"),
        ("cleo", "policy"),
    ]  # fmt: skip


@pytest.mark.parametrize("namespace", ["", "elsewhere", "a\0b", "\ud800", 7])
async def test_a_token_that_claims_whatever_namespace_is_none_of_ours(
    browser: httpx.AsyncClient, namespace: object
) -> None:
    claims = {"ns": namespace, "aud": "keyturn-link", "jti": "1", "sub": "tom", "exp": 4102444800, "created_by": "tom"}
    path = f"/links/{jwt.encode(claims, b'0' * 32, algorithm='HS256')}"
    assert (await browser.get(path)).status_code == 404
    assert refusal(await browser.post(path)) == (404, "token_invalid")
