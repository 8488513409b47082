"""A wrong record on `orgs.state`: whoever loads from there gets an organization that never was so."""

from collections.abc import Sequence

import orjson

from org_events.commands import CreateOrganization
from org_service.drilling.acting import apply, creations, publisher, renames, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Check, Metric
from org_service.drilling.strangers import find_last, write
from org_service.wire.changes import hash_key

WRONG_NAME = "Nobody's Name"


class WrongRecord(Drill):
    """A script of somebody's wrote it, by which the relay is stopped as well."""

    name = "wrong-record"
    call = "A new subscriber loaded all organizations, and has one under a name that nobody knows."
    runbook = "a-stranger-writes-to-our-topics"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        topic = ground.settings.kafka.topics.state
        one, other = _neighbours(ground.settings.kafka.partitions)
        async with publisher(ground.settings) as client:
            await apply(client, [one, other])
            await settle(ground)
            right = await find_last(ground, topic, one.org_id)
            wrong = orjson.dumps({**orjson.loads(right.value or b"{}"), "name": WRONG_NAME})
            await write(ground, topic, right.partition, (str(one.org_id).encode(), wrong, right.headers))
            sent = await client.send(renames(other.org_id, "Later")[0])
        return {"topic": topic, "org_id": str(one.org_id), "commands": [str(sent.command_id)]}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        return [
            Check("relay", "kafka", "neither the relay nor a run of an operator wrote this record"),
            Metric("relay", "orgs_relay_foreign_total", "OrgsForeignWriter", (("topic", facts["topic"]),)),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return [
            'orgs topics accept --execute --reason "a script, stopped"',
            'orgs repair --execute --reason "a wrong record on orgs.state"',
        ]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        last = await find_last(ground, facts["topic"], facts["org_id"])
        name = orjson.loads(last.value or b"{}").get("name", "")
        return [Mark("orgs.state ends with the right record", name != WRONG_NAME, f"its name is {name}")]


def _neighbours(partitions: int) -> tuple[CreateOrganization, CreateOrganization]:
    """Two organizations on one partition: what is published of the second meets what was written of the first."""
    first, *others = creations(20 * partitions, "Loaded")
    home = hash_key(str(first.org_id).encode()) % partitions
    return first, next(each for each in others if hash_key(str(each.org_id).encode()) % partitions == home)
