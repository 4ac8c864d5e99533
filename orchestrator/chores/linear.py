"""Linear: an issue for each approval, a comment for what happens to it, and its end when it is settled.

Issues and comments are made under ids of our own choosing, so that a repeated attempt meets what the first one made.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from orchestrator.chores.guarded_http import GuardedHttp
from orchestrator.chores.message import Message, Undeliverable, Undelivered

_TEAM: Final = """
query Team($key: String!) {
  teams(filter: {key: {eq: $key}}) { nodes { id states { nodes { id type position } } } }
}
"""
_ISSUE: Final = """
query Issue($id: ID!) {
  issues(filter: {id: {eq: $id}}, includeArchived: true) { nodes { id identifier state { type } } }
}
"""
_COMMENT: Final = """
query Comment($id: ID!) { comments(filter: {id: {eq: $id}}, includeArchived: true) { nodes { id } } }
"""
_CREATE: Final = """
mutation Create($input: IssueCreateInput!) { issueCreate(input: $input) { success issue { id identifier } } }
"""
_CLOSE: Final = """
mutation Close($id: String!, $input: IssueUpdateInput!) { issueUpdate(id: $id, input: $input) { success } }
"""
_SAY: Final = """
mutation Say($input: CommentCreateInput!) { commentCreate(input: $input) { success } }
"""
_PRIORITY: Final = {"critical": 1, "high": 2, "medium": 3, "low": 4}
_ENDED: Final = frozenset(("completed", "canceled"))
_GOOD_ENDS: Final = frozenset(("approved", "answered"))

_Json = Mapping[str, object]


def chosen_id(*parts: str) -> str:
    """A UUID of version 4, which Linear asks for, that these parts always give."""
    return str(uuid.UUID(bytes=hashlib.sha256("\n".join(parts).encode()).digest()[:16], version=4))


@dataclass(frozen=True, slots=True)
class LinearSender:
    """Speaks to one team."""

    url: str
    key: str = field(repr=False)
    team: str
    http: GuardedHttp

    @property
    def secrets(self) -> Sequence[str]:
        """The API key."""
        return (self.key,)

    async def send(self, message: Message) -> str | None:
        """Make or follow up the approval's issue; returns its identifier, such as OPS-12."""
        issue_id = chosen_id("issue", self.team, message.approval_id or message.delivery_id)
        issue = await self._one(_ISSUE, "issues", issue_id)
        if issue is None:
            if message.kind == "settled":
                return None  # there never was one, so there is nothing to end
            return await self._create(issue_id, message)
        if message.kind != "requested":
            await self._say(issue_id, message)
        if message.kind == "settled" and _text(issue.get("state"), "type") not in _ENDED:
            await self._close(issue_id, message)
        return _text(issue, "identifier")

    async def _create(self, issue_id: str, message: Message) -> str | None:
        team = await self._team()
        body = f"{_fenced(message.text)}\n\n[See the request]({message.links['page']})\n\nKeyturn {message.approval_id}"
        made = await self._ask(
            _CREATE,
            input={
                "id": issue_id, "teamId": team["id"], "title": message.subject, "description": body,
                "priority": _PRIORITY.get(str(message.facts.get("risk")), 0),
            },
        )  # fmt: skip
        return _text(_inner(made, "issueCreate", "issue"), "identifier")

    async def _say(self, issue_id: str, message: Message) -> None:
        comment_id = chosen_id("comment", message.delivery_id)
        if await self._one(_COMMENT, "comments", comment_id) is None:
            body = f"**{_bold(message.subject)}**\n\n{_fenced(message.text)}"
            await self._ask(_SAY, input={"id": comment_id, "issueId": issue_id, "body": body})

    async def _close(self, issue_id: str, message: Message) -> None:
        wanted = "completed" if message.state in _GOOD_ENDS else "canceled"
        states = cast("Sequence[_Json]", _inner(await self._team(), "states").get("nodes") or ())
        fitting = sorted((s for s in states if s.get("type") == wanted), key=lambda s: float(str(s.get("position"))))
        if not fitting:
            raise Undeliverable(f"Linear's team {self.team} has no state of the type {wanted}")
        await self._ask(_CLOSE, id=issue_id, input={"stateId": fitting[0]["id"]})

    async def _team(self) -> _Json:
        found = await self._ask(_TEAM, key=self.team)
        nodes = cast("Sequence[_Json]", _inner(found, "teams").get("nodes") or ())
        if not nodes:
            raise Undeliverable(f"Linear has no team {self.team} that this key can see")
        return nodes[0]

    async def _one(self, query: str, name: str, node_id: str) -> _Json | None:
        nodes = cast("Sequence[_Json]", _inner(await self._ask(query, id=node_id), name).get("nodes") or ())
        return nodes[0] if nodes else None

    async def _ask(self, query: str, **variables: object) -> _Json:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json", "Authorization": self.key}
        try:
            answer = await self.http.post(self.url, body, headers)
        except Undeliverable as error:
            # Linear says 400 also where it is only asked too often.
            raise (Undelivered if " 400" in str(error) else Undeliverable)(str(error)) from None
        try:
            found = cast("object", json.loads(answer.body))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Undelivered("Linear's answer is not JSON")
        given = cast("_Json", found)
        errors = cast("Sequence[_Json]", given.get("errors") or ())
        if errors or not isinstance(given.get("data"), dict):
            raise Undelivered(f"Linear answered: {_text(errors[0] if errors else {}, 'message') or 'nothing'}")
        return cast("_Json", given["data"])


def _inner(value: _Json, *names: str) -> _Json:
    for name in names:
        found = value.get(name)
        value = cast("_Json", found) if isinstance(found, dict) else {}
    return value


def _text(value: object, name: str) -> str | None:
    found = cast("_Json", value).get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _fenced(text: str) -> str:
    """`text` as a code block, which nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"


def _bold(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)
