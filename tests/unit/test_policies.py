"""Policies: which one is taken, what it comes to, and what is refused in a file."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import POLICIES_FILE, RISK_FILE, TRIGGERS_FILE
from orchestrator.core.cel import Facts, facts_of
from orchestrator.core.deadlines import next_reminder
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.freezes import Span, Weekly
from orchestrator.core.model import Action, Level, Requester, Requirement, Slot
from orchestrator.core.policy import BreakGlass, Escalation, Policy, Terms, terms_for
from orchestrator.core.policy_file import PolicyBook, written_policies
from orchestrator.core.risk import RiskRules

LOW, MEDIUM, HIGH, CRITICAL = Level
CONFIG = Path(__file__).resolve().parents[2] / "config"
ROLES = ("team_lead", "tech_lead", "cto")
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def rules() -> RiskRules:
    texts = [(CONFIG / name).read_text(encoding="utf-8") for name in (RISK_FILE, TRIGGERS_FILE)]
    return RiskRules.load(texts[0], texts[1], (RISK_FILE, TRIGGERS_FILE))


def book(policies: str, roles: str = "[sre]") -> PolicyBook:
    return PolicyBook.load(f"roles: {roles}\npolicies:\n{policies}", "p.yaml", ROLES)


def facts(operation: str = "deploy", **more: object) -> Facts:
    return facts_of(Action(operation, "production", metadata=more), Requester("rita"), {}, None)


def slots(*roles: str) -> tuple[Slot, ...]:
    return tuple(Slot(frozenset(role.split("|"))) for role in roles)


# --- which one ---


def test_the_first_that_matches_in_the_file_is_taken() -> None:
    found = book("""
  - {name: deletes, match: action.operation == 'delete'}
  - {name: risky, match: "risk in ['high', 'critical']"}
  - {name: low-only, levels: [low]}
""")
    taken = {level: found.pick(facts(), level) for level in Level}
    assert {level: policy and policy.name for level, policy in taken.items()} == {
        LOW: "low-only", MEDIUM: None, HIGH: "risky", CRITICAL: "risky",
    }  # fmt: skip
    policy = found.pick(facts("delete"), CRITICAL)
    assert policy is not None
    assert (policy.name, policy.beside) == ("deletes", ())


def test_an_empty_book_takes_nothing() -> None:
    assert PolicyBook().pick(facts(), HIGH) is None
    assert book("").pick(facts(), HIGH) is None


def test_a_match_that_cannot_be_evaluated_counts_beside_the_one_that_matches(rules: RiskRules) -> None:
    found = book("""
  - {name: rows, match: action.metadata.rows > 5, stages: [[{role: sre}]], volatile_fields: [metadata.x, metadata.y]}
  - {name: deploys, match: action.operation == 'deploy', stages: [[{role: cto}]], volatile_fields: [metadata.x]}
""")
    policy, troubles = found.look(facts(), LOW)
    assert policy is not None
    assert (policy.name, [one and one.name for one in policy.beside]) == ("deploys", ["rows"])
    assert troubles == (
        'the match of policy rows could not be evaluated, so its terms hold: Key not found in map : "rows"',
    )
    terms = terms_for(LOW, rules, policy)
    assert terms.requirement.stages == (slots("cto", "sre"),)
    assert (terms.actor, terms.volatile_fields) == ("policy:deploys@1", ("metadata.x",))
    assert found.look(facts(rows=9), LOW)[1] == ()


def test_where_nothing_else_matches_it_counts_beside_the_level(rules: RiskRules) -> None:
    found = book("  - {name: rows, match: action.metadata.rows > 5, stages: [[{role: sre}]], deny_threshold: 2}")
    policy = found.pick(facts(), CRITICAL)
    assert policy is not None
    terms = terms_for(CRITICAL, rules, policy)
    assert terms.requirement == Requirement((slots("cto|tech_lead", "sre"),), 1, justification_on_decision=True)
    automatic = terms_for(LOW, rules, found.pick(facts(), LOW))
    assert (automatic.auto_approve, automatic.requirement.roles) == (False, {"sre", "team_lead"})


def test_rules_do_not_see_the_risk_they_make() -> None:
    risk = (CONFIG / RISK_FILE).read_text(encoding="utf-8")
    wrong = risk.replace("when: action.estimated_cost > 1000.0", "when: risk == 'low'")
    triggers = (CONFIG / TRIGGERS_FILE).read_text(encoding="utf-8")
    with pytest.raises(InvalidDocument, match="undeclared reference to 'risk'"):
        RiskRules.load(wrong, triggers, (RISK_FILE, TRIGGERS_FILE))


# --- what it comes to ---

WHOLE = """
  - name: whole
    version: 7
    description: everything said
    stages:
      - [{role: sre, count: 2}, {any_of: [cto, tech_lead]}]
      - [{role: cto}]
    deny_threshold: 2
    request_ttl: 8h
    approval_ttl: 30m
    on_timeout: reject
    escalation: {after: 1h, to: [cto], mode: replace}
    reminders: [30m, 10m]
    require_justification: both
    recheck: [at_quorum, at_execution]
    volatile_fields: [metadata.build_time, arguments.nonce]
    freeze:
      - {days: [fri, sat], from: "18:00", to: "08:00", time_zone: Europe/Berlin, reason: quiet}
      - {from: 2026-12-23T18:00, to: 2027-01-02T08:00+02:00, time_zone: Europe/Berlin}
    break_glass: {role: cto, review_within: 1d}
    fallback_role: tech_lead
"""


def test_a_policy_says_everything(rules: RiskRules) -> None:
    terms = terms_for(HIGH, rules, book(WHOLE).policies[0])
    assert terms == Terms(
        policy="whole", version=7,
        requirement=Requirement(
            ((Slot(frozenset({"sre"}), 2), Slot(frozenset({"cto", "tech_lead"}))), slots("cto")), 2,
            justification_on_decision=True,
        ),
        request_ttl=8 * HOUR, approval_ttl=HOUR / 2, on_timeout="reject",
        escalation=Escalation(HOUR, frozenset({"cto"}), "replace"), reminders=(HOUR / 6, HOUR / 2),
        recheck_at_execution=True, volatile_fields=("metadata.build_time", "arguments.nonce"),
        freeze=(
            Weekly(frozenset({4, 5}), 18 * 60, 8 * 60, "Europe/Berlin", "quiet"),
            Span(datetime(2026, 12, 23, 17, tzinfo=UTC), datetime(2027, 1, 2, 6, tzinfo=UTC)),
        ),
        break_glass=BreakGlass("cto", timedelta(days=1)), fallback_role="tech_lead", justification_on_request=True,
        notify=True, auto_approve=False,
    )  # fmt: skip
    assert Terms.from_json(json.loads(json.dumps(terms.to_json()))) == terms
    t0 = datetime(2026, 1, 1, tzinfo=UTC)
    reminders = [next_reminder(terms, t0, t0 + after) for after in (0 * HOUR, HOUR / 6, HOUR / 2)]
    assert reminders == [t0 + HOUR / 6, t0 + HOUR / 2, None]


def test_what_a_policy_does_not_say_the_level_does(rules: RiskRules) -> None:
    plain = Policy("plain")
    for level in Level:
        alone, found = terms_for(level, rules), terms_for(level, rules, plain)
        assert found == replace(alone, policy="plain", version=1)
        assert Terms.from_json(json.loads(json.dumps(alone.to_json()))) == alone
    assert terms_for(LOW, rules, plain).auto_approve
    staged = terms_for(LOW, rules, replace(plain, stages=(slots("sre"),)))
    assert (staged.auto_approve, staged.requirement.roles) == (False, {"sre"})


def test_a_policy_takes_no_care_away_that_the_level_asks_for(rules: RiskRules) -> None:
    terms = terms_for(CRITICAL, rules, Policy("easy", stages=(slots("sre"),), on_timeout="approve"))
    assert (terms.requirement.justification_on_decision, terms.recheck_at_execution) == (True, True)
    assert terms.on_timeout == "expire"
    assert terms_for(LOW, rules, Policy("easy", on_timeout="approve")).on_timeout == "approve"


def test_a_level_escalates_to_the_next_that_names_somebody(rules: RiskRules) -> None:
    found = {level: terms_for(level, rules).escalation for level in Level}
    assert {level: one and sorted(one.to) for level, one in found.items()} == {
        LOW: ["team_lead"], MEDIUM: ["team_lead", "tech_lead"], HIGH: ["cto", "tech_lead"],
        CRITICAL: ["cto", "tech_lead"],
    }  # fmt: skip
    later = terms_for(HIGH, rules, Policy("later", escalate_after=2 * HOUR)).escalation
    assert later == Escalation(2 * HOUR, frozenset({"cto", "tech_lead"}))


def test_rows_of_before_escalations_are_still_read() -> None:
    old = {"stages": [[{"any_of": ["sre"], "count": 2}]], "deny_threshold": 1, "justification_on_decision": False}
    kept = Requirement.from_json(old)
    assert kept == Requirement(((Slot(frozenset({"sre"}), 2),),))
    assert kept.to_json() == old
    slot = Slot(frozenset({"sre"}), 1, frozenset({"cto"}), datetime(2026, 1, 1, tzinfo=UTC))
    assert Slot.from_json(json.loads(json.dumps(slot.to_json()))) == slot


def test_terms_of_before_policies_are_still_read() -> None:
    old: dict[str, object] = {"policy": "level:high", "version": "a1", "requirement": Requirement(()).to_json()}
    assert Terms.from_json(old) == Terms("level:high", "a1", Requirement(()))


# --- the file ---


@pytest.mark.parametrize(
    ("policy", "mistake"),
    [
        ("{name: a, macth: 'true'}", "macth: unknown key, did you mean match?; allowed: approval_ttl, break_glass,"),
        ("{match: 'true'}", "name: is missing and must be given"),
        ("{name: 'a b'}", "name: 'a b': string should match pattern"),
        ("{name: a, version: 0}", "version: 0: input should be greater than or equal to 1"),
        ("{name: a, match: risc == 'low'}", "match: column 1: undeclared reference to 'risc', did you mean risk?;"),
        ("{name: a, match: action.estimated_cost}", "match: the rule gives DOUBLE; allowed: BOOL"),
        ("{name: a, levels: []}", "levels: is empty; allowed: some of low, medium, high and critical,"),
        ("{name: a, levels: [hihg]}", "levels[0]: 'hihg' is not known; allowed: low, medium, high or critical"),
        ("{name: a, stages: [[]]}", "stages[0]: a stage needs at least one slot, such as - {role: team_lead}"),
        ("{name: a, stages: [[{count: 1}]]}", "stages[0][0]: must have either `role: <role>` or `any_of: [<role>, ..."),
        ("{name: a, stages: [[{role: sre, any_of: [cto]}]]}", "stages[0][0]: must have either `role: <role>` or"),
        ("{name: a, stages: [[{any_of: []}]]}", "stages[0][0].any_of: is empty; allowed: at least one role"),
        ("{name: a, stages: [[{role: sre, count: 0}]]}", "stages[0][0].count: 0: input should be greater than or"),
        ("{name: a, stages: [[{role: sir}]]}",
         "stages[0][0].role: the role 'sir' is not declared; allowed: cto, sre, team_lead, tech_lead, or add it to"),
        ("{name: a, stages: [[{any_of: [sre, x]}]]}", "stages[0][0].any_of[1]: the role 'x' is not declared;"),
        ("{name: a, escalation: {to: [x]}}", "escalation.to[0]: the role 'x' is not declared;"),
        ("{name: a, break_glass: {role: x, review_within: 1d}}", "break_glass.role: the role 'x' is not declared;"),
        ("{name: a, break_glass: {role: sre}}", "break_glass.review_within: is missing and must be given"),
        ("{name: a, fallback_role: x}", "fallback_role: the role 'x' is not declared;"),
        ("{name: a, deny_threshold: 0}", "deny_threshold: 0: input should be greater than or equal to 1"),
        ("{name: a, request_ttl: 2 hours}", "request_ttl: '2 hours' is not a duration; allowed: a whole number and"),
        ("{name: a, request_ttl: 1h, escalation: {after: 1h}}",
         "escalation.after: never happens; allowed: less than `request_ttl`"),
        ("{name: a, escalation: {after: 2d}}",
         "escalation.after: never happens; allowed: less than `request_ttl`, which is 24h where none is given"),
        ("{name: a, escalation: {mode: swap}}", "escalation.mode: 'swap' is not known; allowed: add or replace"),
        ("{name: a, request_ttl: 1h, reminders: [30m, 1h]}", "reminders[1]: never happens; allowed: less than"),
        ("{name: a, on_timeout: deny}", "on_timeout: 'deny' is not known; allowed: expire, reject, escalate or"),
        ("{name: a, on_timeout: approve}", "on_timeout: approve is for low risk alone; add `levels: [low]`, or use"),
        ("{name: a, on_timeout: approve, levels: [low, medium]}", "on_timeout: approve is for low risk alone;"),
        ("{name: a, on_timeout: approve, match: risk == 'low'}", "on_timeout: approve is for low risk alone;"),
        ("{name: a, require_justification: yes}", "require_justification: 'yes' is not known; allowed: none,"),
        ("{name: a, recheck: [always]}", "recheck[0]: 'always' is not known; allowed: at_quorum or at_execution"),
        ("{name: a, volatile_fields: [operation]}",
         "volatile_fields[0]: 'operation' is no field that may change; allowed: arguments.<name>, metadata,"),
        ("{name: a, volatile_fields: [arguments]}", "volatile_fields[0]: 'arguments' is no field that may change;"),
        ("{name: a, freeze: [{}]}", "freeze[0].from: is missing; a freeze needs `from` and `to` (it must end), or"),
        ("{name: a, freeze: [{from: 2026-12-01T00:00}]}", "freeze[0].to: is missing; a freeze needs `from` and `to`"),
        ("{name: a, freeze: [{from: 2026-12-01, to: 2026-12-02T00:00}]}", "freeze[0].from: '2026-12-01' is not a"),
        ("{name: a, freeze: [{from: 2026-12-02T00:00, to: 2026-12-01T00:00}]}", "freeze[0].to: is not after `from`"),
        ("{name: a, freeze: [{from: 2026-12-02T00:00, to: 2029-12-01T00:00}]}", "freeze[0].to: is too far from `from`"),
        ("{name: a, freeze: [{days: [fri], from: '6pm'}]}", "freeze[0].from: '6pm' is not a time of the day; allowed:"),
        ("{name: a, freeze: [{days: [fri], from: '24:00'}]}", "freeze[0].from: '24:00' is not possible here; a day"),
        ("{name: a, freeze: [{days: []}]}", "freeze[0].days: is empty; allowed: some of mon, tue, wed, thu, fri, sat,"),
        ("{name: a, freeze: [{days: [friday]}]}", "freeze[0].days[0]: 'friday' is not known; allowed: mon, tue, wed,"),
        ("{name: a, freeze: [{days: [fri], time_zone: Berlin}]}",
         "freeze[0].time_zone: 'Berlin' is not a time zone; allowed: an IANA name such as UTC or Europe/Berlin"),
        ("{name: a, freeze: [{days: [mon, tue, wed, thu]}, {days: [fri, sat, sun]}]}",
         "freeze: leaves no time of the week in which anything could run"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_path_and_what_is_allowed(policy: str, mistake: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        book(f"  - {policy}")
    assert [problem for problem in caught.value.problems if problem.startswith(f"p.yaml:3: policies[0].{mistake}")]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("policys: []", "p.yaml:1: policys: unknown key, did you mean policies?; allowed: policies, roles"),
        ("roles: [Lead]", "p.yaml:1: roles[0]: 'Lead' is no role; allowed: lower-case letters, digits, _ and -"),
        ("policies:\n  - {name: a}\n  - {name: a}",
         "p.yaml:3: policies[1].name: the name a is used by an earlier policy"),
        ("policies:\n  - &x {name: a}\n  - *x", "p.yaml:3: policies[1]: an alias (*name) is not allowed;"),
        (f"roles: [{'a, ' * 10_001}]", "p.yaml:1: roles[9997]: the file holds too much; allowed: 10000 keys, values"),
        ("- name: a", "p.yaml:1: (the file): "),
        ("policies: {name: a}", "p.yaml:1: policies: is a mapping; allowed: a list"),
        ("", "p.yaml:1: (the file): is empty"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(text: str, mistake: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        PolicyBook.load(text, "p.yaml", ROLES)
    assert any(problem.startswith(mistake) for problem in caught.value.problems), caught.value.problems


def test_every_mistake_of_a_file_is_told_at_once_in_the_order_of_the_lines() -> None:
    with pytest.raises(InvalidDocument) as caught:
        book("  - name: a\n    fallback_role: x\n    stages: [[]]\n  - name: a\n    on_timeout: approve")
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [f"p.yaml:{n}" for n in (4, 5, 6, 7)]


def test_any_role_may_be_named_in_what_was_published_before() -> None:
    assert (
        PolicyBook.load("policies: [{name: a, fallback_role: gone}]", "p.yaml", None).policies[0].fallback_role
        == "gone"
    )


def test_what_changed_between_two_files_is_told_by_the_policies_themselves() -> None:
    one = written_policies("policies: [{name: a, levels: [low]}, {name: b, version: 3}]", "p.yaml")
    other = written_policies("# moved\npolicies:\n  - {version: 4, name: b}\n  - {levels: [high], name: a}", "p.yaml")
    assert one["a"].digest != other["a"].digest
    assert one["b"].digest == other["b"].digest
    assert (one["a"].version, other["b"].version, other["b"].place) == (None, 4, "p.yaml:3: policies[0].version")


# --- the shipped file ---


def test_the_shipped_file_puts_no_policy_in_force() -> None:
    text = (CONFIG / POLICIES_FILE).read_text(encoding="utf-8")
    assert PolicyBook.load(text, POLICIES_FILE, ROLES) == PolicyBook()


def test_its_examples_work_when_they_are_uncommented(rules: RiskRules) -> None:
    head, mark, tail = (CONFIG / POLICIES_FILE).read_text(encoding="utf-8").partition("  # - name:")
    text = head + "".join(
        f"{line.replace('# ', '', 1)}" for line in f"{mark}{tail}".replace("  #\n", "\n").splitlines(keepends=True)
    )
    found = PolicyBook.load(text, POLICIES_FILE, rules.roles)
    assert [policy.name for policy in found.policies] == ["production-deletes", "production-deploys", "high-risk"]
    terms = terms_for(CRITICAL, rules, found.pick(facts("delete_volume"), CRITICAL))
    assert (terms.policy, len(terms.requirement.stages[0])) == ("production-deletes", 2)
    assert terms_for(HIGH, rules, found.pick(facts("deploy"), HIGH)).policy == "production-deploys"
