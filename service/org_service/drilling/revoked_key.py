"""Somebody stole the key that signs tokens, and changed organizations in the name of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from org_events.commands import Command, DeleteOrganization, UpdateOrganization
from org_events.results import Outcome
from org_local import Issuer
from org_service.drilling.acting import apply, creations, publisher, renames, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Changed
from org_service.local import STAFF
from org_service.store import organizations
from org_service.store.database import Database

SOURCE: Final = "/thief"
_UNAUTHENTICATED: Final = 401


class RevokedKey(Drill):
    """The thief signs tokens of a member of staff, and sends commands from a place of its own."""

    name = "revoked-key"
    call = f"{STAFF} says: I never renamed these, nor deleted that one, and I know no service called {SOURCE}."
    runbook = "a-signing-key-was-stolen"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        auth = ground.settings.auth
        token = Issuer.load(Path(auth.jwks_file).parent).token(STAFF, audience=auth.audience)
        ours, theirs = creations(4, "Ours"), creations(1, "Stolen")
        async with publisher(ground.settings) as client:
            await apply(client, ours)
        renamed = [each for one in ours[:3] for each in renames(one.org_id, "Stolen")]
        deeds: list[Command] = [*renamed, DeleteOrganization(org_id=ours[3].org_id), *theirs]
        async with publisher(ground.settings, source=SOURCE, token=token) as thief:
            await apply(thief, deeds)
        await settle(ground)
        names = {str(each.org_id): each.name for each in ours}
        return {"token": token, "names": names, "created": [str(each.org_id) for each in theirs]}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        *renamed, deleted = facts["names"]
        return [
            *(Changed(each, STAFF, "org.updated") for each in renamed),
            Changed(deleted, STAFF, "org.deleted"),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        renamed = next(iter(facts["names"]))
        return [
            f"orgs history {renamed}",
            "orgs token --withdraw-key",
            f'orgs undo --source {SOURCE} --execute --reason "sent with a stolen key"',
        ]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        return [await _judge_key(ground, facts["token"]), await _judge_organizations(ground, facts)]


async def _judge_key(ground: Ground, token: str) -> Mark:
    """Try the thief's token, on an organization that does not exist: so nothing comes of it if it is still valid."""
    async with publisher(ground.settings, source=SOURCE, token=token) as thief:
        result = await thief.execute(UpdateOrganization(org_id=uuid4(), name="Tried"))
    rejected = result.outcome == Outcome.REJECTED and result.code == _UNAUTHENTICATED
    return Mark("a token of the stolen key is rejected", rejected, f"{result.outcome} {result.code}")


async def _judge_organizations(ground: Ground, facts: Facts) -> Mark:
    """Whether names are as they were, what was deleted is there, and what the thief created is not."""
    wanted = [UUID(each) for each in (*facts["names"], *facts["created"])]
    async with Database(ground.settings.database, "reader", direct=True).connect() as conn:
        there = await organizations.find_by_ids(conn, wanted)
    now = {str(each.id): each.name for each in there if each.deleted_at is None}
    wrong = {org_id for org_id in {*now, *facts["names"]} if now.get(org_id) != facts["names"].get(org_id)}
    said = f"{len(wrong)} organizations are not as they were" if wrong else f"{len(now)} organizations"
    return Mark("nothing is left of what the thief did", not wrong, said)
