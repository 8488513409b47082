"""Our code raises on a command of one organization, whose later commands wait behind it."""

from collections.abc import Sequence

from org_events.commands import UpdateOrganization
from org_service.domain.reasons import ParkReason
from org_service.drilling.acting import apply, creations, judge_commands, leave, publisher, renames
from org_service.drilling.builds import FLAWED, POISON
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Check, Metric, read_checks


class ParkedOrganization(Drill):
    """A release with a defect was rolled out, and one organization met it."""

    name = "parked-organization"
    call = "A customer calls: since this morning nothing of what they change arrives. All others are content."
    runbook = "an-organization-is-stuck"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        async with publisher(ground.settings) as client:
            (created,) = creations(1, "Halves")
            await apply(client, [created])
            await ground.stack.deploy(["worker"], FLAWED)
            org_id = created.org_id
            commands = [*renames(org_id, f"Halves {POISON}", "Halves and Sons")]
            domain = UpdateOrganization(org_id=org_id, domain="halves.example")
            return {"org_id": str(org_id), "commands": await leave(client, [*commands, domain])}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        reason = (("reason", str(ParkReason.HANDLER_RAISED)),)
        return [
            Check("worker", "parked", r"^\d+ because of a defect of ours"),
            Metric("worker", "orgs_parked_total", "OrgsRecordsParked", reason),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return [
            "orgs parked",
            "orgs roles deploy worker",
            f'orgs parked release --org {facts["org_id"]} --execute --reason "fixed in the next release"',
        ]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        said = (await read_checks(ground, "worker")).get("parked", "the worker has no health page")
        parked = Mark("nothing is parked because of a defect of ours", said.startswith("none"), said)
        return [parked, await judge_commands(ground, facts["commands"])]
