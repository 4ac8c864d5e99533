"""`keyturn audit` as an auditor runs it: exit codes, files, and what is said when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.service.signing import ensure_key
from tests.harness import Keyturn
from tests.web.edge import served
from tests.web.test_audit import CUT, finished, tamper
from tests.web.test_cli import Done, keyturn_command


async def test_an_auditor_proves_the_trail_from_the_command_line(keyturn: Keyturn, tmp_path: Path) -> None:
    settings = keyturn.settings.model_copy(update={"anchor_key_file": tmp_path / "keys" / "anchor-key.pem"})
    made = await keyturn_command("audit", "key", "keys/anchor-key.pem", cwd=tmp_path)
    assert made.code == 0, made.err
    public = made.out.strip()
    assert len(bytes.fromhex(public)) == 32
    other = ensure_key(tmp_path / "other.pem")
    async with served(Keyturn(keyturn.ctx, settings, keyturn.catalog)) as edge:
        hurt, _ = await finished(keyturn, 2)
        auditor = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("rita", ("audit",))}

        async def audit(*arguments: str) -> Done:
            return await keyturn_command("audit", *arguments, cwd=tmp_path, **auditor)

        listed = await audit("list", "--type", "person-changed", "--limit", "2")
        assert listed.code == 0
        assert all("person-changed" in line for line in listed.out.splitlines())
        assert "--after " in listed.err
        for words in (["anchor", "-o", "anchor.jsonl"], ["export", "-o", "trail.jsonl"]):
            assert await audit(*words) == Done(0, "", "")
        assert (tmp_path / "trail.jsonl").read_text() == (await audit("export")).out
        assert list(tmp_path.glob("*.part")) == []
        since = await audit("export", "--since", "2100-01-01")
        assert (since.code, since.out) == (0, "")

        good = await audit("verify", "--anchor", "anchor.jsonl", "--public-key", public)
        assert (good.code, "All of them verify." in good.out) == (0, True)
        assert "its signature is good" in good.err
        assert (await audit("verify", "--anchor", "anchor.jsonl", "--public-key", other)).code == 1
        assert (await audit("verify", "--anchor", "anchor.jsonl", "--public-key", "me")).code == 2
        assert (await audit("verify", "--public-key", public)).code == 2
        assert (await audit("verify", "--anchor", "trail.jsonl")).code == 1
        assert (await audit("verify", "--file", "anchor.jsonl")).code == 2

        await tamper(keyturn, CUT.replace("%(id)s", f"'{hurt}'"))
        assert (await audit("verify")).code == 0
        found = await audit("verify", "--anchor", "anchor.jsonl", "--public-key", public)
        assert found.code == 1
        assert [line.split("\t")[:2] for line in found.out.splitlines()[:-1]] == [[hurt, "6"]]
        assert "One thing is wrong." in found.out
        await tamper(keyturn, "UPDATE keyturn.events SET actor = 'eve' WHERE workflow_id = %(id)s AND seq = 2", id=hurt)
        told = await audit("verify", "--json")
        assert told.code == 1
        assert json.loads(told.out)["findings"][0]["seq"] == 2
    # The server is gone; what was kept can still be proved.
    assert (await audit("verify", "--file", "trail.jsonl", "--anchor", "anchor.jsonl")).code == 0
    assert (await audit("verify")).code == 3
    kept = (tmp_path / "trail.jsonl").read_text()
    (tmp_path / "trail.jsonl").write_text(kept.replace('"rita"', '"eve"', 1))
    assert (await audit("verify", "--file", "trail.jsonl")).code == 1


async def test_who_may_not_audit_is_refused(keyturn: Keyturn, tmp_path: Path) -> None:
    async with served(keyturn) as edge:
        tom = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tom", ("read",))}
        for words in (["list"], ["verify"], ["export"], ["anchor"]):
            refused = await keyturn_command("audit", *words, cwd=tmp_path, **tom)
            assert (refused.code, "`audit`" in refused.err) == (1, True), words
        owner = {**tom, "KEYTURN_KEY": await edge.key("rita")}
        missing = await keyturn_command("audit", "anchor", cwd=tmp_path, **owner)
        assert (missing.code, "keyturn audit key" in missing.err) == (1, True)
