"""What requests are judged by only becomes newer, in whatever order it is asked for."""

from __future__ import annotations

from orchestrator.service import policies
from orchestrator.store import people
from orchestrator.wire import PolicyText
from tests.harness import Keyturn, caller


async def test_whoever_knows_newer_people_does_not_bring_older_policies_back(keyturn: Keyturn) -> None:
    root = caller("root")
    for count in (1, 2):
        text = f"policies: [{{name: one, stages: [[{{role: team_lead, count: {count}}}]]}}]"
        await policies.publish(keyturn.ctx, root, PolicyText(text=text))
    async with keyturn.ctx.db.connection() as conn:
        _, people_version = await people.versions(conn, "default")
    laws = keyturn.ctx.laws
    # An effect asks for the policies of now; a workflow that was claimed before they were published knows its people.
    assert (await laws.at("default", 2, 0)).book.version == 2
    assert (await laws.at("default", 1, people_version)).book.version == 2
