"""`capture` and `inbox`: put something in, and see where it was filed or what is asked about it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.output import Column, Output, ago
from orchestrator.cli.session import AsJson, Profile, Url, connect
from orchestrator.wire_inbox import InboxItem, InboxQuestion, InboxRecord

app = typer.Typer()


@app.command()
def capture(
    text: Annotated[str, typer.Argument(help="What to remember")],
    *,
    title: Annotated[str, typer.Option(help="What people will read; else one is made")] = "",
    graph: Annotated[str | None, typer.Option(help="The graph that files it, where there are several")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Sent again with the same key, it is not captured again")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is filed, or a question about it waits")] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Capture something: it is filed in the inbox."""
    with connect(url, profile, as_json=as_json) as session:
        captured = session.client.capture(text, title=title, graph=graph, idempotency_key=idempotency_key)
        if wait:
            session.client.wait(captured.id)
            found = session.client.inbox_item(captured.id)
            session.output.json(found) if as_json else _show(session.output, found)
        else:
            session.output.json(captured) if as_json else session.output.line(captured.id)


@app.command()
def inbox(
    workflow_id: Annotated[str | None, typer.Argument(help="One capture whole; all if left out")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many to pass over")] = 0,
    category: Annotated[str | None, typer.Option(help="Only those filed there")] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this status: `waiting` has a question")] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List what was captured, newest first, or show one capture."""
    with connect(url, profile, as_json=as_json) as session:
        client, output = session.client, session.output
        if workflow_id is not None:
            found = client.inbox_item(workflow_id)
            output.json(found) if as_json else _show(output, found)
            return
        page = client.inbox(limit=limit, offset=offset, category=category, status=status)
        if as_json:
            output.json(page)
            return
        rows = [
            (
                one.id, one.status, _where(one), one.title,
                ago(one.created_at) if output.terminal else one.created_at.isoformat(timespec="seconds"),
            )
            for one in page.items
        ]  # fmt: skip
        # What is asked stands where it would be filed, and is long.
        filed = Column("FILED", fold=True)
        columns = [Column("CAPTURE"), Column("STATUS"), filed, Column("TITLE", fold=True), Column("CAPTURED")]
        output.rows(columns, rows, "The inbox is empty.")
        if output.terminal and offset + len(page.items) < page.count:
            output.line(f"{page.count} in all. More: --offset {offset + len(page.items)}")


def _where(one: InboxItem) -> str:
    if one.category is not None and one.confidence is not None:
        return f"{one.category} {one.confidence:.0%}"
    return one.question.prompt if one.question else ""


def _show(output: Output, found: InboxRecord) -> None:
    others = ", ".join(
        one.category if one.confidence is None else f"{one.category} {one.confidence:.0%}" for one in found.alternatives
    )
    output.facts(
        [
            ("capture", found.id),
            ("title", found.title),
            ("text", found.text),
            ("status", found.status),
            ("reason", found.reason),
            ("filed", _where(found) if found.category else None),
            ("guessed", "yes, after all questions" if found.guessed else None),
            ("by", found.scorer),
            ("because", "; ".join(found.reasons)),
            ("else", others),
            ("captured by", found.captured_by),
            ("captured", found.created_at.isoformat(timespec="seconds")),
        ]
    )
    for question in found.questions:
        output.line()
        output.facts(_asked(question, found.id))


def _asked(question: InboxQuestion, workflow_id: str) -> list[tuple[str, object]]:
    pending = question.state == "pending"
    return [
        ("question", question.prompt),
        ("options", ", ".join(question.options)),
        ("answer", question.answer),
        ("answered by", "nobody: the default" if question.defaulted else question.answered_by),
        ("answer with", f"keyturn answer {workflow_id} ANSWER" if pending else None),
    ]
