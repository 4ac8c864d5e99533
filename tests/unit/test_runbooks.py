"""Runbooks are refused whole, with file and line, and no parameter ever becomes code, a path, a host or an option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from psycopg import sql as psycopg_sql

from orchestrator.core.errors import InvalidDocument, InvalidInput, NotFound
from orchestrator.sdk import templates
from orchestrator.sdk.executors import Secrets, command, http, sql
from orchestrator.sdk.runbooks import find_runbook, input_schema, load_runbook, load_runbooks, runbooks_folder

RUNBOOK = """\
name: tidy
description: Tidy ${table} of ${plan.rows} rows
operation: tidy
environment: ${environment}
parameters:
  type: object
  required: [table]
  properties:
    table: {type: string, pattern: '^[a-z_]+$'}
    note: {type: string, default: ""}
    environment: {enum: [test, production], default: test}
    only: {type: object, propertyNames: {pattern: '^[a-z_]+$'}, default: {}}
plan:
  - name: count
    sql:
      connection: local
      statements: ["SELECT count(*) AS rows FROM ${table!identifier} WHERE ${only!equals}"]
    facts: {rows: records.0.rows}
apply:
  - name: clean
    command:
      argv: [tidy, "--rows=${plan.rows}", "${note}"]
verify:
  - name: check
    http:
      url: http://127.0.0.1:8080/${table}
      hosts: ["127.0.0.1:8080"]
"""


def write(folder: Path, text: str, name: str = "tidy") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, old: str, new: str) -> list[str]:
    assert RUNBOOK.count(old) == 1, old
    path = write(folder, RUNBOOK.replace(old, new))
    with pytest.raises(InvalidDocument) as refused:
        load_runbook(path)
    return [problem.removeprefix(f"{path}:") for problem in refused.value.problems]


def test_a_good_runbook_loads_with_its_defaults_and_a_version(tmp_path: Path) -> None:
    loaded = load_runbook(write(tmp_path, RUNBOOK))
    assert loaded.runbook.arguments({"table": "events"}) == {
        "table": "events", "note": "", "environment": "test", "only": {},
    }  # fmt: skip
    assert load_runbook(write(tmp_path, RUNBOOK)).digest == loaded.digest
    assert load_runbook(write(tmp_path, RUNBOOK + "# a word\n")).digest != loaded.digest


def test_the_version_covers_the_files_a_runbook_runs(tmp_path: Path) -> None:
    text = RUNBOOK + "files: [tidy.py]\n"
    (tmp_path / "tidy.py").write_text("one")
    first = load_runbook(write(tmp_path, text)).digest
    (tmp_path / "tidy.py").write_text("two")
    assert load_runbook(write(tmp_path, text)).digest != first
    (tmp_path / "tidy.py").unlink()
    with pytest.raises(InvalidDocument, match=r"tidy\.yaml:28: files\[0\]: cannot read tidy\.py"):
        load_runbook(tmp_path / "tidy.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("operation: tidy", "operaton: tidy", "3: operaton: unknown key, did you mean operation?"),
        ("name: tidy\n", "name: other\n", "1: name: 'other' is not the name of the file; write tidy"),
        ("operation: tidy", "operation: ${tabel}", "3: operation: ${tabel} is not defined here; allowed: environment"),
        ("${plan.rows} rows", "${plan.row} rows", "2: description: ${plan.row} is not defined here"),
        ("of ${plan.rows}", "in ${keyturn.python}", "2: description: ${keyturn.python} is not defined here"),
        ("of ${plan.rows}", "of ${plan.rows", "2: description: ${ is not a template"),
        ("of ${plan.rows}", "of ${plan.rows; drop}", "2: description: ${plan.rows; drop} is not a template"),
        ("Tidy ${table}", "Tidy ${table!identifier}", "2: description: !identifier is for SQL statements only"),
        ("count(*) AS rows", "${plan.rows}", "17: plan[0].sql.statements[0]: ${plan.rows} is not defined here"),
        ("${only!equals}", "${only!shell}", "17: plan[0].sql.statements[0]: !shell is not known"),
        ("${table!identifier}", "${note!identifier}", "note becomes a name in SQL, so its schema needs a `pattern`"),
        ("${table!identifier}", "'${table}'", "stands within quotes; values are bound, so leave the quotes out"),
        ("${only!equals}", "${note!equals}", "note needs `type: object` and `propertyNames`"),
        ("SELECT count", "COMMIT; SELECT count", "transactions are opened and committed by Keyturn"),
        ("[tidy, ", '["${note}", ', "22: apply[0].command.argv[0]: the program is fixed by the runbook"),
        ("[tidy, ", '["tidy.cmd", ', "a batch file runs in a shell"),
        ("argv: [tidy,", 'directory: "/srv/${note}"\n      argv: [tidy,', "note becomes part of a path"),
        ('string, default: ""}', "string}", "10: parameters.properties.note: is neither required nor has a default"),
        ("pattern: '^[a-z_]+$'}\n    note", "pattern: '['}\n    note", "parameters.properties.table.pattern: is no JS"),
        ("default: test", "default: tset", "11: parameters.properties.environment.default: does not fit its own"),
        ("required: [table]", "required: [table, name]", "7: parameters.required: name is required and not described"),
        ("    facts: {rows: records.0.rows}", "    facts: {steps: rows, rows: rows}", "the fact steps is given twice"),
        ("connection: local\n", "connection: local\n      autocommit: true\n", "here everything runs read-only"),
        ('      hosts: ["127.0.0.1:8080"]', '      hosts: ["*"]', "27: verify[0].http.hosts[0]: '*' is no host"),
        ('      hosts: ["127.0.0.1:8080"]', "      hosts: [a.test]\n      method: POST", "POST changes something"),
        ("  - name: check\n    http:", "  - name: check\n    idempotent: true\n    http:", "`verify` only looks"),
        ("  - name: clean\n", "  - name: clean\n    retry: {attempts: 2, every: 1s}\n", "would repeat a change"),
        ("  - name: clean\n", "  - name: clean\n    terraform_apply: {plan: x}\n", "a step does one thing"),
        ("    command:\n      argv: [tidy,", "    terraform_apply: {plan: x}\n#", "names no terraform_plan step"),
        ("    command:\n      argv: [tidy,", "    shell: [", "21: apply[0].shell: unknown key"),
        ("      argv: [tidy,", "      argv: tidy\n#", "apply[0].command.argv: is text; allowed: a list"),
        ("verify:\n", "verify:\n  - name: check\n    sql: {connection: a, statements: [SELECT 1]}\n", "steps check"),
        ("  - name: clean\n", "  - name: clean\n    verified_by: {sql: {connection: a, statements: [SELECT 1]}}\n",
         "apply[0].verified_by: needs `expect`"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(tmp_path, old, new)
    assert any(expected in problem for problem in found), found


def test_every_mistake_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, RUNBOOK.replace("operation: tidy", "operation: ${a}-${b}"))
    write(tmp_path, "name: [", "broken")
    with pytest.raises(InvalidDocument) as refused:
        load_runbooks(tmp_path)
    text = "\n".join(refused.value.problems)
    assert "broken.yaml:1" in text
    assert "${a}" in text
    assert "${b}" in text


def test_a_folder_without_runbooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="there is no runbook here"):
        load_runbooks(tmp_path)


def test_an_unknown_runbook_is_refused_with_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runbooks").mkdir()
    write(tmp_path / "runbooks", RUNBOOK)
    monkeypatch.setenv("KEYTURN_CONFIG_DIR", str(tmp_path))
    assert runbooks_folder() == tmp_path / "runbooks"
    assert find_runbook("tidy").runbook.name == "tidy"
    for name in ("nope", "../runbooks/tidy", ""):
        with pytest.raises(NotFound, match="there are: tidy"):
            find_runbook(name)


def test_the_shipped_runbooks_load_and_bad_input_is_refused_before_anything_runs() -> None:
    schema = input_schema(load_runbooks(Path(__file__).parents[2] / "config" / "runbooks"))
    Draft202012Validator.check_schema(schema)
    judge = Draft202012Validator(schema)
    purge = {"table": "public.jobs", "keep_days": 30}
    assert judge.is_valid({"runbook": "purge-old-rows", "parameters": purge})
    assert judge.is_valid({"runbook": "terraform-change"})
    refused: list[Any] = [
        {"runbook": "format-disk"},
        {"runbook": "purge-old-rows"},
        {"runbook": "purge-old-rows", "parameters": {**purge, "table": "keyturn.events"}},
        {"runbook": "purge-old-rows", "parameters": {**purge, "table": "jobs; DROP TABLE jobs"}},
        {"runbook": "purge-old-rows", "parameters": {**purge, "keep_days": "30 OR 1=1"}},
        {"runbook": "purge-old-rows", "parameters": {**purge, "where": {"a = 1 OR b": 1}}},
        {"runbook": "purge-old-rows", "parameters": {**purge, "unknown": 1}},
        {"runbook": "deploy-local-service", "parameters": {"version": "--help"}},
        {"runbook": "terraform-change", "parameters": {"module": "../../etc"}},
        {"runbook": "vacuum-analyze", "parameters": {"table": "jobs"}, "approved": True},
    ]
    assert [value for value in refused if judge.is_valid(value)] == []


def test_a_whole_value_keeps_its_kind_and_a_part_becomes_text() -> None:
    values = {"n": 3, "on": True, "list": [1], "plan.x": "y"}
    assert templates.fill({"a": "${n}", "b": ["n=${n}", "${on}"], "c": "${plan.x}!", "d": 5}, values) == {
        "a": 3, "b": ["n=3", True], "c": "y!", "d": 5,
    }  # fmt: skip
    assert templates.fill("${list}", values) == [1]
    assert templates.fill("$${n} costs $5", values) == "${n} costs $5"
    with pytest.raises(InvalidInput, match="list is a list, which cannot stand inside a text"):
        templates.fill("x ${list}", values)
    # A value that looks like a template stays what it is.
    assert templates.fill("${a} ${b}", {"a": "${b}", "b": "$${a}"}) == "${b} $${a}"


def as_text(composed: psycopg_sql.Composed) -> str:
    return composed.as_string(None)


def test_values_are_bound_and_names_quoted_in_sql() -> None:
    attack = "x'; DROP TABLE people; --"
    text, bound = sql.compose("SELECT 5 % 3, ${v} FROM ${t!identifier} WHERE ${c!equals}",
                              {"v": attack, "t": "public.order", "c": {"state": attack, "gone": None}})  # fmt: skip
    assert as_text(text) == (
        'SELECT 5 %% 3, %s FROM "public"."order" WHERE '
        '("state" IS NOT DISTINCT FROM %s AND "gone" IS NOT DISTINCT FROM %s)'
    )
    assert bound == [attack, attack, None]
    assert as_text(sql.compose("${c!equals}", {"c": {}})[0]) == "TRUE"


@pytest.mark.parametrize("name", ['a"b', "a; DROP", "a.b.c.d", "", ".", "a.", "a b", "1a", "a\n", "a\0", 5, None, "é"])
def test_what_is_no_plain_name_never_becomes_a_name_in_sql(name: object) -> None:
    with pytest.raises(InvalidInput, match="no name of a table or column"):
        sql.compose("SELECT * FROM ${t!identifier}", {"t": name})
    with pytest.raises(InvalidInput, match="no name of a table or column"):
        sql.compose("SELECT ${c!equals}", {"c": {name: 1}})


def test_a_value_stays_one_argument_and_never_becomes_an_option() -> None:
    argv = ("tool", "${v}", "--name=${v}", "--", "a ${v} b")
    for value in ("two words", "; rm -rf /", "$(id)", "`id`", "a\nb", "*", ""):
        assert command.arguments(argv, {"v": value}) == ["tool", value, f"--name={value}", "--", f"a {value} b"]
    for value in ("-rf", "--force", "-", -1):
        with pytest.raises(InvalidInput, match="would read as an option"):
            command.arguments(argv, {"v": value})
    with pytest.raises(InvalidInput, match="NUL"):
        command.arguments(argv, {"v": "a\0b"})


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\\b", "C:"])
def test_a_value_never_leaves_its_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match="allowed in a path"):
        command.folder("/srv/${v}", {"v": name})
    assert command.folder("${keyturn.runbooks}/${v}", {"keyturn.runbooks": "/a/b", "v": "m-1"}) == Path("/a/b/m-1")


def test_a_value_changes_neither_host_nor_path_of_an_address() -> None:
    hosts = ["api.test", "127.0.0.1:*", "[::1]:81"]
    allowed = http.address("https://api.test/v1/${v}?q=${v}", hosts, {"v": "a/../b?c=d&e#f@g"})
    assert allowed.host == "api.test"
    assert allowed.raw_path == b"/v1/a%2F..%2Fb%3Fc%3Dd%26e%23f%40g?q=a%2F..%2Fb%3Fc%3Dd%26e%23f%40g"
    assert http.address("http://127.0.0.1:${p}/", hosts, {"p": 8123}).port == 8123
    assert http.address("http://[::1]:81/", hosts, {}).port == 81
    refused = ["http://evil.test/", "https://api.test.evil.test/", "https://api.test:444/", "https://a@api.test/",
               "ftp://api.test/", "file:///etc/passwd", "//api.test/", "http://127.0.0.1@evil.test/", "http://[::1]/",
               "http://127.1/", "http://2130706433/"]  # fmt: skip
    for url in refused:
        with pytest.raises(InvalidInput, match=r"not allowed|no address"):
            http.address(url, hosts, {})
    for value in ("evil.test", "api.test@evil.test", "api.test/../..", "api.test:443@evil.test/"):
        with pytest.raises(InvalidInput):
            http.address("https://x.${v}/", hosts, {"v": value})
    for value in ("..", "."):
        with pytest.raises(InvalidInput, match="must not be"):
            http.address("https://api.test/v1/${v}/delete", hosts, {"v": value})


def test_secrets_are_hidden_by_name_by_shape_and_by_known_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "canary-from-the-environment")
    monkeypatch.setenv("KEYTURN_CONNECTION_LOCAL", "postgresql://me:canary-in-address@host/db")
    secrets = Secrets(["canary-parameter"])
    text = """one canary-from-the-environment, two canary-in-address, three canary-parameter
        db_password = canary4x "api_key": "canary5x"
        Authorization: Bearer canary6x
        postgresql://me:canary7x@host/db
        -----BEGIN RSA PRIVATE KEY-----
        canary8x"""
    assert "canary" not in secrets.hide(text)
    assert "one" in secrets.hide(text)
    cleaned = secrets.clean({"token": "canary", "deep": [{"password": "canary", "said": "x canary-parameter y"}]})
    assert "canary" not in json.dumps(cleaned)
    assert secrets.clean({"n": 5, "t": True, "x": "a\0\ud800", "f": float("nan"), "i": 2**70}) == {
        "n": 5, "t": True, "x": "a\ufffd?", "f": "nan", "i": str(2**70),
    }  # fmt: skip
