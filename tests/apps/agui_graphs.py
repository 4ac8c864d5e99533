"""Graphs for AG-UI's clients: one that chats, one that asks back, and some that need leave."""

from __future__ import annotations

import operator
from typing import Annotated, Any, NotRequired

from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from orchestrator.sdk import Action, ask, options, request_approval
from orchestrator.sdk.runtime import current_host


def says(text: str) -> GenericFakeChatModel:
    """A model that streams this text, word by word."""
    return GenericFakeChatModel(messages=iter([AIMessage(text)]))


# A conversation: what the router's model says is nobody's business.


class Chat(MessagesState):
    route: NotRequired[str]
    visits: NotRequired[Annotated[list[str], operator.add]]


async def router(state: Chat) -> dict[str, Any]:
    thought = await says("SECRET THOUGHT route to smalltalk").ainvoke(state["messages"])
    return {"route": "smalltalk", "messages": [thought], "visits": ["router"]}


async def reply(state: Chat) -> dict[str, Any]:
    said = next(one for one in reversed(state["messages"]) if one.type == "human")
    return {"messages": [await says(f"You said: {said.text}").ainvoke(state["messages"])]}


def _chat() -> Any:
    builder = StateGraph(Chat)
    builder.add_node("router", router)
    builder.add_node("reply", reply)
    builder.add_edge(START, "router")
    builder.add_edge("router", "reply")
    builder.add_edge("reply", END)
    return builder.compile()


chat = options(_chat(), text_nodes=["reply"])
# The same without a word on who speaks, as somebody wrote it who knows nothing of Keyturn.
plain_chat = _chat()


async def speak_slowly(state: MessagesState) -> dict[str, Any]:
    model = FakeListChatModel(responses=["word by word"], sleep=0.1)
    return {"messages": [await model.ainvoke(state["messages"])]}


def _slow() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("speak", speak_slowly)
    builder.add_edge(START, "speak")
    builder.add_edge("speak", END)
    return builder.compile()


slow = options(_slow(), text_nodes=["speak"])


# A classifier that asks one question when it is not sure.


class Note(TypedDict, total=False):
    text: str


class Sorted(Note, total=False):
    category: str
    confidence: float


def classify(state: Sorted) -> Sorted:
    if "invoice" in state.get("text", ""):
        return {"category": "bill", "confidence": 0.95}
    return {"category": "unknown", "confidence": 0.4}


def clarify(state: Sorted) -> Sorted:
    if state.get("confidence", 0.0) >= 0.6:
        return {}
    return {"category": str(ask("Is this about work or home?", options=["work", "home"])), "confidence": 0.85}


def file(state: Sorted) -> Sorted:
    return {"text": f"{state.get('text')} -> {state.get('category')}"}


def _sorter() -> Any:
    builder = StateGraph(Sorted, input_schema=Note)
    for name, node in (("classify", classify), ("clarify", clarify), ("file", file)):
        builder.add_node(name, node)
    for source, target in ((START, "classify"), ("classify", "clarify"), ("clarify", "file"), ("file", END)):
        builder.add_edge(source, target)
    return builder.compile()


sorter = _sorter()
old_sorter = options(_sorter(), ag_ui="legacy")


# What needs leave.


class Deploy(TypedDict, total=False):
    target: str
    token: str
    on_reject: str
    log: Annotated[list[str], operator.add]


def gate(name: str) -> Any:
    def ask_for_leave(state: Deploy) -> Deploy:
        action = Action(
            "deploy",
            environment="production",
            target=f"{state.get('target', 'shop')} {name}",
            arguments={"version": "v1", "api_token": state.get("token", "none")},
        )
        decision = request_approval(action, on_reject="resume" if state.get("on_reject") == "resume" else "cancel")
        return {"log": [f"{name} {decision.approved}"]}

    return ask_for_leave


def done(state: Deploy) -> Deploy:
    if (host := current_host.get()) is not None:
        host.note("progress", {"node": "done", "percent": 100})
    return {"log": ["done"]}


def _deploy(*names: str) -> Any:
    builder = StateGraph(Deploy)
    builder.add_node("done", done)
    for name in names:
        builder.add_node(name, gate(name))
        builder.add_edge(START, name)
    builder.add_edge(list(names), "done")
    builder.add_edge("done", END)
    return builder.compile()


deploy = _deploy("only")
deploy_both = _deploy("left", "right")
old_deploy_both = options(_deploy("left", "right"), ag_ui="legacy")


def twice(state: Deploy) -> Deploy:
    return {"log": [f"{ask('First?')}/{ask('Second?')}"]}


def _twice() -> Any:
    builder = StateGraph(Deploy)
    builder.add_node("twice", twice)
    builder.add_edge(START, "twice")
    builder.add_edge("twice", END)
    return builder.compile()


two_questions = _twice()


def review(state: Deploy) -> Deploy:
    answer = interrupt(
        {
            "action_requests": [{"name": "send_mail", "args": {"to": "ann", "text": "hi"}}],
            "review_configs": [{"action_name": "send_mail", "allowed_decisions": ["approve", "edit", "reject"]}],
        }
    )
    return {"log": [str(answer["decisions"][0])]}


def fails(state: Deploy) -> Deploy:
    raise RuntimeError("the boiler is cold")


def _one(node: Any) -> Any:
    builder = StateGraph(Deploy)
    builder.add_node("it", node)
    builder.add_edge(START, "it")
    builder.add_edge("it", END)
    return builder.compile()


class Log(TypedDict):
    log: list[str]


def repeats(state: Deploy) -> Deploy:
    token = state.get("token", "")
    ask(f"Shall {token} be used?", schema={"type": "string", "description": f"about {token}"})
    return {"log": [f"used {token}"]}


def _blabs() -> Any:
    builder = StateGraph(Deploy, output_schema=Log)
    builder.add_node("repeats", repeats)
    builder.add_edge(START, "repeats")
    builder.add_edge("repeats", END)
    return builder.compile()


# What it asks and what it ends with repeat a secret of its input.
blabs = _blabs()
mailing = _one(review)
failing = _one(fails)


# Two who speak at a time, one of them declared.


def _duet() -> Any:
    builder = StateGraph(Chat)
    builder.add_node("reply", reply)
    builder.add_node("router", router)
    builder.add_edge(START, "reply")
    builder.add_edge(START, "router")
    builder.add_edge(["reply", "router"], END)
    return builder.compile()


duet = options(_duet(), text_nodes=["reply"])


class Odd(TypedDict, total=False):
    text: str
    share: float


def counts(state: Odd) -> Odd:
    return {"share": float("nan")}


def _odd() -> Any:
    builder = StateGraph(Odd)
    builder.add_node("counts", counts)
    builder.add_edge(START, "counts")
    builder.add_edge("counts", END)
    return builder.compile()


odd = _odd()
