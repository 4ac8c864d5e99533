"""The chat model that an environment variable names, loaded by LangChain when it is first needed."""

# pyright: reportMissingTypeStubs=false
# LangChain's own annotations are partial.
from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import cast

from langchain_core.language_models import BaseChatModel

from orchestrator.sdk import InvalidInput


def model_named(variable: str) -> str | None:
    """What the variable names, as LangChain's `init_chat_model` takes it (`anthropic:…`); None where it is unset."""
    return os.environ.get(variable, "").strip() or None


def load_model(variable: str, name: str) -> BaseChatModel:
    """The model. InvalidInput, saying what to install, where its package is not there."""
    try:
        init = cast("Callable[[str], BaseChatModel]", import_module("langchain.chat_models").init_chat_model)
        return init(name)
    except ImportError as error:
        detail = f"{variable} is {name}, and {error.name or error} is not installed: pip install langchain"
        detail += " and the package of the model's provider, or unset the variable to do without"
        raise InvalidInput(detail, model=name) from error
