"""Chat models by name, through LangChain: any provider's package, or any server that speaks OpenAI's chat interface.

The second needs no package: `compatible:llama3.2` talks to the server that KEYTURN_MODEL_URL names, such as Ollama,
vLLM, llama.cpp or LM Studio.
"""

# pyright: reportUnknownMemberType=false
# LangChain's own annotations are partial.
from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, cast

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SecretStr

from orchestrator.sdk import InvalidInput

COMPATIBLE: Final = "compatible:"
DEFAULT_URL: Final = "http://127.0.0.1:11434/v1"
_SECONDS: Final = 60.0


def chat_model(name: str, variable: str) -> BaseChatModel:
    """The model that `variable` names. InvalidInput when there is no such one here."""
    if name.startswith(COMPATIBLE):
        url = os.environ.get("KEYTURN_MODEL_URL", "").strip() or DEFAULT_URL
        return CompatibleChat(
            url=url, model=name.removeprefix(COMPATIBLE), key=SecretStr(os.environ.get("KEYTURN_MODEL_KEY", ""))
        )
    try:
        init = cast("Callable[[str], BaseChatModel]", import_module("langchain.chat_models").init_chat_model)
        return init(name)
    except (ImportError, ValueError) as error:
        missing = error.name if isinstance(error, ImportError) else None
        why = f"{missing} is not installed" if missing else str(error).partition("\n")[0]
        detail = f"{variable} is {name}: {why}; pip install langchain and the package of the model's provider, or unset"
        detail += " the variable to do without a model"
        raise InvalidInput(detail, model=name) from error


class CompatibleChat(BaseChatModel):
    """A model behind `POST {url}/chat/completions`, with tools, whole or as a stream."""

    url: str
    model: str
    key: SecretStr = SecretStr("")

    @property
    def _llm_type(self) -> str:
        return "openai-compatible"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools to call; `any` makes it call one."""
        kwargs.pop("ls_structured_output_format", None)
        chosen = "required" if tool_choice == "any" else tool_choice
        more = {"tool_choice": chosen} if chosen else {}
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **more, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        with httpx.Client(timeout=_SECONDS) as client:
            return _result(client.post(self._path(), json=self._body(messages, stop, kwargs), headers=self._headers()))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            body = self._body(messages, stop, kwargs)
            return _result(await client.post(self._path(), json=body, headers=self._headers()))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = {**self._body(messages, stop, kwargs), "stream": True}
        async with (
            httpx.AsyncClient(timeout=_SECONDS) as client,
            client.stream("POST", self._path(), json=body, headers=self._headers()) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                for chunk in _chunks(line):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _path(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"

    def _headers(self) -> dict[str, str]:
        key = self.key.get_secret_value()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _body(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        body = {"model": self.model, "messages": convert_to_openai_messages(list(messages)), **more}
        return {**body, "stop": list(stop)} if stop else body


def _result(response: httpx.Response) -> ChatResult:
    told = response.raise_for_status().json()["choices"][0]["message"]
    calls = [_call(one) for one in told.get("tool_calls") or ()]
    message = AIMessage(told.get("content") or "", tool_calls=calls)
    return ChatResult(generations=[ChatGeneration(message=message)])


def _call(one: Mapping[str, Any]) -> dict[str, Any]:
    function = one["function"]
    return {
        "name": function["name"],
        "args": json.loads(function["arguments"]),
        "id": one.get("id"),
        "type": "tool_call",
    }


def _chunks(line: str) -> Iterator[ChatGenerationChunk]:
    """What one line of the stream adds."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return
    for choice in cast("list[dict[str, Any]]", json.loads(data).get("choices") or []):
        delta: dict[str, Any] = choice.get("delta") or {}
        calls = [_call_chunk(one) for one in cast("list[dict[str, Any]]", delta.get("tool_calls") or [])]
        content = str(delta.get("content") or "")
        yield ChatGenerationChunk(message=AIMessageChunk(content=content, tool_call_chunks=calls))


def _call_chunk(one: Mapping[str, Any]) -> ToolCallChunk:
    function: dict[str, Any] = one.get("function") or {}
    return tool_call_chunk(
        name=function.get("name"), args=function.get("arguments"), id=one.get("id"), index=one.get("index", 0)
    )
