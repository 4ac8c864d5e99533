"""The plain graph that ships beside the operation."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from graphs.plain_interrupt import graph as release_note
from tests.operations import SHIPPED


async def test_the_plain_graph_needs_nothing_of_keyturn() -> None:
    source = Path(release_note_file()).read_text(encoding="utf-8")
    imported = {
        name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported == {"__future__", "typing_extensions", "langgraph.graph", "langgraph.types"}
    compiled = release_note.copy(update={"checkpointer": InMemorySaver()})
    for answer, published in (("yes", "Release 1.1\n- Faster"), ("My own words", "My own words")):
        config: Any = {"configurable": {"thread_id": answer}}
        asked = await compiled.ainvoke({"version": "1.1", "changes": ["Faster"]}, config)
        assert asked["__interrupt__"][0].value["draft"] == "Release 1.1\n- Faster"
        assert (await compiled.ainvoke(Command(resume=answer), config))["published"] == published


def release_note_file() -> str:
    app = SHIPPED.parent / "graphs" / "langgraph.json"
    named = json.loads(app.read_text(encoding="utf-8"))["graphs"]["release_note"]
    return str(app.parent / named.partition(":")[0])
