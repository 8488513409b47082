"""The machine of the broker lost its power: partitions end earlier than Kafka had acknowledged."""

import asyncio
from collections.abc import Sequence

from org_local import segments
from org_service.drilling.acting import apply, creations, publisher, renames, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Symptom
from org_service.drilling.looking import Differs, Metric
from org_service.drilling.strangers import find_last
from org_service.kafka.client import KafkaError
from org_service.operate.verifying.report import Kind

LOST_BATCHES = 4
"""Of each partition: two transactions and their markers."""


class LostTail(Drill):
    """The relay was on that machine, too, and nobody has started it again."""

    name = "lost-tail"
    call = "A machine lost its power and is back. The brokers answer, but subscribers hear nothing new."
    runbook = "kafka-lost-records"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        topics = ground.settings.kafka.topics
        async with publisher(ground.settings) as client:
            (created,) = creations(1, "Lost")
            for command in (created, *renames(created.org_id, "Lost 2", "Lost 3", "Lost 4")):
                await apply(client, [command])  # a transaction of the relay each
        await settle(ground)
        partition = (await find_last(ground, topics.events, created.org_id)).partition
        await ground.stack.stop("relay")
        async with ground.stack.without_kafka():
            for topic in (topics.events, topics.state):
                await asyncio.to_thread(segments.cut_last, ground.stack.kafka_logs, topic, partition, LOST_BATCHES)
        return {"org_id": str(created.org_id)}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        return [
            Metric("worker", "orgs_relay_leader", "OrgsNoRelayLeads", least=0, most=0),
            Differs(Kind.EVENT_MISSING),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        return ["orgs status", "orgs roles start relay"]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        try:
            last = await find_last(ground, ground.settings.kafka.topics.events, facts["org_id"])
        except KafkaError as error:
            return [Mark("the events that Kafka lost are there again", ok=False, found=type(error).__name__)]
        version = next((value for name, value in last.headers if name == "ce_orgversion"), b"").decode()
        return [Mark("the events that Kafka lost are there again", version == "4", f"the last has version {version}")]
