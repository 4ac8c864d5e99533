"""What every use case is given: the database, the rules, the clock, and who calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.config import Governance
from orchestrator.core.errors import Forbidden
from orchestrator.service.books import Books
from orchestrator.service.horizon import Horizon
from orchestrator.service.laws import Laws
from orchestrator.service.offers import Offers
from orchestrator.store.db import Clock, Database, database_clock


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated person. `key_id` names the credential; identity never comes from a body (rule 23)."""

    namespace: str
    person: str
    permissions: frozenset[str]
    key_id: str = ""

    def need(self, permission: str) -> None:
        """Raise Forbidden unless the credential carries `permission`."""
        if permission not in self.permissions:
            held = ", ".join(sorted(self.permissions)) or "none"
            detail = f"this needs the permission `{permission}`; this credential has: {held}"
            raise Forbidden(detail, needed=permission)

    def need_any(self, *permissions: str) -> None:
        """Raise Forbidden unless the credential carries one of `permissions`."""
        if not self.permissions & set(permissions):
            self.need(" or ".join(permissions))


@dataclass(frozen=True)
class Context:
    """The parts a use case works with."""

    db: Database
    governance: Governance
    clock: Clock = field(default=database_clock)
    offers: Offers = field(default_factory=Offers)
    books: Books = field(default_factory=Books)

    @cached_property
    def laws(self) -> Laws:
        """What requests are judged by, remembered."""
        return Laws(self.db, self.governance, self.books)

    @cached_property
    def horizon(self) -> Horizon:
        """How far the events of all workflows are complete."""
        return Horizon(self.db)
