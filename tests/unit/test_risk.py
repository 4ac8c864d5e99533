"""Risk rules: the highest match wins, mistakes fail closed, and a bad rule is refused when the file is loaded."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import InvalidDocument
from orchestrator.core.model import Action, Assessment, Level, Requester
from orchestrator.core.policy import terms_for
from orchestrator.core.risk import RiskRules, folded

LOW, MEDIUM, HIGH, CRITICAL = Level
LEVELS = """\
risk_levels:
  low: {auto_approve: true, notify: false}
  medium: {approvers: [team_lead]}
  high: {approvers: [team_lead, tech_lead], escalate_after: 30m}
  critical: {approvers: [tech_lead, cto], escalate_after: 15m, require_justification: true}
"""
RITA = Requester("rita", on_behalf_of="olga", roles=frozenset({"dev"}))
FILES = ("risk.yaml", "triggers.yaml")


def rules_of(rules: str = "", triggers: str = "triggers: {}") -> RiskRules:
    return RiskRules.load(f"{LEVELS}{rules}", triggers, FILES)


def one(when: str, level: str = "high") -> RiskRules:
    return rules_of(f"rules:\n  - name: r\n    when: {when!r}\n    level: {level}\n")


def assess(rules: RiskRules, action: Action, confidence: float | None = None, **options: Any) -> Assessment:
    workflow = {"id": "wf_1", "graph": "deployer", "input": {"count": 7}}
    return rules.assess(action, RITA, workflow, confidence, **options)


def problems(rules: str = "", triggers: str = "triggers: {}", levels: str = LEVELS) -> tuple[str, ...]:
    with pytest.raises(InvalidDocument) as caught:
        RiskRules.load(f"{levels}{rules}", triggers, FILES)
    return caught.value.problems


def bad(when: str) -> str:
    return problems(f"rules:\n- {{name: r, level: low, when: {when!r}}}\n")[0]


@pytest.mark.parametrize(
    ("when", "action", "matched"),
    [
        ("action.operation == 'deploy'", Action("deploy"), True),
        ("action.environment == 'production'", Action("deploy"), False),
        ("action.target.startsWith('db')", Action("x", target="db1"), True),
        ("action.resource_type.lowerAscii() == 'iam'", Action("x", resource_type="IAM"), True),
        ("action.estimated_cost > 1000.0", Action("x"), False),
        ("action.estimated_cost > 1000.0", Action("x", estimated_cost=1000), False),
        ("action.estimated_cost > 1000.0", Action("x", estimated_cost=1000.01), True),
        ("action.security_findings.exists(f, f.severity == 'critical')", Action("x"), False),
        ("action.security_findings.exists(f, f.severity == 'critical')",
         Action("x", security_findings=({"severity": "low"}, {"severity": "critical"})), True),
        ("has(action.metadata.rows) && action.metadata.rows > 5", Action("x"), False),
        ("has(action.metadata.rows) && action.metadata.rows > 5", Action("x", metadata={"rows": 6}), True),
        ("has(action.metadata.rows) && action.metadata.rows > 5", Action("x", metadata={"rows": 5.5}), True),
        ("has(action.arguments.a.b) && action.arguments.a.b == 1", Action("x", arguments={"a": {"b": 1}}), True),
        ("'t' in action.arguments && 'pci' in action.arguments.t", Action("x", arguments={"t": ("pci",)}), True),
        ("requester.person == 'rita' && requester.on_behalf_of == 'olga' && requester.launched_by == ''",
         Action("x"), True),
        ("'dev' in requester.roles", Action("x"), True),
        ("workflow.graph == 'deployer' && workflow.case_id == '' && workflow.input.count == 7", Action("x"), True),
        ("confidence < 50.0", Action("x"), False),
        ("has_confidence", Action("x"), False),
    ],
)  # fmt: skip
def test_what_a_rule_can_ask(when: str, action: Action, matched: bool) -> None:
    found = assess(one(when), action)
    assert found.level is (HIGH if matched else LOW)
    assert [reason.rule for reason in found.reasons] == (["r"] if matched else [])


@pytest.mark.parametrize(
    ("confidence", "level"), [(49.9, HIGH), (50, LOW), (float("nan"), HIGH), (0, HIGH), (None, LOW)]
)
def test_confidence_is_0_when_it_is_no_number_and_never_counts_against_a_person(
    confidence: float | None, level: Level
) -> None:
    assert assess(one("has_confidence && confidence < 50.0"), Action("x"), confidence).level is level
    assert assess(one("confidence < 50.0"), Action("x"), confidence).level is level


@pytest.mark.parametrize(
    ("when", "action", "why"),
    [
        ("action.metadata.rows > 5", Action("x"), 'Key not found in map : "rows"'),
        ("action.metadata.rows > 5", Action("x", metadata={"rows": "many"}), "No matching overloads"),
        ("action.metadata.a.b == 1", Action("x", metadata={"a": None}), "a"),
        ("1 / int(action.estimated_cost) > 0", Action("x"), "divide by zero"),
        ("action.target.matches('(')", Action("x"), "invalid regular expression"),
        ("action.target == 'x'", Action("x", target="x\0y"), "action.target contains a NUL character"),
        ("action.target == 'x'", Action("x", target="\ud800"), "action.target contains half of a surrogate pair"),
        ("action.arguments.n > 1", Action("x", arguments={"n": 2**70}), "n is an integer of more than 64 bits"),
        ("size(action.arguments.ids) > 1", Action("x", arguments={"ids": list(range(1001))}), "has 1001 entries"),
        ("action.arguments.l.all(a, action.arguments.l.all(b, action.arguments.l.all(c, a + b + c > 0)))",
         Action("x", arguments={"l": list(range(1, 1000))}), "Iteration budget exceeded"),
        ("action.estimated_cost > 1.0", Action("x", estimated_cost=float("nan")), "action.estimated_cost is nan"),
        ("action.estimated_cost > 1.0", Action("x", estimated_cost="5"), "Unexpected value type"),  # pyright: ignore[reportArgumentType]
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_evaluated_counts_as_critical_and_says_why(when: str, action: Action, why: str) -> None:
    found = assess(one(when, "medium"), action)
    assert found.level is CRITICAL
    assert found.reasons[0].rule == "r"
    assert found.reasons[0].text.startswith("r could not be evaluated, so it counts as critical: ")
    assert why in found.reasons[0].text


def test_what_cannot_be_judged_only_counts_for_the_rules_that_read_it() -> None:
    long = Action("deploy", arguments={"ids": list(range(5000))})
    assert assess(one("action.operation == 'deploy'", "medium"), long).level is MEDIUM
    assert assess(one("action.operation == 'other' && action.arguments.ids.size() > 0"), long).level is LOW


def test_the_highest_level_wins_and_every_match_is_a_reason() -> None:
    rules = rules_of(
        "rules:\n"
        "- {name: a, when: 'true', level: low}\n"
        "- {name: b, when: 'true', level: high, reason: Because.}\n"
        "- {name: c, when: 'true', level: medium}\n"
        "- {name: d, when: 'false', level: critical}\n",
        "triggers: {deploy: {level: medium}}",
    )
    found = assess(rules, Action("deploy"))
    assert found.level is HIGH
    assert [(r.rule, r.level, r.text) for r in found.reasons] == [
        ("a", LOW, "Rule a matched."), ("b", HIGH, "Because."), ("c", MEDIUM, "Rule c matched."),
        ("deploy", MEDIUM, "Trigger deploy matched."),
    ]  # fmt: skip
    assert found.forbidden_by is None


def test_nothing_that_matches_is_low() -> None:
    assert assess(rules_of(), Action("x")) == Assessment(LOW, ())


def test_a_forbid_rule_wins_over_everything() -> None:
    rules = rules_of("rules:\n- {name: f, when: action.target == 'ledger', forbid: true}\n")
    assert assess(rules, Action("x", target="ledger")).forbidden_by == "f"
    assert assess(rules, Action("x", target="other")).forbidden_by is None


def test_a_forbid_rule_that_cannot_be_evaluated_is_critical_and_a_person_decides() -> None:
    rules = rules_of("rules:\n- {name: f, when: action.metadata.a == 1, forbid: true}\n")
    found = assess(rules, Action("x"))
    assert (found.level, found.forbidden_by) == (CRITICAL, None)


@given(st.sampled_from(Level), st.sampled_from(Level))
def test_the_graph_can_raise_a_risk_and_never_lower_it(asked: Level, ruled: Level) -> None:
    found = assess(one("true", ruled.value), Action("x", metadata={"risk": "low", "approved": True}), asked=asked)
    assert found.level is Level.highest([asked, ruled])


@pytest.mark.parametrize("name", ["delete_production", "Delete Production", " delete-production ", "delete.production"])
def test_a_trigger_matches_its_own_name_however_it_is_written(name: str) -> None:
    rules = rules_of(triggers="triggers: {delete_production: {level: critical, operation: none, environment: none}}")
    assert assess(rules, Action(name)).level is CRITICAL


@pytest.mark.parametrize(
    ("operation", "environment", "cost", "level"),
    [
        ("drop_table", "production", 5, HIGH),
        ("Drop Table", "PRODUCTION-eu", 5, HIGH),
        ("db.erase", "production", 5, HIGH),
        ("drop_table", "staging", 5, LOW),
        ("drop_table", "", 5, LOW),
        ("rename", "production", 5, LOW),
        ("drop_table", "production", 1, LOW),
    ],
)
def test_a_trigger_needs_everything_it_lists(operation: str, environment: str, cost: float, level: Level) -> None:
    triggers = (
        "triggers: {t: {level: high, operation: ['drop*', '*_erase'], environment: production*,"
        " when: action.estimated_cost > 2.0}}"
    )
    action = Action(operation, environment, estimated_cost=cost)
    assert assess(rules_of(triggers=triggers), action).level is level


def test_a_trigger_that_lists_nothing_matches_only_its_name() -> None:
    rules = rules_of(triggers="triggers: {t: {level: high}}")
    assert assess(rules, Action("other")).level is LOW


def test_a_pattern_is_no_regular_expression() -> None:
    rules = rules_of(triggers="triggers: {t: {level: high, operation: ['a+b', '[x]', '*(z']}}")
    assert [assess(rules, Action(name)).level for name in ("a+b", "aab", "[x]", "x", "1(z")] == [
        HIGH, LOW, HIGH, LOW, HIGH,
    ]  # fmt: skip
    assert folded(" A  b.C/d-e ") == "a_b_c_d_e"


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("confidence > 85", "this field is a DOUBLE: write 85.0, not 85"),
        (
            "action.opration == 'x'",
            "undeclared reference to 'action.opration', did you mean action.operation?; allowed:",
        ),
        ("action == {}", "name one of its fields; allowed: action.operation"),
        ("action.metadata.flag", "gives DYN; allowed: BOOL, a condition that is true or false (compare it"),
        ("action.operation", "gives STRING; allowed: BOOL"),
        ("has(action.environment)", "action.environment is always there; has() is for keys inside maps"),
        ("1 +", "column 4: Syntax error"),
        ("'x' == 1", "found no matching overload"),
        (" ", "must be a CEL expression"),
        ("true" + " && true" * 600, "is too long; allowed: 4096 bytes"),
        ("(" * 200 + "true" + ")" * 200, "recursion limit"),
    ],
)
def test_a_wrong_expression_is_refused_when_the_file_is_loaded(when: str, message: str) -> None:
    found = bad(when)
    assert found.startswith("risk.yaml:7: rules[0].when: ")
    assert message in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("approvers: [team_lead]", "notify: true"),
         "risk.yaml:3: risk_levels.medium: nobody could approve this level; name at least one role in `approvers`"),
        (("critical: {", "critical: {auto_approve: true, "),
         "risk.yaml:5: risk_levels.critical: critical is never approved automatically; allowed: auto_approve: false"),
        (("escalate_after: 30m", "escalate_after: 24h"),
         "risk.yaml:4: risk_levels.high: `escalate_after` must be shorter than `request_ttl`, or it never happens"),
        (("[tech_lead, cto]", "['']"), "risk.yaml:5: risk_levels.critical: a role in `approvers` is blank"),
        (("  medium: {approvers: [team_lead]}\n", ""),
         "risk.yaml:1: risk_levels.medium: is missing and must be given"),
    ],
)  # fmt: skip
def test_levels_that_could_not_work_are_refused(change: tuple[str, str], problem: str) -> None:
    assert problem in problems(levels=LEVELS.replace(*change))


def test_the_mistakes_of_both_files_are_reported_together() -> None:
    rules = "rules:\n- {name: a, when: 'true', level: low}\n- {name: a, when: 'true', level: low, forbid: true}\n"
    assert problems(rules + "- {name: b, when: 'true'}\n", "triggers:\n  t: {level: low, operation: ' '}\n") == (
        "risk.yaml:8: rules[1].name: the name a is used by an earlier rule",
        "risk.yaml:8: rules[1]: must have either `level: <risk level>` or `forbid: true`",
        "risk.yaml:9: rules[2]: must have either `level: <risk level>` or `forbid: true`",
        "triggers.yaml:2: triggers.t.operation: is blank; allowed: a name, `*` stands for anything",
    )


def test_the_version_changes_with_either_file() -> None:
    versions = {
        rules_of().version,
        rules_of("# note\n").version,
        rules_of(triggers="triggers: {x: {level: low}}").version,
    }
    assert len(versions) == 3
    assert rules_of().version == rules_of().version


def test_a_level_without_approvers_is_decided_by_the_next_one_up() -> None:
    rules = rules_of()
    assert terms_for(LOW, rules).requirement.roles == {"team_lead"}
    critical = terms_for(CRITICAL, rules)
    assert critical.requirement.to_json() == {
        "stages": [[{"any_of": ["cto", "tech_lead"], "count": 1}]],
        "deny_threshold": 1,
        "justification_on_decision": True,
    }
    assert critical.actor == f"policy:level:critical@{rules.version}"
    assert (terms_for(LOW, rules).auto_approve, terms_for(LOW, rules).notify) == (True, False)
    assert (terms_for(HIGH, rules).auto_approve, terms_for(HIGH, rules).notify) == (False, True)


def test_rules_may_be_used_from_many_threads() -> None:
    rules = one("action.metadata.n > 500")
    wrong: list[int] = []

    def work(start: int) -> None:
        for n in range(start, start + 300):
            level = assess(rules, Action("x", metadata={"n": n})).level
            if level is not (HIGH if n > 500 else LOW):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 1200, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
