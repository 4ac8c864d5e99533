"""What a validation error means to the operator who wrote the file: the path that is wrong, and what is allowed there.

Works for any pydantic model; knows nothing of YAML or of particular files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Literal, TypeAlias, Union, cast, get_args, get_origin

from pydantic import BaseModel

_Path: TypeAlias = tuple[str | int, ...]
_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_KINDS = {"NoneType": "nothing", "str": "text", "bool": "true or false", "int": "a number", "float": "a number",
          "list": "a list", "dict": "a mapping"}  # fmt: skip


def explain(detail: Mapping[str, object], value: object, model: type[BaseModel]) -> tuple[_Path, str]:
    """The path that one entry of `ValidationError.errors()` is about, and the sentence for it.

    `value` is the whole document and `model` what it was validated against.
    """
    kind = str(detail["type"])
    loc = cast("_Path", detail["loc"])
    path = _existing(loc, value)
    if kind == "missing":
        return (*path, loc[-1]), "is missing and must be given"
    if kind == "extra_forbidden":
        return path, _unknown(str(loc[-1]), sorted(set(_fields(model, loc[:-1]))))
    context = cast("Mapping[str, object]", detail.get("ctx", {}))
    if kind.startswith("union_tag_"):
        key = str(context["discriminator"]).replace("'", "")
        given = f"{context['tag']!r} is not known" if "tag" in context else "is missing and must be given"
        return (*path, key), f"{given}; allowed: {_unquoted(context.get('expected_tags', 'one of the known kinds'))}"
    return path, _sentence(kind, detail.get("input"), context, str(detail["msg"]))


def _sentence(kind: str, given: object, context: Mapping[str, object], message: str) -> str:
    if kind in _WANTED:
        hint = f" ({given!r} is only text)" if given in ("yes", "no", "true", "false", "on", "off") else ""
        return f"is {_KINDS.get(type(given).__name__, 'something else')}; allowed: {_WANTED[kind]}{hint}"
    if kind in ("enum", "literal_error"):
        return f"{_short(given)} is not known; allowed: {_unquoted(context['expected'])}"
    if kind == "value_error":
        return str(context["error"])
    return f"{_short(given)}: {message[:1].lower()}{message[1:]}"


def _unquoted(expected: object) -> str:
    return str(expected).replace("'", "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 fits a line


def _unknown(key: str, allowed: Sequence[str]) -> str:
    close = get_close_matches(key, allowed, 1, 0.6)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"unknown key{hint}; allowed: {', '.join(allowed)}"


def _existing(loc: Sequence[str | int], value: object) -> _Path:
    """`loc` without the parts pydantic adds for unions and validators, which are not in the file."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(value, dict) and part in value:
            value = cast("dict[str | int, object]", value)[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(cast("list[object]", value)):
            value = cast("list[object]", value)[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _fields(annotation: object, loc: Sequence[str | int]) -> Iterator[str]:
    """The keys allowed at `loc` below `annotation`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _model_fields(annotation, loc)
        return
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _fields(args[0], loc)
    elif origin in (Union, UnionType):
        for member in args:
            yield from _fields(member, loc[1:] if loc and _tagged(member, loc[0]) else loc)
    elif args and loc:
        yield from _fields(args[-1] if args[-1] is not Ellipsis else args[0], loc[1:])


def _model_fields(model: type[BaseModel], loc: Sequence[str | int]) -> Iterator[str]:
    names = {(field.alias or name): field.annotation for name, field in model.model_fields.items()}
    if not loc:
        yield from names
    elif loc[0] in names:
        yield from _fields(names[str(loc[0])], loc[1:])


def _tagged(member: object, tag: str | int) -> bool:
    """Whether `tag` is how pydantic names this member of a union: its class, or a literal that tells it apart."""
    if get_origin(member) is Annotated:
        return _tagged(get_args(member)[0], tag)
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return False
    literals = (get_args(f.annotation) for f in member.model_fields.values() if get_origin(f.annotation) is Literal)
    return tag == member.__name__ or any(tag in values for values in literals)
