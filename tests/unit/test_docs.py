"""README and docs say what is there: links lead somewhere, commands exist, code compiles, files load.

Fenced blocks are told apart by their info string. `yaml rules`, `yaml triggers`, `yaml policies`, `yaml channels` and
`yaml runbook` are read by the loaders that read such files; `python run` is executed, as it builds a graph.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fastapi.routing import APIRoute
from typer.core import TyperGroup

from orchestrator.cli.app import app as cli
from orchestrator.config import CHANNELS_FILE, RISK_FILE, TRIGGERS_FILE
from orchestrator.core.channels import Channels
from orchestrator.core.errors import StepFailed
from orchestrator.core.policy_file import PolicyBook, PolicyEntry
from orchestrator.core.risk import RiskRules
from orchestrator.sdk.runbooks import load_runbook, load_runbooks
from orchestrator.settings import ENV_PREFIX, Settings
from orchestrator.web import (
    admin,
    approvals,
    audit,
    delegations,
    health,
    inbox,
    links,
    policies,
    progress,
    stream,
    waiting,
    workflows,
)
from orchestrator.web.problems import STATUS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
# A command ends where the shell would begin another.
COMMAND = re.compile(r"(?<![\w./-])(?:keyturn|\./task) [^|;&)\n]*")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    info: str
    body: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            yield Block(page, text.count("\n", 0, found.start()) + 1, found["info"].strip(), found["body"])


BLOCKS = list(blocks())


def of(*infos: str) -> list[Any]:
    return [pytest.param(one, id=str(one)) for one in BLOCKS if one.info in infos or one.language in infos]


def pages() -> list[Any]:
    return [pytest.param(page, id=page.name) for page in PAGES]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def mentions(page: Path) -> Iterator[str]:
    """Every command of ours that the page names, in a shell block or a code span."""
    bodies = [one.body.replace("\\\n", " ") for one in BLOCKS if one.page == page and one.language == "sh"]
    shell = re.sub(r"(?:^|\s)#.*$", "", "\n".join(bodies), flags=re.MULTILINE)
    spans = "\n".join(span for span in CODE_SPAN.findall(prose(page)) if span.startswith(("keyturn ", "./task ")))
    for found in COMMAND.finditer(f"{shell}\n{spans}"):
        yield found[0].strip()


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = [found["target"] for found in LINK.finditer(prose(page))]
    for target in targets:
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_the_readme_leads_to_every_document() -> None:
    linked = {(REPOSITORY / found["target"].partition("#")[0]).resolve() for found in LINK.finditer(prose(PAGES[0]))}
    assert set(PAGES[1:]) <= linked


@pytest.mark.parametrize("page", pages())
def test_every_command_of_ours_exists_with_its_options(page: Path) -> None:
    tasks = yaml.safe_load((REPOSITORY / "Taskfile.yml").read_text(encoding="utf-8"))["tasks"]
    for text in mentions(page):
        words = shlex.split(text.replace("…", "x"), posix=True)
        if words[0] == "./task":
            names = [word for word in words[1:] if not word.startswith("-")]
            assert not names or names[0] in tasks, f"{page.name}: {text}"
        else:
            check_command(words[1:], f"{page.name}: {text}")


def check_command(words: list[str], where: str) -> None:
    command: Any = typer.main.get_command(cli)
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        found = command.commands.get(rest.pop(0))
        assert found is not None, where
        command = found
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    options = [word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"]
    assert set(options) <= known, where


def test_the_command_line_reference_has_every_command_and_option() -> None:
    reference = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8").partition("## Command line")[2]
    rows = [line for line in reference.splitlines() if line.startswith("| `keyturn ")]
    everywhere = {"--url", "--profile", "--json", "--help"}
    for name, command in commands(typer.main.get_command(cli)):
        row = next((row for row in rows if re.search(rf"`keyturn {name}[ `]", row)), None)
        assert row is not None, name
        told = set(re.findall(r"--[a-z-]+", row))
        for parameter in command.params:
            long = [option for option in parameter.opts if option.startswith("--")]
            assert not long or set(long) & (told | everywhere), f"{name} {long}"


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from commands(inner, f"{name} {part}".strip())


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.body, str(block), "exec")


@pytest.mark.parametrize("block", of("python run"))
def test_example_graphs_build(block: Block) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.body, str(block), "exec", dont_inherit=True), names)  # noqa: S102 - our own documents
    assert names["graph"].nodes


@pytest.mark.parametrize("block", of("json"))
def test_json_parses(block: Block) -> None:
    json.loads(block.body)


@pytest.mark.parametrize("block", of("toml"))
def test_toml_parses(block: Block) -> None:
    tomllib.loads(block.body)


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_parses(block: Block) -> None:
    yaml.safe_load(block.body)


@pytest.mark.parametrize("block", of("yaml rules", "yaml triggers"))
def test_rules_and_triggers_load(block: Block) -> None:
    texts = {name: (REPOSITORY / "config" / name).read_text(encoding="utf-8") for name in (RISK_FILE, TRIGGERS_FILE)}
    changed = RISK_FILE if block.info == "yaml rules" else TRIGGERS_FILE
    # A piece of a file stands for the whole of it: what it leaves out is as shipped.
    whole = {**yaml.safe_load(texts[changed]), **yaml.safe_load(block.body)}
    texts[changed] = yaml.safe_dump(whole, sort_keys=False)
    rules = RiskRules.load(texts[RISK_FILE], texts[TRIGGERS_FILE], (RISK_FILE, TRIGGERS_FILE))
    assert len(rules.rules) == len(yaml.safe_load(texts[RISK_FILE])["rules"])
    assert set(rules.gates) == set(yaml.safe_load(block.body).get("graphs", {}))


@pytest.mark.parametrize("block", of("yaml channels"))
def test_channels_load(block: Block) -> None:
    assert Channels.load(block.body, str(block)).active


@pytest.mark.parametrize("block", of("yaml policies"))
def test_policies_load(block: Block) -> None:
    book = PolicyBook.load(block.body, str(block), ("team_lead", "tech_lead", "cto"))
    assert len(book.policies) == 1


def test_the_table_of_policy_keys_is_complete() -> None:
    section = (REPOSITORY / "docs" / "policies.md").read_text(encoding="utf-8").partition("## Every key")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(PolicyEntry.model_fields)


def test_the_levels_in_the_documents_are_those_that_are_shipped() -> None:
    shipped = yaml.safe_load((REPOSITORY / "config" / RISK_FILE).read_text(encoding="utf-8"))["risk_levels"]
    told = [yaml.safe_load(one.body) for one in BLOCKS if one.info == "yaml rules"]
    assert [one["risk_levels"] for one in told if "risk_levels" in one] == [shipped]


@pytest.mark.parametrize("block", of("yaml runbook"))
def test_runbooks_load(block: Block, tmp_path: Path) -> None:
    file = tmp_path / f"{yaml.safe_load(block.body)['name']}.yaml"
    file.write_text(block.body, encoding="utf-8")
    assert load_runbook(file).runbook.name == file.stem


def test_every_shipped_runbook_is_described() -> None:
    text = (REPOSITORY / "docs" / "runbooks.md").read_text(encoding="utf-8")
    for name in load_runbooks(REPOSITORY / "config" / "runbooks"):
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("page", pages())
def test_every_runbook_submitted_takes_these_parameters(page: Path) -> None:
    known = load_runbooks(REPOSITORY / "config" / "runbooks")
    for text in mentions(page):
        words = shlex.split(text)
        given = dict(re.findall(r"(?:--set|-s) ([\w.]+)=(\S+)", " ".join(words)))
        if "runbook" not in given:
            continue
        properties = known[given.pop("runbook")].runbook.properties
        assert {name.removeprefix("parameters.") for name in given} <= set(properties), f"{page.name}: {text}"


def test_the_table_of_settings_is_complete_and_right() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(KEYTURN_[A-Z_]+)` \| (.*?) \|", text, re.MULTILINE))
    assert set(rows) == {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, int | float | str):
            told = rows[ENV_PREFIX + name.upper()].replace("`", "").partition(",")[0]
            assert told == (f"{field.default:g}" if isinstance(field.default, float) else str(field.default)), name


@pytest.mark.parametrize("page", pages())
def test_every_variable_named_is_read_somewhere(page: Path) -> None:
    named = [REPOSITORY / "docker-compose.yml", REPOSITORY / "config" / CHANNELS_FILE]
    code = [file for folder in ("orchestrator", "graphs") for file in (REPOSITORY / folder).rglob("*.py")]
    places = [*code, *named]
    sources = "\n".join(place.read_text(encoding="utf-8") for place in places)
    settings = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name in set(re.findall(r"\bKEYTURN_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8"))):
        # Connections of runbooks and keys of profiles are named by their users.
        free = name.startswith("KEYTURN_CONNECTION_") or name == "KEYTURN_STAGING_KEY"
        assert free or name in settings or name in sources, f"{page.name}: {name}"


def test_the_table_of_routes_is_complete() -> None:
    modules = (
        admin, approvals, audit, delegations, health, inbox, links, policies, progress, stream, waiting, workflows
    )  # fmt: skip
    routers = [module.router for module in modules]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    # Where GET is served, HEAD goes without saying.
    served = {f"{method} {route.path}" for route in routes for method in (route.methods or set()) - {"HEAD"}}
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `((?:GET|POST|DELETE) \S+)` \|", text, re.MULTILINE)) == served


def test_every_code_in_the_table_of_errors_has_its_status() -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", text, re.MULTILINE)
    assert len(told) > len(STATUS) / 2
    for code, status in told:
        assert STATUS[code].value == int(status), code


def test_every_reason_of_a_failed_workflow_is_a_code() -> None:
    section = (REPOSITORY / "docs" / "guide.md").read_text(encoding="utf-8").partition("`reason` of a failed")[2]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "orchestrator").rglob("*.py"))
    told = [code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])]
    assert StepFailed.code in told
    for code in told:
        assert f'"{code}"' in sources, code


def test_the_folder_map_is_the_folders() -> None:
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    listed = re.findall(r"^([\w./]+)\s{1,}\S", section.partition("```text\n")[2].partition("```")[0], re.MULTILINE)
    for place in listed:
        assert (REPOSITORY / place).exists(), place
    packages = {f"orchestrator/{path.parent.name}/" for path in (REPOSITORY / "orchestrator").glob("*/__init__.py")}
    assert packages <= set(listed)
