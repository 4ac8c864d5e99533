"""What a client resumes an interrupt with, read into decisions on the requests that the interrupt made: `payloads` the
other way round. Whatever does not say plainly what is decided is refused, and with the shape that is wanted.

Pure translation. Nothing here decides, stores or resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, cast

from orchestrator.core.errors import AnswerInvalid
from orchestrator.core.model import Kind
from orchestrator.core.questions import check_answer

Json = Mapping[str, object]
Verdict = Literal["approve", "reject", "answer", "edit", "withdraw"]

KEYTURN_SHAPE = '{"approved": true or false, "note": "why"}, or true'
CALL_SHAPE = (
    '{"type": "approve"}, {"type": "edit", "edited_action": {"name", "args"}}, {"type": "reject", "message"} or'
    ' {"type": "respond", "message"}'
)
BATCH_SHAPE = '{"decisions": [one for each action request, in their order]}, each ' + CALL_SHAPE
INBOX_SHAPE = (
    '[one for each request, in their order], each {"type": "accept" or "ignore", "args": null}, {"type": "response",'
    ' "args": "text"} or {"type": "edit", "args": {"action", "args"}}'
)
# Where a dialect lets people say no without a word, the trail still says how it was said.
UNSAID = "rejected without a reason"
IGNORED = "ignored"
CANCELLED = "cancelled by the client"

_KEYTURN_KEYS = frozenset({"approved", "note", "action", "revision", "digest"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody says of one request. `answer` is a question's, or a response in place of running a tool; `action`
    what an edit makes of it. `revision` and `digest` name what was seen, where the client says so.
    """

    verdict: Verdict
    text: str = ""
    answer: object = None
    action: Json | None = None
    revision: int | None = None
    digest: str | None = None


def replies(dialect: str, asked: Sequence[Json], value: object) -> list[Reply]:
    """What `value` says of each of `asked`, which are the rows of one interrupt in their order. AnswerInvalid."""
    if len(asked) == 1 and not _is_question(asked[0]) and _is_plain(value):
        return [_keyturn(asked[0], value)]
    match dialect:
        case "keyturn":
            return [_keyturn(asked[0], value)]
        case "langchain" | "langchain_call":
            return [_call(*pair) for pair in zip(asked, _decisions(asked, value), strict=True)]
        case "agent_inbox":
            return [_inbox(*pair) for pair in zip(asked, _responses(asked, value), strict=True)]
        case _:
            return [Reply("answer", answer=_bare(cast("Json", asked[0]["question"]), value))]


def cancelled(asked: Sequence[Json]) -> list[Reply]:
    """The replies of a client that cancels: a no to an action; a question is left open, or else withdrawn."""
    return [
        Reply("withdraw", CANCELLED) if _is_question(row) and not _may_stay_open(row) else _ignored(row, CANCELLED)
        for row in asked
    ]


def _may_stay_open(row: Json) -> bool:
    question = cast("Json", row["question"])
    return ("schema" in question or "options" in question) and _fits(question, None)


def _is_plain(value: object) -> bool:
    """Whether a yes or no was said in Keyturn's own words, which every request takes."""
    return isinstance(value, bool) or (isinstance(value, Mapping) and "approved" in cast("Json", value))


def _refuse(detail: str, wanted: str, **facts: object) -> NoReturn:
    raise AnswerInvalid(f"{detail}; wanted is {wanted}", wanted=wanted, **facts)


def _is_question(row: Json) -> bool:
    return row["kind"] == Kind.QUESTION


# Keyturn's own


def _keyturn(row: Json, value: object) -> Reply:
    if _is_question(row):
        return Reply("answer", answer=_wrapped(cast("Json", row["question"]), value))
    if isinstance(value, bool):
        return Reply("approve" if value else "reject")
    body = _object(value, KEYTURN_SHAPE)
    unknown = sorted(set(body) - _KEYTURN_KEYS)
    if unknown or not isinstance(body.get("approved"), bool):
        said = f"`{unknown[0]}` is not taken" if unknown else "`approved` must be true or false"
        _refuse(said, KEYTURN_SHAPE)
    text, revision, digest = body.get("note"), body.get("revision"), body.get("digest")
    if not isinstance(text, str | None) or not isinstance(digest, str | None):
        _refuse("`note` and `digest` are texts", KEYTURN_SHAPE)
    if revision is not None and (isinstance(revision, bool) or not isinstance(revision, int)):
        _refuse("`revision` is a whole number", KEYTURN_SHAPE)
    action = body.get("action")
    if action is not None and body["approved"]:
        return Reply("edit", text or "", action=_object(action, "`action` as an object"), revision=revision)
    return Reply("approve" if body["approved"] else "reject", text or "", revision=revision, digest=digest)


def _wrapped(question: Json, value: object) -> object:
    """`{"answer": …}` or the bare answer."""
    if not _is_wrapped(value):
        check_answer(question, value)
        return value
    inside = cast("Json", value)["answer"]
    # The question may want an object that has this very shape.
    if not _fits(question, inside) and _fits(question, value):
        return value
    check_answer(question, inside)
    return inside


def _bare(question: Json, value: object) -> object:
    """The value as it is; taken out of an `{"answer": …}` only where the question wants what is inside."""
    if _is_wrapped(value) and not _fits(question, value):
        value = cast("Json", value)["answer"]
    check_answer(question, value)
    return value


def _is_wrapped(value: object) -> bool:
    return isinstance(value, Mapping) and set(cast("Json", value)) == {"answer"}


def _fits(question: Json, value: object) -> bool:
    try:
        check_answer(question, value)
    except AnswerInvalid:
        return False
    return True


# LangChain


def _decisions(asked: Sequence[Json], value: object) -> Sequence[object]:
    wanted = BATCH_SHAPE if len(asked) > 1 else CALL_SHAPE
    if isinstance(value, list):
        return [_from_inbox(*pair) for pair in zip(asked, _as_many(asked, cast("object", value), wanted), strict=True)]
    body = _object(value, wanted)
    if "decisions" not in body:
        # One call needs no list around its decision.
        return [body] if len(asked) == 1 else _refuse("`decisions` is missing", wanted)
    return _as_many(asked, body["decisions"], BATCH_SHAPE)


def _from_inbox(row: Json, value: object) -> object:
    """A decision in the words of Agent Inbox, which shows these requests too and answers them as its own."""
    body: Json = cast("Json", value) if isinstance(value, Mapping) else {}
    args = body.get("args")
    match body.get("type"):
        case "accept":
            return {"type": "approve"}
        case "ignore" if not _is_question(row):
            return {"type": "reject", "message": IGNORED}
        case "response":
            # It offers a response where rejecting is allowed; the text is why.
            kind = "respond" if "respond" in cast("Sequence[str]", row["allowed"]) else "reject"
            return {"type": kind, "message": args}
        case "edit" if isinstance(args, Mapping):
            edited = cast("Json", args)
            return {"type": "edit", "edited_action": {"name": edited.get("action"), "args": edited.get("args")}}
        case _:
            return cast("object", value)


def _as_many(asked: Sequence[Json], given: object, wanted: str) -> Sequence[object]:
    entries = cast("list[object]", given) if isinstance(given, list) else _refuse("a list is expected", wanted)
    if len(entries) != len(asked):
        _refuse(f"{len(asked)} requests wait and {len(entries)} decisions were sent", wanted, expected=len(asked))
    return entries


def _call(row: Json, value: object) -> Reply:
    body = _object(value, CALL_SHAPE)
    message = body.get("message")
    if not isinstance(message, str | None):
        _refuse("`message` is a text", CALL_SHAPE)
    match body.get("type"):
        case "approve" if not _is_question(row):
            return Reply("approve", message or "")
        case "edit" if not _is_question(row):
            edited = _object(body.get("edited_action"), CALL_SHAPE)
            return Reply("edit", message or "", action=_edited(row, edited.get("name"), edited.get("args"), CALL_SHAPE))
        case "reject" if not _is_question(row):
            return Reply("reject", message or UNSAID)
        case "respond" if message is not None:
            return Reply("answer", answer=_fitting(row, message))
        case kind:
            return _refuse_kind(row, kind, CALL_SHAPE)


# Agent Inbox


def _responses(asked: Sequence[Json], value: object) -> Sequence[object]:
    # One request needs no list around its answer.
    alone = len(asked) == 1 and isinstance(value, Mapping)
    return [cast("object", value)] if alone else _as_many(asked, cast("object", value), INBOX_SHAPE)


def _inbox(row: Json, value: object) -> Reply:
    body = _object(value, INBOX_SHAPE)
    args = body.get("args")
    match body.get("type"):
        case "accept" if not _is_question(row):
            return Reply("approve")
        case "ignore":
            return _ignored(row, IGNORED)
        case "response" if isinstance(args, str):
            return Reply("answer", answer=_fitting(row, args))
        case "edit" if not _is_question(row):
            edited = _object(args, INBOX_SHAPE)
            return Reply("edit", action=_edited(row, edited.get("action"), edited.get("args"), INBOX_SHAPE))
        case kind:
            return _refuse_kind(row, kind, INBOX_SHAPE)


# What they share


def _ignored(row: Json, text: str) -> Reply:
    if _is_question(row):
        return Reply("answer", answer=_fitting(row, None))
    return Reply("reject", text)


def _fitting(row: Json, answer: object) -> object:
    if _is_question(row):
        check_answer(cast("Json", row["question"]), answer)
    return answer


def _edited(row: Json, name: object, args: object, wanted: str) -> Json:
    if not isinstance(name, str) or not isinstance(args, Mapping):
        _refuse("an edit names the action and its arguments, which are an object", wanted)
    return {**cast("Json", row["action"]), "operation": name, "arguments": dict(cast("Json", args))}


def _refuse_kind(row: Json, kind: object, wanted: str) -> NoReturn:
    allowed = cast("Sequence[str]", row["allowed"])
    _refuse(f"`type` is {kind!r}, and this request takes: {', '.join(allowed)}", wanted, allowed=list(allowed))


def _object(value: object, wanted: str) -> Json:
    if not isinstance(value, Mapping):
        _refuse("an object is expected", wanted)
    return cast("Json", value)
