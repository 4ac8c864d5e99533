"""Where the shop writes down what it really did."""

from __future__ import annotations

import os
from pathlib import Path


def write(line: str) -> None:
    """Append a line to the journal, if there is one."""
    if file := os.environ.get("BOOKSHOP_JOURNAL"):
        with Path(file).open("a", encoding="utf-8") as journal:
            journal.write(f"{line}\n")


def currency() -> str:
    """The shop's currency, from its environment."""
    return os.environ["BOOKSHOP_CURRENCY"]
