"""What the pages share."""

from typing import NamedTuple
from uuid import UUID

from org_service.console.oidc import Provider
from org_service.console.requests import Sessions, Visitor
from org_service.console.sampling import Sampler
from org_service.domain.policy import Policy
from org_service.domain.reasons import ConsoleAct
from org_service.settings import Settings
from org_service.store import console
from org_service.store.database import Database


class Site(NamedTuple):
    """The servers, and who may see them."""

    settings: Settings
    database: Database
    """With an operator's rights; a transaction for each statement."""
    policy: Policy
    sessions: Sessions
    provider: Provider
    sampler: Sampler

    async def note(self, visitor: Visitor, act: ConsoleAct, operation_id: UUID) -> None:
        """Keep what somebody does, before it is done: what can't be kept is not done."""
        async with self.database.connect() as conn:
            await console.note(conn, visitor.user_id, act, operation_id)
