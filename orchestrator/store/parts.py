"""What a unit of the hot path writes, as the one JSON object that its function in the database takes."""

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
    return _JSON.encode({name: part for name, part in parts.items() if part is not None})
