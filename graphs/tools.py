"""Tools that do something real on local systems, each behind a gate: sign, delete, restore, pay, notify.

Every one is idempotent by its key: what a crash cut short is found again at the target, and never done twice.
"""

# pyright: reportUnknownMemberType=false
# Apprise's own annotations are partial.
from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import quote

from apprise import Apprise
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from graphs.files import folder
from orchestrator.sdk import Happened, InvalidInput, Unknown, effect, hitl_tool, tool_key
from orchestrator.sdk.executors import Context, Secrets, sql
from orchestrator.sdk.operations import data_dir

MOST_RECIPIENTS = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Amount = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False)]
Recipients = Annotated[list[str], Field(min_length=1, max_length=MOST_RECIPIENTS)]


def entry(parent: Path, name: str, what: str) -> Path:
    """The path of `name` in `parent`. InvalidInput for a name that could lead anywhere else."""
    path = parent / name
    if not _NAME.fullmatch(name) or path.is_symlink() or path.resolve().parent != parent:
        detail = f"{name!r} is no name of a {what}; allowed: letters, digits, dot, dash and underscore, and no links"
        raise InvalidInput(detail, name=name)
    return path


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    draft = path.with_name(f".{path.name}.{_short(tool_key())}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


# Sign a contract


def contracts() -> Path:
    """Where signed contracts are: KEYTURN_CONTRACTS_DIR, else `contracts` in the data folder."""
    return folder("KEYTURN_CONTRACTS_DIR", "contracts")


def _signing_key() -> Ed25519PrivateKey:
    """The key in KEYTURN_SIGNING_KEY (PEM), else one of this installation's own, made on first use."""
    given = os.environ.get("KEYTURN_SIGNING_KEY")
    path = Path(given).expanduser() if given else folder("KEYTURN_KEYS_DIR", "keys") / "contracts.pem"
    if not given and not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
        try:
            os.link(draft, path)  # the first of two workers wins, and both read the same key
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        detail = f"{path} holds no Ed25519 private key"
        raise InvalidInput(detail)
    return key


async def _signed(contract: str, **_: object) -> Happened | None:
    found = _signature(contract)
    return Happened(found) if found and found["key"] == tool_key() else None


def _signature(contract: str) -> dict[str, str] | None:
    path = entry(contracts(), f"{contract}.sig.json", "contract")
    return cast("dict[str, str]", json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


@hitl_tool("sign_contract", "high", target="contract", resource_type="contract", verify=_signed)
async def sign_contract(contract: str, parties: list[str], text: str) -> dict[str, str]:
    """Sign a contract: writes the document and an Ed25519 signature over it.

    `contract` is a short name for it, `parties` who it binds, `text` its terms.
    """
    place, key = contracts(), tool_key()
    before = _signature(contract)
    if before and before["key"] == key:
        return before
    if before:
        detail = f"contract {contract} is signed already; sign a new version under a name of its own"
        raise InvalidInput(detail, contract=contract)
    document = entry(place, f"{contract}.txt", "contract")
    content = f"Contract {contract}\n\nBetween {', '.join(parties)}\n\n{text.strip()}\n".encode()
    signer = _signing_key()
    public = signer.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    record = {
        "contract": contract, "document": document.name, "sha256": hashlib.sha256(content).hexdigest(),
        "algorithm": "Ed25519", "signature": signer.sign(content).hex(), "public_key": public.hex(),
        "signed_at": datetime.now(UTC).isoformat(timespec="seconds"), "key": key,
    }  # fmt: skip
    written(document, content)
    written(entry(place, f"{contract}.sig.json", "contract"), json.dumps(record, indent=2).encode())
    return record


def verify_contract(contract: str) -> bool:
    """Whether the document on disk is the one that was signed, by the key that is in use now."""
    record = _signature(contract)
    document = entry(contracts(), f"{contract}.txt", "contract")
    if record is None or not document.exists():
        return False
    public = _signing_key().public_key()
    try:
        public.verify(bytes.fromhex(record["signature"]), document.read_bytes())
    except (InvalidSignature, ValueError):
        return False
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex() == record["public_key"]


# Delete a project, and bring it back


def projects() -> Path:
    """Where projects are: KEYTURN_PROJECTS_DIR, else `projects` in the data folder."""
    return folder("KEYTURN_PROJECTS_DIR", "projects")


def trash() -> Path:
    """Where deleted projects wait; on the same disk, so that moving one there is one step."""
    found = projects() / ".trash"
    found.mkdir(exist_ok=True)
    return found


async def _deleted(project: str, **_: object) -> Happened | None:
    ticket = f"{project}.{_short(tool_key())}"
    found = (trash() / ticket).is_dir()
    return Happened({"project": project, "ticket": ticket}) if found else None


@hitl_tool("delete_project", "high", target="project", resource_type="project", verify=_deleted)
async def delete_project(project: str) -> dict[str, str]:
    """Delete a project: moves its folder into the trash. The ticket it gives restores it."""
    path = entry(projects(), project, "project")
    ticket = f"{project}.{_short(tool_key())}"
    if not path.is_dir():
        detail = f"there is no project {project}"
        raise InvalidInput(detail, project=project)
    path.rename(entry(trash(), ticket, "ticket"))
    return {"project": project, "ticket": ticket}


async def _restored(ticket: str, **_: object) -> Happened | Unknown | None:
    if (trash() / ticket).is_dir():
        return None
    project = ticket.rpartition(".")[0]
    return Happened({"project": project}) if (projects() / project).is_dir() else Unknown()


@hitl_tool("restore_project", target="ticket", resource_type="project", verify=_restored)
async def restore_project(ticket: str) -> dict[str, str]:
    """Bring a deleted project back. `ticket` is what deleting it gave."""
    path = entry(trash(), ticket, "ticket")
    project = ticket.rpartition(".")[0]
    back = entry(projects(), project, "project")
    if not path.is_dir():
        detail = f"the trash has no {ticket}"
        raise InvalidInput(detail, ticket=ticket)
    if back.exists():
        detail = f"there is a project {project} again; move it away first"
        raise InvalidInput(detail, project=project)
    path.rename(back)
    return {"project": project}


# Approve an expense

_EXPENSE = sql.Sql(
    connection="expenses",
    statements=(
        """CREATE TABLE IF NOT EXISTS keyturn_expenses (
               claim text PRIMARY KEY, payee text NOT NULL, amount numeric(14, 2) NOT NULL, currency text NOT NULL,
               workflow_id text NOT NULL, approved_at timestamptz NOT NULL DEFAULT now())""",
        """INSERT INTO keyturn_expenses (claim, payee, amount, currency, workflow_id)
           VALUES (${claim}, ${payee}, ${amount}::numeric(14, 2), ${currency}, ${workflow_id})
           RETURNING claim, payee, amount::text, currency""",
    ),
)


def _context(values: Mapping[str, object]) -> Context:
    key = tool_key()
    workflow_id = key.partition(":")[0]
    return Context(
        step="approve_expense", workflow_id=workflow_id, key=key, values={**values, "workflow_id": workflow_id},
        folder=data_dir(), data_dir=data_dir(), seconds=30.0, secrets=Secrets(), check=lambda _: None,
    )  # fmt: skip


async def _entered(**values: object) -> Happened | None:
    found = await sql.applied(_EXPENSE, _context(values))
    return None if found is None else Happened(_claim_of(found))


def _claim_of(result: Mapping[str, object]) -> dict[str, str]:
    (record,) = cast("list[dict[str, str]]", result["records"])
    return record


@hitl_tool("approve_expense", "medium", target="claim", cost="amount", resource_type="expense", verify=_entered)
async def approve_expense(claim: str, payee: str, amount: Amount, currency: str = "EUR") -> dict[str, str]:
    """Approve an expense: enters it in the ledger of approved claims.

    The ledger is the table `keyturn_expenses` of the database in KEYTURN_CONNECTION_EXPENSES.
    """
    values: dict[str, object] = {"claim": claim, "payee": payee, "amount": amount, "currency": currency}
    return _claim_of(await sql.run(_EXPENSE, _context(values)))


# Notify many


def _address(recipient: str) -> str:
    """The Apprise address of one recipient: KEYTURN_NOTIFY_URL with `{recipient}` filled in."""
    template = os.environ.get("KEYTURN_NOTIFY_URL", "")
    if "{recipient}" not in template:
        detail = (
            "set KEYTURN_NOTIFY_URL to an Apprise address with {recipient} in it,"
            " such as mailto://mail.example.com?from=keyturn@example.com&to={recipient}"
        )
        raise InvalidInput(detail)
    if not re.fullmatch(r"[\w.+@-]{1,200}", recipient):
        detail = f"{recipient!r} is no recipient; allowed: letters, digits and . + @ _ -"
        raise InvalidInput(detail, recipient=recipient)
    return template.replace("{recipient}", quote(recipient, safe="@"))


async def _each_by_itself(**_: object) -> None:
    """Nothing to look up for the whole: every message below is an effect of its own."""


@hitl_tool("bulk_notification", "medium", resource_type="message", verify=_each_by_itself)
async def notify_many(recipients: Recipients, subject: str, message: str) -> dict[str, list[str]]:
    """Send one message to many recipients, each at most once."""
    addresses = {recipient: _address(recipient) for recipient in dict.fromkeys(recipients)}
    outcome: dict[str, list[str]] = {"sent": [], "failed": []}
    for recipient, address in addresses.items():
        async with effect(f"send.{_short(tool_key())}.{recipient}") as sending:
            sent = await sending.once(lambda address=address: _send(address, subject, message))
        outcome["failed" if sent is False else "sent"].append(recipient)
    return outcome


async def _send(address: str, subject: str, message: str) -> bool:
    target = Apprise()
    if not target.add(address):
        detail = "KEYTURN_NOTIFY_URL is no address that Apprise knows"
        raise InvalidInput(detail)
    return bool(await target.async_notify(body=message, title=subject))


TOOLS = (sign_contract, delete_project, restore_project, approve_expense, notify_many)
