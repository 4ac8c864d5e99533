"""Digests, the event chain, and the masking of secrets."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.canonical import MASK, Redactor, canonical_json, chain_hash, digest, redact, without
from orchestrator.core.model import Action

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)


def test_canonical_json_is_sorted_without_spaces_and_utf8() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": {"ü": True}}) == '{"a":{"ü":true},"b":[1,2.5,null]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": float("-inf")}])
def test_what_json_cannot_say_has_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_the_digest_is_sha256_of_the_canonical_json() -> None:
    action = {"operation": "deploy", "metadata": {"a": 1}}
    expected = hashlib.sha256(b'{"metadata":{"a":1},"operation":"deploy"}').hexdigest()
    assert digest(action) == expected


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_digest_does_not_depend_on_the_order_of_keys_and_survives_storage(action: dict[str, object]) -> None:
    backwards = dict(reversed(action.items()))
    assert digest(action) == digest(backwards) == digest(json.loads(json.dumps(action)))


def test_every_field_of_an_action_changes_its_digest() -> None:
    base = Action("deploy")
    changed = [
        Action("deploy2"), Action("deploy", environment="p"), Action("deploy", target="t"),
        Action("deploy", resource_type="r"), Action("deploy", arguments={"a": 1}), Action("deploy", estimated_cost=1.0),
        Action("deploy", security_findings=[{"a": 1}]), Action("deploy", metadata={"a": 1}),
    ]  # fmt: skip
    assert len({digest(action.to_json()) for action in [base, *changed]}) == 9


def test_only_declared_volatile_fields_are_left_out() -> None:
    one = {"target": "a", "metadata": {"build_time": 1, "n": {"x": 1, "y": 2}}}
    two = {"target": "a", "metadata": {"build_time": 2, "n": {"x": 5, "y": 2}}}
    assert digest(one) != digest(two)
    assert digest(one, ["metadata.build_time"]) != digest(two, ["metadata.build_time"])
    assert digest(one, ["metadata.build_time", "metadata.n.x"]) == digest(two, ["metadata.build_time", "metadata.n.x"])
    assert digest(one, ["no.such.path", "target.deep"]) == digest(one)
    assert one == {"target": "a", "metadata": {"build_time": 1, "n": {"x": 1, "y": 2}}}
    assert without(one, ["metadata"]) == {"target": "a"}


SECRETIVE = st.from_regex(
    r"(?i)\A.{0,3}(password|passwd|token|secret|api[_-]?key|authorization|private[_-]?key|q\"uo\\te|ssn).{0,3}\Z"
)


@given(st.recursive(JSON, lambda inner: st.dictionaries(SECRETIVE | st.text(max_size=5), inner, max_size=3)))
def test_masked_text_is_the_text_of_the_masked_value(value: object) -> None:
    for one in (redact, Redactor(['q"uo\\te']), Redactor(["\u017fsn"])):
        assert one.text(value) == canonical_json(one(value))


@pytest.mark.parametrize("depth", [70, 3000])
def test_text_that_is_nested_too_deep_is_masked_like_the_value(depth: int) -> None:
    deep: object = "shown"
    for _ in range(depth):
        deep = {"a": deep}
    assert "shown" not in redact.text(deep)
    assert redact.text(deep) == canonical_json(redact(deep))


def test_a_chain_tells_a_changed_a_moved_and_a_dropped_event() -> None:
    def chain(bodies: list[str]) -> bytes:
        head = b""
        for seq, body in enumerate(bodies):
            head = chain_hash(head, seq, AT, "vote-recorded", "bob", body)
        return head

    whole = chain(["a", "b", "c"])
    assert chain(["a", "b", "c"]) == whole
    assert len({whole, chain(["a", "x", "c"]), chain(["b", "a", "c"]), chain(["a", "b"])}) == 4


def test_each_part_of_an_event_is_in_its_hash_and_the_time_zone_is_not() -> None:
    base = chain_hash(b"p", 1, AT, "k", "a", "{}")
    others = [
        chain_hash(b"q", 1, AT, "k", "a", "{}"), chain_hash(b"p", 2, AT, "k", "a", "{}"),
        chain_hash(b"p", 1, AT + timedelta(microseconds=1), "k", "a", "{}"), chain_hash(b"p", 1, AT, "l", "a", "{}"),
        chain_hash(b"p", 1, AT, "k", "b", "{}"), chain_hash(b"p", 1, AT, "k", "a", "{} "),
    ]  # fmt: skip
    assert len({base, *others}) == 7
    assert chain_hash(b"p", 1, AT.astimezone(timezone(timedelta(hours=5))), "k", "a", "{}") == base


@pytest.mark.parametrize(
    "key",
    ["password", "Password", "db_password", "token", "X-Auth-Token", "client_secret", "api_key", "apiKey", "api-key",
     "Authorization", "private_key", "PRIVATE-KEY"],
)  # fmt: skip
def test_secrets_are_masked_at_any_depth(key: str) -> None:
    shown = json.dumps(redact({"a": [{"b": ({key: "canary"}, {"ok": {key: ["canary"]}})}], key: {"x": "canary"}}))
    assert "canary" not in shown


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    value = {"target": "db", "n": 1, "list": [True, None, 2.5], "password": "", "token": None}
    assert redact(value) == value


def test_configured_keys_are_masked_too_and_the_original_is_untouched() -> None:
    original = {"iban": "DE00", "IBAN_of": "DE01", "password": "p", "i.ban": "shown"}
    assert Redactor(["iban"])(original) == {"iban": MASK, "IBAN_of": MASK, "password": MASK, "i.ban": "shown"}
    assert original["iban"] == "DE00"


def test_deeper_than_any_document_may_be_is_masked_and_does_not_overflow() -> None:
    value: object = "canary"
    for _ in range(5000):
        value = [value]
    assert "canary" not in str(redact(value))
