"""Captures: filed, asked about when it is unclear, and found again in the inbox; what the router says is not echoed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from graphs import triage
from orchestrator.core.errors import InvalidInput, KeyturnError
from orchestrator.sdk.client import ApiError
from orchestrator.service import threads, workflows
from orchestrator.wire import EventRecord, SubmitRequest
from tests.harness import Keyturn, running
from tests.rows.model_server import MUSING, Model, Say, model_server
from tests.web.edge import Edge, served
from tests.web.test_cli import command_on_a_terminal, keyturn_command

GRAPHS = Path(__file__).parents[2] / "graphs" / "langgraph.json"
# What the rules find between a chore and a person, and cannot tell apart.
UNCLEAR = "Call the bank"
NOTHING = "hmm"


@pytest.fixture
async def keyturn(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyturn]:
    monkeypatch.delenv(triage.VARIABLE, raising=False)
    async with running(database_url, app=GRAPHS) as found, found.working():
        yield found


@pytest.fixture
async def edge(keyturn: Keyturn) -> AsyncIterator[Edge]:
    async with served(keyturn) as found:
        yield found


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    with model_server() as found:
        monkeypatch.setenv(triage.VARIABLE, "compatible:tiny")
        monkeypatch.setenv("KEYTURN_MODEL_URL", found.url)
        yield found


async def filed(keyturn: Keyturn, workflow: str) -> dict[str, Any]:
    found = await keyturn.until(workflow, "completed", "failed")
    assert found.status == "completed", found.error
    return cast("dict[str, Any]", found.result)


async def answered(keyturn: Keyturn, workflow: str, *answers: object) -> list[dict[str, Any]]:
    """Give these answers to the questions as they come; returns the questions."""
    asked: list[dict[str, Any]] = []
    for answer in answers:
        approval = await keyturn.asked(workflow)
        assert approval.question is not None
        asked.append(approval.question)
        assert await keyturn.answer(approval.approval_id, answer) == "resolved"
    return asked


async def events(keyturn: Keyturn, workflow: str) -> list[EventRecord]:
    return list((await workflows.events_page(keyturn.ctx, keyturn.me, workflow, 0, 1000)).events)


# D4: the classifier and its questions


async def test_d4_a_clear_capture_is_filed_at_once_and_says_by_what(keyturn: Keyturn) -> None:
    result = await filed(keyturn, await keyturn.submit("triage", text="Pay the electricity bill by Friday"))
    assert set(result) == set(triage.Result.__annotations__), "nothing of the state besides"
    assert (result["category"], result["scorer"], result["guessed"]) == ("Admin", "rules", False)
    assert result["confidence"] >= triage.SURE
    assert result["questions"] == []
    assert result["reasons"][0] == "Admin: “electricity bill”"
    assert {one["category"] for one in result["alternatives"]} == {"People", "Projects", "Ideas"}


async def test_d4_an_unclear_capture_asks_one_focused_question_between_the_two_likeliest(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    approval = await keyturn.asked(workflow)
    assert approval.kind == "question"
    assert approval.question is not None
    assert (
        approval.question["options"] == ["Admin", "People"] == [one for one, _ in triage.verdict(UNCLEAR).ranking][:2]
    )
    assert approval.question["schema"] == triage._ANSWER
    for part in (UNCLEAR, "Admin", "People"):
        assert part in approval.description
    assert "Ideas" not in approval.description


async def test_d4_the_question_is_said_before_it_is_asked(keyturn: Keyturn) -> None:
    """The graph's side of D2."""
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    approval = await keyturn.asked(workflow)
    told = [one for one in await events(keyturn, workflow) if one.type in ("message", "confirmation-required")]
    assert [one.type for one in told] == ["message", "confirmation-required"]
    assert told[0].data["node"] == "clarify"
    assert told[0].data["delta"] == approval.description


async def test_d4_after_two_questions_it_is_the_best_guess_at_055(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    first, second = await answered(keyturn, workflow, NOTHING, "no idea")
    result = await filed(keyturn, workflow)
    assert (result["category"], result["confidence"], result["guessed"]) == ("Admin", 0.55, True)
    assert first["prompt"] != second["prompt"]
    assert [one["answer"] for one in result["questions"]] == [NOTHING, "no idea"]
    assert [one["by"] for one in result["questions"]] == [["tom"], ["tom"]]


@pytest.mark.parametrize(
    ("answer", "category"),
    [
        ("People", "People"),
        ("admin", "Admin"),
        (" PEOPLE. ", "People"),
        ("**Ideas**!", "Ideas"),  # not one of the two that were offered
        ("`projects`", "Projects"),
        ("project", "Projects"),
    ],
)
async def test_d4_a_bare_category_name_is_taken_at_its_word_at_085(
    keyturn: Keyturn, answer: str, category: str
) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    await answered(keyturn, workflow, answer)
    result = await filed(keyturn, workflow)
    assert (result["category"], result["confidence"], result["guessed"]) == (category, 0.85, False)
    assert (result["scorer"], result["reasons"]) == ("answer", [f"tom answered {category}"])
    assert category not in {one["category"] for one in result["alternatives"]}


async def test_d4_a_bare_name_counts_at_the_second_question_too(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    await answered(keyturn, workflow, NOTHING, "people")
    result = await filed(keyturn, workflow)
    assert (result["category"], result["confidence"], result["guessed"]) == ("People", 0.85, False)


async def test_d4_an_answer_in_other_words_helps_to_classify_anew(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    await answered(keyturn, workflow, "to pay the invoice of the plumber")
    result = await filed(keyturn, workflow)
    assert result["category"] == "Admin"
    assert result["confidence"] >= triage.SURE
    assert "Admin: “invoice”" in result["reasons"]
    assert result["text"] == UNCLEAR, "what was captured stays as it was"


@pytest.mark.parametrize("wrong", ["", "   ", 7, None, ["Admin"], {"answer": "Admin"}, "x" * 4001])
async def test_d4_what_is_no_text_is_refused_and_the_question_still_stands(keyturn: Keyturn, wrong: object) -> None:
    workflow = await keyturn.submit("triage", text=UNCLEAR)
    approval = await keyturn.asked(workflow)
    with pytest.raises(KeyturnError) as refused:
        await keyturn.answer(approval.approval_id, wrong)
    assert refused.value.code == "invalid_answer"
    assert (await keyturn.asked(workflow)).approval_id == approval.approval_id


async def test_d4_an_autonomous_run_is_not_asked_and_takes_the_best_guess(keyturn: Keyturn) -> None:
    request = SubmitRequest(graph="triage", input={"text": UNCLEAR}, mode="autonomous")
    workflow = (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id
    result = await filed(keyturn, workflow)
    assert (result["category"], result["confidence"], result["guessed"]) == ("Admin", 0.55, True)
    (question,) = result["questions"]
    assert (question["answer"], question["by"]) == ("Admin", []), "a default is nobody's answer"


@pytest.mark.parametrize("nothing", [{}, {"text": ""}, {"text": "  "}, {"text": None}, {"messages": []}, {"text": 5}])
async def test_d4_without_a_text_and_a_message_nothing_is_taken(keyturn: Keyturn, nothing: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="text"):
        await keyturn.submit("triage", **nothing)


async def test_d4_messages_without_a_word_of_the_user_say_what_is_missing(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", messages=[{"role": "assistant", "content": "Hello!"}])
    failed = await keyturn.until(workflow, "completed", "failed")
    assert failed.error is not None
    assert failed.error["code"] == "invalid_input"
    assert "a message of the user" in str(failed.error["detail"])


async def test_d4_a_thread_takes_one_capture_after_the_other(keyturn: Keyturn) -> None:
    thread = await threads.create(keyturn.ctx, keyturn.me, kind="thread")

    async def run(**content: object) -> dict[str, Any]:
        begun = await threads.begin(keyturn.ctx, keyturn.me, thread, graph="triage", input=content)
        if (await keyturn.until(begun.workflow_id, "completed", "failed", "waiting")).status == "waiting":
            await answered(keyturn, begun.workflow_id, "admin")
        return await filed(keyturn, begun.workflow_id)

    first = await run(text=UNCLEAR)
    said = [{"role": "user", "content": "What if we sold subscriptions to seeds?", "id": "m-1"}]
    second = await run(messages=said)
    third = await run(text="Renew the passport before June")
    again = await run(messages=[*said, {"role": "user", "content": "Dentist appointment at 9:30", "id": "m-2"}])
    assert [one["text"] for one in (first, second, third, again)] == [
        UNCLEAR, "What if we sold subscriptions to seeds?", "Renew the passport before June",
        "Dentist appointment at 9:30",
    ]  # fmt: skip
    assert [one["category"] for one in (first, second, third, again)] == ["Admin", "Ideas", "Admin", "Admin"]
    assert [len(one["questions"]) for one in (first, second, third, again)] == [1, 0, 0, 0]


# D4: the model


async def test_d4_a_model_classifies_where_one_is_configured_and_is_named(keyturn: Keyturn, model: Model) -> None:
    model.will("Ideas", 0.91, ("Projects", 0.2), title="Seeds by post")
    result = await filed(keyturn, await keyturn.submit("triage", text="subscriptions to seeds"))
    assert (result["category"], result["confidence"], result["scorer"]) == ("Ideas", 0.91, "llm:compatible:tiny")
    assert result["title"] == "Seeds by post"
    assert result["alternatives"][0] == {"category": "Projects", "confidence": 0.2}
    assert model.heard == ["subscriptions to seeds"]


async def test_d4_a_model_that_is_unsure_asks_between_its_own_two_and_hears_the_answer(
    keyturn: Keyturn, model: Model
) -> None:
    model.will("Ideas", 0.5, ("People", 0.1), ("Projects", 0.45))
    model.will("Projects", 0.8)
    workflow = await keyturn.submit("triage", text="seeds")
    (question,) = await answered(keyturn, workflow, "we ship them in spring")
    result = await filed(keyturn, workflow)
    assert question["options"] == ["Ideas", "Projects"]
    assert (result["category"], result["confidence"]) == ("Projects", 0.8)
    assert model.heard == ["seeds", "seeds\nwe ship them in spring"]


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (Say({"category": "Work", "confidence": 0.9}), "does not fit"),
        (Say({"category": "Ideas", "confidence": 7}), "does not fit"),
        (Say({"category": "Ideas"}), "does not fit"),
        (Say('{"category": "Ideas", "confidence": NaN}'), "does not fit"),
        (Say('{"category": "Id'), ""),
        (Say(None, "I think it is an idea."), "does not fit"),
        (Say(None, ""), "does not fit"),
        (Say(status=500), "HTTPStatusError"),
        (Say(status=401), "HTTPStatusError"),
    ],
)
async def test_d4_when_a_model_is_of_no_use_the_rules_file_it_and_say_why(
    keyturn: Keyturn, model: Model, say: Say, why: str
) -> None:
    model.says.append(say)
    result = await filed(keyturn, await keyturn.submit("triage", text="Pay the electricity bill by Friday"))
    assert (result["category"], result["scorer"]) == ("Admin", "rules")
    assert result["reasons"][0].startswith("model compatible:tiny was of no use: ")
    assert why in result["reasons"][0]
    assert len(model.asked) == 1


async def test_d4_a_model_that_writes_its_verdict_in_place_of_calling_for_it_is_understood(
    keyturn: Keyturn, model: Model
) -> None:
    model.says.append(Say(None, '{"category": "ideas", "confidence": 0.7}'))
    result = await filed(keyturn, await keyturn.submit("triage", text="seeds"))
    assert (result["category"], result["confidence"], result["scorer"]) == ("Ideas", 0.7, "llm:compatible:tiny")


async def test_d4_what_a_model_words_is_one_plain_line_whatever_it_sends(keyturn: Keyturn, model: Model) -> None:
    model.says.append(
        Say({"category": "Ideas", "confidence": 0.9, "title": "Seeds\x00\n by \u202epost", "reason": "it\x00 is new"})
    )
    model.says.append(Say({"category": "Ideas", "confidence": 0.9, "title": " \n"}))
    result = await filed(keyturn, await keyturn.submit("triage", text="subscriptions to seeds"))
    assert (result["title"], result["reasons"]) == ("Seeds by post", ["it is new"])
    blank = await filed(keyturn, await keyturn.submit("triage", text="subscriptions to seeds"))
    assert (blank["title"], blank["scorer"]) == ("subscriptions to seeds", "llm:compatible:tiny")


@pytest.mark.parametrize("name", ["anthropic:some-model", "nobody:some-model", "compatible:tiny"])
async def test_d4_a_model_that_is_not_there_loses_no_capture(
    keyturn: Keyturn, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(triage.VARIABLE, name)
    monkeypatch.setenv("KEYTURN_MODEL_URL", "http://127.0.0.1:1/v1")
    result = await filed(keyturn, await keyturn.submit("triage", text="Pay the electricity bill by Friday"))
    assert (result["category"], result["scorer"]) == ("Admin", "rules")
    assert result["reasons"][0].startswith(f"model {name} was of no use: ")


# D6: whose text reaches the client


def test_d6_the_nodes_whose_text_is_shown_are_declared_and_the_router_is_none_of_them(keyturn: Keyturn) -> None:
    entry = keyturn.catalog.get("triage")
    assert entry.text_nodes == {"clarify", "respond"}


@pytest.mark.parametrize("shown", [False, True])
async def test_d6_a_routers_tokens_reach_nobody_unless_it_is_declared(
    database_url: str, tmp_path: Path, model: Model, shown: bool
) -> None:
    entry: dict[str, object] = {"path": f"{GRAPHS.parent / 'triage.py'}:graph"}
    # The same graph with the router declared shows that there was something to hear.
    entry |= {"text_nodes": ["classify", "respond"]} if shown else {}
    app = tmp_path / "langgraph.json"
    app.write_text(json.dumps({"dependencies": ["."], "graphs": {"triage": entry}}))
    model.will("Ideas", 0.9)
    async with running(database_url, app=app) as keyturn, keyturn.working():
        workflow = await keyturn.submit("triage", text="seeds")
        await filed(keyturn, workflow)
        told = [one.data for one in await events(keyturn, workflow) if one.type == "message"]
        trail = json.dumps([one.data for one in await events(keyturn, workflow)])
    assert model.asked[0].get("stream"), "the model was streamed, as it is where text is shown"
    assert {one["node"] for one in told} == ({"classify", "respond"} if shown else {"respond"})
    said = "".join(str(one["delta"]) for one in told)
    assert (MUSING in said) is shown
    assert ("musing" in trail) is shown
    assert "Filed under Ideas" in said


# D5: the inbox


async def until_filed(keyturn: Keyturn, *texts: str) -> list[str]:
    ids: list[str] = []
    for text in texts:
        ids.append(await keyturn.submit("triage", text=text))
        await keyturn.until(ids[-1], "completed", "waiting")
    return ids


async def test_d5_the_inbox_lists_captures_newest_first_with_where_they_were_filed(
    edge: Edge, keyturn: Keyturn
) -> None:
    bill, bank = await until_filed(keyturn, "Pay the electricity bill by Friday", UNCLEAR)
    await keyturn.submit("release_note", version="1")  # no capture
    async with edge.http(await edge.key()) as http:
        page = (await http.get("/inbox")).json()
    assert set(page) == {"items", "count"}
    assert page["count"] == 2
    waiting, done = page["items"]
    assert (waiting["id"], done["id"]) == (bank, bill)
    assert (done["status"], done["category"], done["scorer"]) == ("completed", "Admin", "rules")
    assert done["confidence"] >= triage.SURE
    assert (done["text"], done["title"]) == ("Pay the electricity bill by Friday",) * 2
    assert (done["question"], done["captured_by"]) == (None, "rita")
    assert (waiting["status"], waiting["category"], waiting["confidence"]) == ("waiting", None, None)
    approval = await keyturn.asked(bank)
    assert waiting["question"]["approval_id"] == approval.approval_id
    assert waiting["question"]["prompt"] == approval.description
    assert waiting["question"]["options"] == ["Admin", "People"]


async def test_d5_pages_follow_one_another_without_a_gap_and_count_all(edge: Edge, keyturn: Keyturn) -> None:
    ids = await until_filed(keyturn, *(f"Pay invoice number {number}" for number in range(5)))
    async with edge.http(await edge.key()) as http:
        pages = [(await http.get("/inbox", params={"limit": 2, "offset": at})).json() for at in (0, 2, 4, 6)]
    assert [one["count"] for one in pages] == [5, 5, 5, 5]
    assert [[one["id"] for one in page["items"]] for page in pages] == [ids[:2:-1], ids[2:0:-1], ids[:1], []]


async def test_d5_the_inbox_is_filtered_by_category_and_status(edge: Edge, keyturn: Keyturn) -> None:
    bill, seeds, bank = await until_filed(
        keyturn, "Pay the electricity bill", "What if we sold subscriptions to seeds?", UNCLEAR
    )
    async with edge.http(await edge.key()) as http:

        async def found(**params: str) -> tuple[list[str], int]:
            page = (await http.get("/inbox", params=params)).json()
            return [one["id"] for one in page["items"]], page["count"]

        assert await found(category="Admin") == ([bill], 1)
        assert await found(category="ideas") == ([seeds], 1)
        assert await found(status="waiting") == ([bank], 1)
        assert await found(status="completed") == ([seeds, bill], 2)
        assert await found(category="People") == ([], 0)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=101", "limit=x", "offset=-1", "offset=100001", "offset=9999999999999999999999",
     "status=gone", "category="],
)  # fmt: skip
async def test_d5_a_page_that_cannot_be_is_refused_and_named(edge: Edge, query: str) -> None:
    async with edge.http(await edge.key()) as http:
        refused = await http.get(f"/inbox?{query}")
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert query.partition("=")[0] in refused.text


async def test_d5_a_long_question_leaves_room_for_the_rest_on_a_terminal(
    edge: Edge, keyturn: Keyturn, tmp_path: Path
) -> None:
    (bank,) = await until_filed(keyturn, UNCLEAR)
    key = await edge.key("rita")
    shown = await asyncio.to_thread(command_on_a_terminal, "inbox", url=edge.url, key=key, cwd=tmp_path)
    assert bank in shown
    assert "waiting" in shown
    assert " ago" in shown


async def test_d5_a_capture_tells_what_was_asked_and_who_answered(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.client("rita") as rita, edge.client("tom") as tom:
        captured = await rita.capture(UNCLEAR, title="Bank")
        assert captured.status == "ready"
        assert (await rita.wait(captured.id, 20)).status == "waiting"
        asked = await rita.inbox_item(captured.id)
        assert asked.question is not None
        assert [one.state for one in asked.questions] == ["pending"]
        await tom.answer(asked.question.approval_id, "people")
        assert (await rita.wait(captured.id, 20)).status == "completed"
        found = await rita.inbox_item(captured.id)
        page = await rita.inbox(limit=1)
    assert (found.title, found.text, found.question) == ("Bank", UNCLEAR, None)
    assert (found.category, found.confidence, found.scorer, found.guessed) == ("People", 0.85, "answer", False)
    assert found.reasons == ["tom answered People"]
    assert found.alternatives[0].category == "Admin"
    (question,) = found.questions
    assert (question.state, question.answer, question.answered_by) == ("answered", "people", "tom")
    assert question.answered_at is not None
    assert question.answered_at >= question.asked_at
    assert found.finished_at is not None
    assert page.items[0].id == found.id
    async with edge.http(await edge.key()) as http:
        assert (await http.get(found.events, headers={"Accept": "application/json"})).status_code == 200


async def test_d5_a_default_is_told_as_nobodys_answer(edge: Edge, keyturn: Keyturn) -> None:
    request = SubmitRequest(graph="triage", input={"text": UNCLEAR}, mode="autonomous")
    workflow = (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id
    await filed(keyturn, workflow)
    async with edge.client() as rita:
        found = await rita.inbox_item(workflow)
    assert found.guessed
    (question,) = found.questions
    assert (question.answer, question.answered_by, question.defaulted) == ("Admin", None, True)


async def test_d5_what_is_sent_again_under_its_key_is_captured_once(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        key = {"Idempotency-Key": "note-1"}
        first = await http.post("/inbox", json={"text": "Buy milk"}, headers=key)
        again = await http.post("/inbox", json={"text": "Buy milk"}, headers=key)
        other = await http.post("/inbox", json={"text": "Buy bread"}, headers=key)
        count = (await http.get("/inbox")).json()["count"]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["Location"] == f"/inbox/{first.json()['id']}"
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["replayed"]
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert count == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "text"), ({"text": ""}, "text"), ({"text": " \n"}, "text"), ({"text": 5}, "text"),
        ({"text": "x" * 20_001}, "text"), ({"text": "x", "title": "y" * 501}, "title"),
        ({"text": "x", "colour": "red"}, "colour"), ({"text": "x", "graph": "release_note"}, "these do: triage"),
        ({"text": "x", "graph": "nowhere"}, "these do: triage"),
    ],
)  # fmt: skip
async def test_d5_what_cannot_be_captured_is_refused_and_nothing_is_kept(
    edge: Edge, body: dict[str, object], told: str
) -> None:
    async with edge.http(await edge.key()) as http:
        refused = await http.post("/inbox", json=body)
        count = (await http.get("/inbox")).json()["count"]
    assert refused.status_code == 422
    assert told in refused.text
    assert count == 0


async def test_d5_another_namespaces_captures_are_not_there(edge: Edge, keyturn: Keyturn) -> None:
    (bill,) = await until_filed(keyturn, "Pay the electricity bill")
    plain = await keyturn.submit("release_note", version="1")

    async def detail(http: httpx.AsyncClient, workflow: str) -> tuple[int, str]:
        answer = await http.get(f"/inbox/{workflow}")
        return answer.status_code, answer.json().get("code", "")

    async with edge.http(await edge.key()) as mine, edge.http(await edge.key("ivy", namespace="other")) as theirs:
        assert await detail(mine, bill) == (200, "")
        assert await detail(mine, plain) == (404, "not_found"), "a workflow that is no capture"
        assert await detail(mine, "wf-none") == (404, "not_found")
        assert await detail(theirs, bill) == (404, "not_found")
        assert (await theirs.get("/inbox")).json() == {"items": [], "count": 0}


async def test_d5_permissions_are_those_of_submitting_and_reading(edge: Edge) -> None:
    async with edge.http(await edge.key("rita", ("read",))) as reader, edge.http() as nobody:
        assert (await reader.post("/inbox", json={"text": "x"})).status_code == 403
        assert (await reader.get("/inbox")).status_code == 200
        assert (await nobody.get("/inbox")).status_code == 401
    async with edge.http(await edge.key("tom", ("submit",))) as writer:
        assert (await writer.get("/inbox")).status_code == 403
        assert (await writer.get("/inbox/wf-1")).status_code == 403
        assert (await writer.post("/inbox", json={"text": "Buy milk"})).status_code == 201


async def test_d5_a_secret_of_the_input_is_shown_nowhere_in_the_inbox(edge: Edge, keyturn: Keyturn) -> None:
    secret = "correct-horse-battery"
    content: dict[str, object] = {"text": f"Ask about {secret}", "api_key": secret}
    workflow = await keyturn.submit("triage", **content)
    await keyturn.asked(workflow)
    async with edge.http(await edge.key()) as http:
        texts = [(await http.get(path)).text for path in ("/inbox", f"/inbox/{workflow}")]
    assert all("Ask about" in text for text in texts)
    assert not [text for text in texts if secret in text]


async def test_d5_a_failed_capture_is_in_the_inbox_with_its_reason(edge: Edge, keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("triage", messages=[{"role": "assistant", "content": "Hello!"}])
    await keyturn.until(workflow, "failed")
    async with edge.client() as rita:
        found = await rita.inbox_item(workflow)
        with pytest.raises(ApiError) as refused:
            await rita.inbox_item("../workflows")
    assert (found.status, found.reason, found.category, found.text) == ("failed", "invalid_input", None, "")
    assert found.error is not None
    assert refused.value.status == 404


async def test_d5_a_message_is_shown_as_its_text(edge: Edge, keyturn: Keyturn) -> None:
    blocks = [{"type": "text", "text": "Call "}, {"type": "text", "text": "the bank"}]
    said = [{"role": "user", "content": blocks}, {"role": "assistant", "content": "?"}]
    workflow = await keyturn.submit("triage", messages=said)
    await keyturn.asked(workflow)
    async with edge.client() as rita:
        (item,) = (await rita.inbox()).items
    assert (item.text, item.title) == (UNCLEAR, UNCLEAR)


async def test_d5_the_command_line_captures_lists_and_shows(edge: Edge, keyturn: Keyturn, tmp_path: Path) -> None:
    tom = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tom")}
    bill = await keyturn_command("capture", "Pay the electricity bill", "--wait", cwd=tmp_path, **tom)
    assert (bill.code, bill.err) == (0, "")
    assert "status\tcompleted" in bill.out.splitlines()
    bank = (await keyturn_command("capture", UNCLEAR, cwd=tmp_path, **tom)).out.strip()
    await keyturn.asked(bank)
    shown = await keyturn_command("inbox", bank, cwd=tmp_path, **tom)
    assert f"answer with\tkeyturn answer {bank} ANSWER" in shown.out.splitlines()
    assert (await keyturn_command("answer", bank, "people", cwd=tmp_path, **tom)).code == 0
    await filed(keyturn, bank)
    listed = await keyturn_command("inbox", "--category", "People", cwd=tmp_path, **tom)
    assert [line.split("\t")[:4] for line in listed.out.splitlines()] == [[bank, "completed", "People 85%", UNCLEAR]]
    assert (await keyturn_command("inbox", "wf-none", cwd=tmp_path, **tom)).code == 1
    assert (await keyturn_command("capture", "", cwd=tmp_path, **tom)).code == 2
