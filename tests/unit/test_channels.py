"""channels.yaml: every mistake is named with file, line and path, and a secret neither stands in it nor is repeated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.chores.senders import make_senders
from orchestrator.chores.templates import FOLDER, Templates
from orchestrator.config import load_channels
from orchestrator.core.channels import Channels, Involved, NoticeKind, Subject, recipients
from orchestrator.core.errors import InvalidDocument
from orchestrator.settings import shipped_config

CONFIG = Path(__file__).resolve().parents[2] / "config"

GOOD = """channels:
  hook:
    type: webhook
    url: https://hooks.example.org/
    secrets: [env:HOOK]
routes:
  - channels: [hook]
"""


def mistakes(text: str) -> str:
    with pytest.raises(InvalidDocument) as refused:
        Channels.load(text, "channels.yaml")
    return "\n".join(refused.value.problems)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("type: webhook", "type: pigeon", "channels.yaml:3: channels.hook.type: 'pigeon' is not known; allowed: slack"),
        ("    url:", "    ulr:", "channels.yaml:4: channels.hook.ulr: unknown key, did you mean url?; allowed:"),
        ("env:HOOK", "whsec_hunter2", "channels.yaml:5: channels.hook.secrets[0]: is a secret and must not stand"),
        ("env:HOOK", "env:ho-ok", "channels.yaml:5: channels.hook.secrets[0]: 'env:ho-ok' names no environment"),
        ("[env:HOOK]", "[]", "channels.yaml:5: channels.hook.secrets:"),
        ("https://hooks", "gopher://hooks", "channels.yaml:4: channels.hook.url: is no address; allowed: https://"),
        ("[hook]", "[hook, mail]", "channels.yaml:7: routes[0].channels[1]: there is no channel 'mail'; allowed: hook"),
        ("- channels: [hook]", "- {channels: [hook], kinds: [asked]}", "routes[0].kinds[0]: 'asked' is not known"),
        ("- channels: [hook]", "- {channels: [hook], levels: [huge]}", "routes[0].levels[0]: 'huge' is not known"),
        ("- channels: [hook]", "- kinds: [settled]", "routes[0].channels: is missing and must be given"),
        ("  hook:\n", "  Hook 1:\n", "channels.yaml:2: channels.Hook 1:"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, said: str) -> None:
    text = mistakes(GOOD.replace(old, new))
    assert said in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("type: slack", "needs either url (an incoming webhook) or token and channel (a bot)"),
        ("type: slack, token: 'env:T'", "needs token and channel together"),
        ("type: slack, token: 'env:T', channel: C1, url: 'env:U'", "needs either url"),
        ("type: slack, url: https://hooks.slack.com/services/T/B/x", "is a secret and must not stand in the file"),
        ("type: email, host: h, from: a@b.c, user: u", "needs user and password together"),
        ("type: email, host: h, from: a@b.c, user: u, password: 'env:P', security: none", "in the clear"),
        ("type: email, host: h, from: nobody", "channels.one.from"),
    ],
)
def test_what_a_channel_needs_is_said(channel: str, said: str) -> None:
    text = mistakes(f"channels:\n  one: {{{channel}}}\nroutes: []\n")
    assert said in text
    assert text.startswith("channels.yaml:2: channels.one")


def test_a_missing_variable_is_named_with_its_place() -> None:
    channels = Channels.load(GOOD, "channels.yaml")
    with pytest.raises(InvalidDocument) as refused:
        make_senders(channels, {})
    (said,) = refused.value.problems
    assert said.startswith("channels.yaml:5: channels.hook.secrets[0]: the environment has no HOOK; set it")


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        (GOOD, {"HOOK": "hunter2"}, "channels.yaml:5: channels.hook.secrets[0]: the value of HOOK is no web"),
        ("channels:\n  a: {type: apprise, url: 'env:A'}", {"A": "hunter2://x"}, "channels.a.url: the value of A is no"),
        ("channels:\n  s: {type: slack, url: 'env:S'}\n", {"S": "hunter2"}, "channels.s.url: the value of S is no"),
    ],
)  # fmt: skip
def test_a_variable_that_holds_something_else_is_named_and_not_repeated(
    text: str, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidDocument) as refused:
        make_senders(Channels.load(text, "channels.yaml"), environment)
    assert said in refused.value.problems[0]
    assert "hunter2" not in refused.value.problems[0]


def test_as_shipped_nobody_is_told_and_every_example_is_good(tmp_path: Path) -> None:
    shipped = CONFIG / "channels.yaml"
    assert not load_channels(shipped).active
    lines = shipped.read_text(encoding="utf-8").splitlines()
    opened = [line.removeprefix("#") if line.startswith("#  ") else line for line in lines]
    text = "\n".join(opened).replace("channels: {}", "channels:").replace("routes: []", "routes:")
    channels = Channels.load(re.sub(r"^( +)# ", r"\1", text, flags=re.MULTILINE), "channels.yaml")
    assert channels.active
    assert {entry.type for entry in channels.entries.values()} == {"slack", "email", "linear", "webhook", "apprise"}
    assert not load_channels(tmp_path / "none.yaml").active


def test_routes_add_up() -> None:
    text = """channels:
  a: {type: slack, url: "env:A"}
  b: {type: slack, url: "env:B"}
routes:
  - {channels: [b]}
  - {channels: [a], levels: [high], environments: ["prod*"], kinds: [requested], roles: cto, namespaces: default}
"""
    channels = Channels.load(text, "channels.yaml")
    roles = frozenset({"cto"})
    assert channels.names_for(Subject("requested", "high", "default", "Prod-EU", roles)) == ("a", "b")
    for other in (
        Subject("settled", "high", "default", "prod", roles),
        Subject("requested", "low", "default", "prod", roles),
        Subject("requested", "high", "other", "prod", roles),
        Subject("requested", "high", "default", "staging", roles),
        Subject("requested", "high", "default", "prod", frozenset({"team_lead"})),
    ):
        assert channels.names_for(other) == ("b",)


INVOLVED = Involved(
    holders=frozenset({"tom", "tara", "theo", "rita"}),
    selves=frozenset({"rita"}),
    voted=frozenset({"tom"}),
    resolved_by="tara",
    delegations=(("theo", "dora"), ("rita", "ray"), ("tom", "rita")),
    admins=frozenset({"root"}),
)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("requested", "dora tara theo"),
        ("reminder", "dora tara theo"),
        ("settled", "dora rita theo tom"),
        ("break_glass", "dora theo tom"),
        ("review_due", "dora theo tom"),
        ("unroutable", "rita root"),
    ],
)
def test_who_is_told(kind: NoticeKind, told: str) -> None:
    assert " ".join(recipients(kind, INVOLVED)) == told


def test_a_notice_may_name_its_people_and_a_question_without_roles_is_the_requesters() -> None:
    assert recipients("break_glass", Involved(named=frozenset({"b", "a"}))) == ("a", "b")
    assert recipients("requested", Involved(selves=frozenset({"rita"}), question=True)) == ("rita",)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("requested.txt.j2", "Hello\n{{ operation }\n", "requested.txt.j2:2: (the template): "),
        (
            "requested.txt.j2",
            "Hello\n\n{{ no_such_thing }}\n",
            "requested.txt.j2:3: (the template): 'no_such_thing' is",
        ),
        ("settled.subject.j2", "{{ links.decide }}", "settled.subject.j2:1: (the template): "),
        ("settled.subject.j2", "{{ ''.__class__.__mro__ }}", "settled.subject.j2:1: (the template): access to"),
        ("message.html.j2", "{% include 'elsewhere.j2' %}", "message.html.j2:1: (the template): "),
        ("request.txt.j2", "Hello", "request.txt.j2:1: (the file): is not the name of a template; allowed: "),
    ],
)
def test_a_wrong_template_is_told_at_start_with_file_and_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidDocument) as refused:
        Templates(tmp_path, shipped_config())
    assert said in refused.value.problems[0]
    assert refused.value.problems[0].startswith(str(tmp_path))


def test_an_own_template_stands_in_for_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "settled.subject.j2").write_text("Done\n{{ operation }}\n", encoding="utf-8")
    facts = {
        "kind": "settled", "approval_id": "a", "state": "approved", "asks": "approval", "risk": "high", "urgent": False,
        "title": "", "graph": "g", "operation": "<b>deploy</b>", "environment": "", "target": "", "resource_type": "",
        "estimated_cost": None, "arguments": "", "question": "", "description": "", "reasons": [], "requester": "rita",
        "on_behalf_of": "", "roles": [], "due_at": "", "expires_at": "", "resolved_by": "tara", "note": "", "data": {},
        "people": [], "recipient": "", "links": {"page": "https://k/a", "approve": "", "reject": ""},
    }  # fmt: skip
    words = Templates(tmp_path, shipped_config()).render(facts)
    assert words.subject == "Done <b>deploy</b>"
    assert "<b>deploy</b>" in words.text
    assert "<b>" not in words.html
    assert "&lt;b&gt;deploy&lt;/b&gt;" in words.html
