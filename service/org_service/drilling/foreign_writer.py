"""Another program writes on `orgs.events`: the relay publishes nothing more, since subscribers take it for ours."""

from collections.abc import Collection, Sequence

from org_service.drilling.acting import apply, creations, judge_commands, leave, publisher, renames, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Check, Metric
from org_service.drilling.strangers import SOURCE, find_last, write
from org_service.operate.verifying.report import Kind

KEY = b"stranger"


class ForeignWriter(Drill):
    """It wrote one record, and has ended since."""

    name = "foreign-writer"
    call = "Subscribers hear nothing new any more, and one of them failed on a record that makes no sense."
    runbook = "a-stranger-writes-to-our-topics"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        topic = ground.settings.kafka.topics.events
        async with publisher(ground.settings) as client:
            (created,) = creations(1, "Heard")
            await apply(client, [created])
            await settle(ground)
            last = await find_last(ground, topic, created.org_id)
            at = await write(ground, topic, last.partition, (KEY, b"{}", [("ce_source", SOURCE)]))
            commands = await leave(client, renames(created.org_id, "Heard late"))
        return {"topic": topic, "partition": at.partition, "offset": at.offset, "commands": commands}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        return [
            Check("relay", "kafka", "neither the relay nor a run of an operator wrote this record"),
            Metric("relay", "orgs_relay_foreign_total", "OrgsForeignWriter", (("topic", facts["topic"]),)),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return ["orgs topics accept", 'orgs topics accept --execute --reason "an importer of the test stack, stopped"']

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        return [await judge_commands(ground, facts["commands"])]

    def leaves(self, facts: Facts) -> Collection[str]:
        """As `Drill.leaves`: its record."""
        return [f"{Kind.EVENT_FOREIGN} {KEY.decode()} {facts['topic']}[{facts['partition']}] offset {facts['offset']}"]
