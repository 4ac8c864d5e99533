"""Turning what a graph or a caller holds into plain JSON values, or refusing it with the place that is wrong.

Everything that is judged, digested or stored passes here first, so no two readers can see different values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

MAX_DEPTH = 64
_INTEGERS = range(-(2**63), 2**63)


def plain_json(value: object, path: str = "", longest: int | None = None) -> object:
    """A copy of `value` in plain dict, list, str, int, float, bool and None.

    Tuples and sets become lists, enums of text become text. Raises ValueError, naming the place below `path`, for
    anything JSON in Postgres cannot hold (NUL, lone surrogates, NaN, integers over 64 bits, keys that are not text,
    other objects), for more than 64 levels, and for lists and mappings with more than `longest` entries.
    """
    return _walk(value, path or "value", longest, 0)


def _walk(value: object, path: str, longest: int | None, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int | float):
        return _number(value, path)
    if depth >= MAX_DEPTH:
        raise ValueError(f"{path} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        _limit(len(items), path, longest)
        return {_key(key, path): _walk(item, f"{path}.{key}", longest, depth + 1) for key, item in items.items()}
    if isinstance(value, list | tuple | AbstractSet):
        members = cast("Sequence[object] | AbstractSet[object]", value)
        _limit(len(members), path, longest)
        ordered = sorted(members, key=repr) if isinstance(members, AbstractSet) else members
        return [_walk(item, f"{path}[{index}]", longest, depth + 1) for index, item in enumerate(ordered)]
    raise ValueError(f"{path} is a {type(value).__name__}, which JSON cannot hold")


def _limit(size: int, path: str, longest: int | None) -> None:
    if longest is not None and size > longest:
        raise ValueError(f"{path} has {size} entries; at most {longest} can be judged")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{path} has a key that is not text: {key!r}"[:200])  # noqa: TRY004 the promise is ValueError
    return _text(key, f"a key of {path}")


def _text(value: str, path: str) -> str:
    # NUL: Postgres refuses it and the rule engine would silently cut the text there.
    if "\0" in value:
        raise ValueError(f"{path} contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} contains half of a surrogate pair") from None
    return str.__str__(value)  # a subclass (an enum of text) becomes plain text


def _number(value: float, path: str) -> float:
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise ValueError(f"{path} is an integer of more than 64 bits")
        return int(value)
    if not math.isfinite(value):
        raise ValueError(f"{path} is {value}, which JSON cannot hold")
    return float(value)
