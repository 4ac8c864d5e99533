"""The trail as evidence, over REST: what was tampered with is found, what left the house can be checked without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.anchors import anchored_heads, check_anchor
from orchestrator.core.audit import check_export, read_export
from orchestrator.core.canonical import MASK
from orchestrator.core.errors import AnchorInvalid
from orchestrator.sdk.client import ApiError, AsyncKeyturn
from orchestrator.service import audit as service
from orchestrator.service.signing import ensure_key
from orchestrator.wire import ChainHead, Verification
from tests.apps.dialect_graphs import CANARY
from tests.harness import Keyturn
from tests.web.edge import ALL, Edge, served

RISKY: dict[str, Any] = {"operation": "deploy", "environment": "production"}


async def finished(keyturn: Keyturn, count: int = 1, **arguments: object) -> list[str]:
    """Workflows that were asked for, approved and completed."""
    async with keyturn.working():
        workflows = [await keyturn.submit("governed", **RISKY, arguments=arguments) for _ in range(count)]
        for workflow in workflows:
            await keyturn.asked(workflow)
            await keyturn.approve(workflow)
        for workflow in workflows:
            await keyturn.until(workflow, "completed")
    return workflows


async def tamper(keyturn: Keyturn, statement: str, **parts: object) -> None:
    """What somebody does who owns the database."""
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute(statement, parts or None)  # pyright: ignore[reportArgumentType] written in this file


async def exported(client: AsyncKeyturn, **wanted: Any) -> list[str]:
    """The lines of an export."""
    pieces = [piece async for piece in client.export_audit(**wanted)]
    return b"".join(pieces).decode().splitlines()


async def anchored(client: AsyncKeyturn) -> list[str]:
    """The lines of an anchor."""
    return b"".join([piece async for piece in client.anchor_audit()]).decode().splitlines(keepends=True)


async def still_contains(client: AsyncKeyturn, anchor: list[str]) -> Verification:
    """What the server says of an anchor's heads."""
    heads = [ChainHead(workflow_id=n, seq=h.seq, hash=h.hash.hex()) for n, h in anchored_heads(anchor)]
    return await client.contains_heads(heads)


# Verifying


# What {third} stands for.
THIRD = "WHERE workflow_id = %(id)s AND seq = 3"
SWAP = """
WITH gone AS (DELETE FROM keyturn.events WHERE workflow_id = %(id)s AND seq IN (3, 4) RETURNING *)
INSERT INTO keyturn.events SELECT workflow_id, 1007 - seq, namespace, at, type, actor, body, hash FROM gone
"""
ADD = """
INSERT INTO keyturn.events SELECT workflow_id, seq + 1, namespace, at, type, actor, body, hash
  FROM keyturn.events WHERE workflow_id = %(id)s ORDER BY seq DESC LIMIT 1
"""
PUT_BEFORE = """
INSERT INTO keyturn.events SELECT workflow_id, 0, namespace, at, type, actor, body, hash
  FROM keyturn.events WHERE workflow_id = %(id)s AND seq = 1
"""
# What is done to one of two workflows, at which event that is found, and how it is told.
TAMPERING: dict[str, tuple[str, int | None, str]] = {
    "a changed body": ("UPDATE keyturn.events SET body = '{}' {third}", 3, "not what was written"),
    "a changed space": ("UPDATE keyturn.events SET body = (body::text || ' ')::json {third}", 3, "not what"),
    "a changed actor": ("UPDATE keyturn.events SET actor = 'eve' {third}", 3, "not what"),
    "a changed time": ("UPDATE keyturn.events SET at = at + '1 microsecond' {third}", 3, "not what"),
    "a time that is none": ("UPDATE keyturn.events SET at = 'infinity' {third}", 3, "not what"),
    "a changed hash": ("UPDATE keyturn.events SET hash = '' {third}", 3, "not what"),
    "two that changed places": (SWAP, 3, "not what"),
    "one that was taken out": ("DELETE FROM keyturn.events {third}", 3, "event 3 is missing"),
    "two that were taken out": (
        "DELETE FROM keyturn.events WHERE workflow_id = %(id)s AND seq IN (3, 4)",
        3,
        "events 3 to 4 are missing",
    ),
    "the newest cut off": ("DELETE FROM keyturn.events WHERE workflow_id = %(id)s AND seq > 5", 6, "at the end"),
    "one that was added": (ADD, None, "not what"),
    "one before the first": (PUT_BEFORE, 0, "where none may be"),
    "one that was moved away": ("UPDATE keyturn.events SET namespace = 'elsewhere' {third}", 3, "elsewhere"),
    "a head that lags": (
        "UPDATE keyturn.workflows SET last_seq = last_seq - 1 WHERE workflow_id = %(id)s",
        None,
        "the row counts",
    ),
    "a head of another chain": (
        "UPDATE keyturn.workflows SET last_hash = sha256('x') WHERE workflow_id = %(id)s",
        None,
        "hash is not the one",
    ),
    "all events gone": ("DELETE FROM keyturn.events WHERE workflow_id = %(id)s", 1, "missing at the end"),
    "the workflow gone": ("DELETE FROM keyturn.workflows WHERE workflow_id = %(id)s", None, "the row of"),
}


async def test_an_untouched_trail_verifies_whole(edge: Edge, keyturn: Keyturn, monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = await finished(keyturn, 3, odd="\u2028 é 漢 \x07 \\u0000")
    async with edge.client() as client:
        found = await client.verify_audit()
        assert (found.ok, found.findings) == (True, [])
        assert found.chains == len(workflows) + 1, "and the namespace's own"
        async with keyturn.ctx.db.connection() as conn:
            row = await (await conn.execute("SELECT count(*) AS n FROM keyturn.events")).fetchone()
        assert row is not None
        assert found.events == row["n"]
        # The same in the smallest steps that can be taken.
        for name in ("_CHAINS", "_EVENTS", "_NAMES"):
            monkeypatch.setattr(service, name, 1)
        assert await client.verify_audit() == found
        async with edge.http(await edge.key()) as http:
            pages: list[dict[str, Any]] = []
            while not pages or pages[-1]["next_cursor"]:
                after = {"after": pages[-1]["next_cursor"]} if pages else {}
                pages.append((await http.get("/audit/verify", params={"limit": 1, **after})).json())
            assert sum(page["chains"] for page in pages) == found.chains
            assert len(pages) > len(workflows)


async def test_verifying_finds_nothing_wrong_with_what_is_just_being_written(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.client() as client:
        writing = asyncio.create_task(finished(keyturn, 6))
        checked: list[Verification] = []
        while not writing.done():
            checked.append(await client.verify_audit())
        await writing
        assert [one.findings for one in checked if one.findings] == []
        assert checked[0].events < (await client.verify_audit()).events


@pytest.mark.parametrize("what", TAMPERING)
async def test_what_was_tampered_with_is_found_and_named(edge: Edge, keyturn: Keyturn, what: str) -> None:
    hurt, _ = await finished(keyturn, 2)
    length = len(await keyturn.types(hurt))
    statement, seq, told = TAMPERING[what]
    await tamper(keyturn, statement.replace("{third}", THIRD), id=hurt)
    if what == "two that changed places":
        await tamper(keyturn, "UPDATE keyturn.events SET seq = seq - 1000 WHERE seq > 1000")
    async with edge.client() as client:
        found = await client.verify_audit()
    assert not found.ok
    assert {one.workflow_id for one in found.findings} == {hurt}
    first = found.findings[0]
    assert told in first.detail
    assert seq is None or first.seq == seq
    assert first.seq is None or first.seq <= length + 1


async def test_the_chain_of_the_namespace_itself_is_verified_too(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.client() as client:
        assert (await client.verify_audit()).ok
        await tamper(keyturn, "UPDATE keyturn.events SET actor = 'eve' WHERE workflow_id = '@default' AND seq = 2")
        (one,) = (await client.verify_audit()).findings
        assert (one.workflow_id, one.seq) == ("@default", 2)


async def test_a_chain_that_is_wrong_throughout_tells_the_first_and_how_many_more(edge: Edge, keyturn: Keyturn) -> None:
    for number in range(30):
        await edge.key(f"person{number}")
    async with edge.client() as client:
        await tamper(keyturn, "UPDATE keyturn.events SET actor = 'eve' WHERE workflow_id = '@default'")
        found = (await client.verify_audit()).findings
    assert [one.seq for one in found[:3]] == [1, 2, 3]
    assert len(found) == 21
    assert "more events of this chain are wrong" in found[-1].detail


# Anchors


CUT = """
DELETE FROM keyturn.events WHERE workflow_id = %(id)s AND seq > 5;
UPDATE keyturn.workflows w SET last_seq = e.seq, last_hash = e.hash
  FROM keyturn.events e WHERE w.workflow_id = %(id)s AND e.workflow_id = w.workflow_id AND e.seq = 5
"""
REMOVE = """
DELETE FROM keyturn.events WHERE workflow_id = %(id)s;
DELETE FROM keyturn.workflows WHERE workflow_id = %(id)s
"""
REWRITE = """
UPDATE keyturn.events SET actor = 'eve' WHERE workflow_id = %(id)s AND seq = 1;
DO $$
DECLARE
    e record;
    h bytea := '';
BEGIN
    FOR e IN SELECT *, body::text AS b FROM keyturn.events WHERE workflow_id = %(id)s ORDER BY seq LOOP
        h := keyturn.event_hash(h, e.seq, e.at, e.type, e.actor, e.b);
        UPDATE keyturn.events SET hash = h WHERE workflow_id = e.workflow_id AND seq = e.seq;
    END LOOP;
    UPDATE keyturn.workflows SET last_hash = h WHERE workflow_id = %(id)s;
END $$
"""
FORGED = {
    "the newest cut off, and the head with them": (CUT, "missing at the end"),
    "the whole chain and its workflow taken out": (REMOVE, "the whole chain is gone"),
    "the chain written anew": (REWRITE, "was written anew"),
}


@pytest.fixture
async def signing(keyturn: Keyturn, tmp_path: Path) -> tuple[Keyturn, str]:
    """A Keyturn with a key to sign anchors, and the public half."""
    file = tmp_path / "anchor-key.pem"
    public = ensure_key(file)
    settings = keyturn.settings.model_copy(update={"anchor_key_file": file})
    return Keyturn(keyturn.ctx, settings, keyturn.catalog), public


@pytest.mark.parametrize("what", FORGED)
async def test_what_was_forged_to_the_end_is_found_by_an_anchor_only(signing: tuple[Keyturn, str], what: str) -> None:
    keyturn, public = signing
    statements, told = FORGED[what]
    async with served(keyturn) as edge, edge.client() as client:
        hurt, _ = await finished(keyturn, 2)
        anchor = await anchored(client)
        await finished(keyturn)
        facts = check_anchor(anchor, public)
        assert (facts.namespace, facts.chains, facts.public_key) == ("default", 3, public)
        assert (await still_contains(client, anchor)).ok, "what came since does not disturb"
        await tamper(keyturn, statements.replace("%(id)s", f"'{hurt}'"))
        assert (await client.verify_audit()).ok, "the chains by themselves cannot show it"
        found = await still_contains(client, anchor)
        assert [one.workflow_id for one in found.findings] == [hurt]
        assert told in found.findings[0].detail
        offline = [f for check in check_export(read_export(await exported(client)), dict(anchored_heads(anchor)))
                   for f in check.findings]  # fmt: skip
        assert [one.workflow_id for one in offline] == [hurt]


async def test_an_anchor_that_was_changed_or_signed_by_another_is_refused(
    signing: tuple[Keyturn, str], tmp_path: Path
) -> None:
    keyturn, _ = signing
    async with served(keyturn) as edge, edge.client() as client:
        await finished(keyturn, 2)
        anchor = await anchored(client)
    check_anchor(anchor)
    changes: dict[str, Callable[[list[str]], list[str]]] = {
        "a head": lambda lines: [lines[0], lines[1].replace("1", "2", 1), *lines[2:]],
        "a chain less": lambda lines: [lines[0], *lines[2:]],
        "the namespace": lambda lines: [lines[0].replace("default", "other"), *lines[1:]],
        "cut off": lambda lines: lines[:-1],
        "more behind": lambda lines: [*lines, lines[1]],
        "nothing": lambda _: [],
        "something else": lambda _: ["hello\n"],
        "another list": lambda lines: [lines[0], "[1]\n", *lines[1:]],
    }
    for name, change in changes.items():
        changed = change(anchor)
        with pytest.raises(AnchorInvalid):
            check_anchor(changed)
        assert changed != anchor, name
    with pytest.raises(AnchorInvalid, match="another key"):
        check_anchor(anchor, ensure_key(tmp_path / "other.pem"))


async def test_a_server_without_a_key_says_how_to_make_one(edge: Edge, signing: tuple[Keyturn, str]) -> None:
    async with edge.client() as client:
        with pytest.raises(ApiError, match="keyturn audit key") as refused:
            await anchored(client)
    assert (refused.value.status, refused.value.code) == (409, "anchor_key_missing")
    keyturn, public = signing
    file = keyturn.settings.anchor_key_file
    assert file is not None
    assert ensure_key(file) == public, "a key that is there is kept"
    assert file.stat().st_mode & 0o077 == 0
    async with served(keyturn) as other, other.client() as client:
        for spoil in (lambda: file.chmod(0o644), lambda: file.write_text("nonsense"), file.unlink):
            spoil()
            with pytest.raises(ApiError) as refused:
                await anchored(client)
            assert refused.value.code == "anchor_key_missing"
            if file.exists():
                file.chmod(0o600)


# Exports


async def test_an_export_can_be_proved_without_the_server(edge: Edge, keyturn: Keyturn) -> None:
    workflows = await finished(keyturn, 2, odd="\u2028 é 漢 \x07 \\u0000")
    async with edge.client() as client:
        lines = await exported(client)
        checks = list(check_export(read_export(lines)))
        assert [one for check in checks for one in check.findings] == []
        assert {check.name for check in checks} == {"@default", *workflows}
        assert sum(check.events for check in checks) == len(lines)
        changed = [line.replace("tara", "eve") if '"vote-recorded"' in line else line for line in lines]
        (one, two) = [f for check in check_export(read_export(changed)) for f in check.findings]
        assert {one.workflow_id, two.workflow_id} == set(workflows)
        cut = [line for line in lines if json.loads(line)["seq"] != 2]
        assert all(check.findings for check in check_export(read_export(cut)))


async def test_an_export_is_of_a_span_of_time_or_of_one_workflow(edge: Edge, keyturn: Keyturn) -> None:
    first, second = await finished(keyturn, 2)
    async with edge.client() as client:
        mine = [json.loads(line) for line in await exported(client, workflow_id=first)]
        assert {one["workflow_id"] for one in mine} == {first}
        assert [one["type"] for one in mine] == await keyturn.types(first)
        page = await client.events(second, limit=1000)
        middle = page.events[4].at
        before = [json.loads(line) for line in await exported(client, until=middle)]
        after = [json.loads(line) for line in await exported(client, since=middle)]
        assert len(before) + len(after) == len(await exported(client))
        assert max(one["at"] for one in before) < middle.isoformat() <= min(one["at"] for one in after)
        with pytest.raises(ApiError) as refused:
            await exported(client, workflow_id="wf-none")
        assert refused.value.status == 404


async def test_a_secret_of_an_action_is_not_in_the_trail(edge: Edge, keyturn: Keyturn) -> None:
    await finished(keyturn, password=CANARY, nested=[{"api_key": {"value": CANARY}}])
    async with edge.client() as client:
        key = (await client.create_key("rita", ["read"])).key
        shown = "\n".join(await exported(client)) + (await client.audit(limit=1000)).model_dump_json()
    assert CANARY not in shown
    assert key.split("_", 2)[2] not in shown
    assert MASK in shown


# Listing, and what an administrator does


async def test_keys_and_roles_are_told_with_who_changed_them(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.client("rita") as rita:
        await rita.put_person("zoe", name="Zoe", roles=["team_lead"])
        await rita.put_person("zoe", name="Zoe", roles=["cto"])
        made = await rita.create_key("zoe", ["read"], label="laptop")
        for _ in range(2):
            await rita.revoke_key(made.key_id)
        page = await rita.audit(actor="rita", limit=4)
    revoked, created, changed, added = page.events
    assert (revoked.type, created.type, changed.type, added.type) == (
        "key-revoked", "key-created", "person-changed", "person-changed",
    )  # fmt: skip
    assert (added.data["new"], added.data["roles_before"], added.data["roles"]) == (True, [], ["team_lead"])
    assert (changed.data["new"], changed.data["roles_before"], changed.data["roles"]) == (False, ["team_lead"], ["cto"])
    assert created.data["key"] == revoked.data["key"]
    told = created.data["key"]
    assert isinstance(told, dict)
    assert (told["key_id"], told["person"], told["label"]) == (made.key_id, "zoe", "laptop")
    assert all(event.workflow_id == "@default" and event.data["key_id"] for event in page.events)


async def test_a_refusal_that_concerns_no_workflow_is_in_the_namespaces_chain(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key("tom", ("read",))) as tom, edge.client() as auditor:
        assert (await tom.post("/keys", json={"person": "tom", "permissions": ["admin"]})).status_code == 403
        assert (await tom.post("/keys", headers={"Authorization": "Bearer kt_wrong"})).status_code == 401
        with pytest.raises(ApiError):
            await auditor.revoke_key("0" * 16)
        page = await auditor.audit(type="refused")
    assert [(one.actor, one.data["code"]) for one in page.events] == [("rita", "not_found"), ("tom", "forbidden")]
    assert page.events[1].data["wanted"] == "POST /keys"


async def test_the_list_shows_every_event_once_page_by_page(edge: Edge, keyturn: Keyturn) -> None:
    workflows = await finished(keyturn, 3)
    async with edge.client() as client:
        seen: list[tuple[str, int]] = []
        after = None
        while True:
            page = await client.audit(limit=7, after=after)
            seen += [(one.workflow_id, one.seq) for one in page.events]
            after = page.next_cursor
            if after is None:
                break
        stored = [json.loads(line) for line in await exported(client)]
        assert sorted(seen) == sorted((one["workflow_id"], one["seq"]) for one in stored)
        assert len(set(seen)) == len(seen)
        assert list(dict.fromkeys(name for name, _ in seen)) == ["@default", *reversed(workflows)]
        voted = await client.audit(type="vote-recorded", actor="tara")
        assert [one.workflow_id for one in voted.events] == list(reversed(workflows))
        for wrong in ("nonsense", "WyJ4Il0", "é", "WyJ3b3JrZmxvd3MiLCJcdTAwMDAiLG51bGwsbnVsbF0"):
            with pytest.raises(ApiError) as refused:
                await client.audit(after=wrong)
            assert refused.value.status == 422


async def test_another_namespaces_trail_is_not_there(
    edge: Edge, keyturn: Keyturn, signing: tuple[Keyturn, str]
) -> None:
    (workflow,) = await finished(keyturn)
    stranger = await edge.key("eve", (*ALL, "act_as"), namespace="elsewhere")
    async with served(signing[0]) as other:
        client = AsyncKeyturn(other.url, stranger)
        mine = (await client.audit(limit=1000)).events
        assert {one.workflow_id for one in mine} == {"@elsewhere"}
        assert {json.loads(line)["namespace"] for line in await exported(client)} == {"elsewhere"}
        assert [name for name, _ in anchored_heads(await anchored(client))] == ["@elsewhere"]
        with pytest.raises(ApiError) as refused:
            await exported(client, workflow_id=workflow)
        assert refused.value.status == 404
        await tamper(keyturn, "UPDATE keyturn.events SET actor = 'eve' WHERE workflow_id = %(id)s", id=workflow)
        found = await client.verify_audit()
        assert (found.ok, found.chains) == (True, 1)
        head = ChainHead(workflow_id=workflow, seq=1, hash="0" * 64)
        assert "the whole chain is gone" in (await client.contains_heads([head])).findings[0].detail
        await client.close()
