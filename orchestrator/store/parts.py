"""What a unit of the hot path writes, as the JSON that its statement takes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from orchestrator.store.db import Params


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} seconds"
    message = f"a {type(value).__name__} cannot be stored"
    raise TypeError(message)


_JSON = json.JSONEncoder(default=_plain)


def as_parts(parts: Params) -> str:
    """`parts` as JSON, without those that are None: they write nothing."""
    return as_json({name: part for name, part in parts.items() if part is not None})


def as_json(value: object) -> str:
    """JSON, with times and spans of time as Postgres reads them."""
    return _JSON.encode(value)
