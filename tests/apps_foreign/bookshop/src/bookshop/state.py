"""The state of an order."""

from __future__ import annotations

import operator
from typing import Annotated

from typing_extensions import TypedDict


class Order(TypedDict, total=False):
    """An order and what became of it."""

    title: str
    copies: int
    price: float
    address: str
    done: Annotated[list[str], operator.add]
