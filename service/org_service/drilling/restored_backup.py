"""The database was restored from an older backup: Kafka has what it does not."""

from collections.abc import Sequence

from org_service.drilling.acting import apply, creations, publisher, read_versions, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Ended, Metric
from org_service.local.roles import ROLES


class RestoredBackup(Drill):
    """Somebody started everything again, as if nothing were missing."""

    name = "restored-backup"
    call = (
        "The disk of the primary died. The night's backup is restored, everything was started, and the relay is down."
    )
    runbook = "the-database-was-restored-from-an-older-backup"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        stack, created = ground.stack, creations(3, "Since")
        async with publisher(ground.settings) as client:
            await apply(client, creations(2, "Before"))
            await settle(ground)
            await stack.stop(*ROLES)
            await stack.back_up()
            await stack.start(*ROLES)
            await apply(client, created)
        await settle(ground)
        await stack.stop(*ROLES)
        await stack.restore()
        await stack.start(*ROLES)
        return {"org_ids": [str(each.org_id) for each in created]}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        return [
            Ended("relay", "Kafka is ahead of the journal"),
            Metric("worker", "orgs_relay_leader", "OrgsNoRelayLeads", least=0, most=0),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return [
            "orgs roles stop worker relay edge",
            'orgs recover --execute --reason "the disk of the primary is gone"',
            "orgs roles start worker",
            "orgs roles start relay edge",
        ]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        there = await read_versions(ground, facts["org_ids"])
        said = f"{len(there)} of {len(facts['org_ids'])}"
        return [Mark("what was decided since the backup is back", len(there) == len(facts["org_ids"]), said)]
