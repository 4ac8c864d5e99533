"""Reading the configuration folder: files in, one frozen value of compiled governance out.

What the files mean is in `core`; this module only finds and reads them. A changed file counts from the next start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.channels import Channels
from orchestrator.core.confidence import DEFAULT_RULES, ConfidenceRules
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.gates import NodeGate
from orchestrator.core.risk import RiskRules

RISK_FILE = "hitl/risk-assessment-rules.yaml"
TRIGGERS_FILE = "hitl/interrupt-triggers.yaml"
POLICIES_FILE = "hitl/approval-policies.yaml"
CHANNELS_FILE = "channels.yaml"
CONFIDENCE_FILE = "hitl/confidence.yaml"


@dataclass(frozen=True, slots=True)
class Governance:
    """Everything that decides what may run, compiled (rules, triggers, levels and gates), and who is told of it."""

    rules: RiskRules
    confidence: ConfidenceRules = field(default=DEFAULT_RULES)
    channels: Channels = field(default_factory=Channels)

    @property
    def tells(self) -> bool:
        """Whether anybody is told of a request."""
        return self.channels.active

    def gate(self, graph: str, node: str) -> NodeGate | None:
        """The gate before `node` of `graph`, if the triggers file puts one there."""
        return self.rules.gates.get(graph, {}).get(node)


def load_governance(folder: Path) -> Governance:
    """The governance that the files below `folder` describe.

    Raises InvalidDocument, naming each real file, for one that is missing, unreadable, or wrong in any way.
    """
    files = (folder / RISK_FILE, folder / TRIGGERS_FILE)
    problems: list[str] = []
    texts = [read_text(file, problems) for file in files]
    if problems:
        raise InvalidDocument(tuple(problems))
    rules = RiskRules.load(texts[0], texts[1], (str(files[0]), str(files[1])))
    return Governance(rules, load_confidence(folder), load_channels(folder / CHANNELS_FILE))


def load_channels(file: Path) -> Channels:
    """The channels of a file; none when there is no such file. Raises InvalidDocument."""
    return Channels.load(_text(file), str(file)) if file.exists() else Channels()


def load_confidence(folder: Path) -> ConfidenceRules:
    """The factors, adjustments and thresholds of `confidence.yaml`; without that file, the shipped weights alone.

    Raises InvalidDocument when the file is there and wrong.
    """
    file = folder / CONFIDENCE_FILE
    return ConfidenceRules.load(_text(file), str(file)) if file.exists() else DEFAULT_RULES


def _text(file: Path) -> str:
    problems: list[str] = []
    text = read_text(file, problems)
    if problems:
        raise InvalidDocument(tuple(problems))
    return text


def read_text(file: Path, problems: list[str]) -> str:
    """The text of `file`; empty, with the reason added to `problems`, when it cannot be read as UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problems.append(f"{file}:1: (the file): does not exist; create it, or point the configuration folder elsewhere")
    except UnicodeDecodeError as error:
        problems.append(f"{file}:1: (the file): is not UTF-8 text (byte {error.start})")
    except OSError as error:
        problems.append(f"{file}:1: (the file): cannot be read: {error.strerror}")
    return ""
