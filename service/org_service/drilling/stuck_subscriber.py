"""A subscriber that has read nothing for days: soon retention takes what it has not read."""

import time
from collections.abc import Sequence
from typing import Final

from org_service.drilling.acting import apply, creations, publisher, settle
from org_service.drilling.drill import Drill, Facts, Ground, Mark, Sight, Symptom
from org_service.drilling.looking import Metric
from org_service.drilling.strangers import find_last, write
from org_service.errors import PreconditionError
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import commit
from org_service.kafka.reader import ends, reader
from org_service.operate.groups import GroupStanding, look

LEFT_S: Final = 3_600
"""Until retention may take the first record that it has not read."""
NEAR_S: Final = 86_400
"""As the alert has it: with less, the next night may be too late."""


class StuckSubscriber(Drill):
    """Its process ends at each start, and its owner is away.

    No record is days old here, so one is written that says so: a reply to a duplicate, as workers send them, which is
    no fault in itself. Retention goes by the latest record of a segment, so nothing is deleted for it.
    """

    name = "stuck-subscriber"
    call = "Billing's team asks how long its reader of outcomes may stay down, until the person is back who knows it."
    runbook = "a-subscriber-is-stuck"

    async def plant(self, ground: Ground) -> Facts:
        """As `Drill.plant`."""
        kafka, topic = ground.settings.kafka, ground.settings.kafka.topics.results
        async with publisher(ground.settings) as client:
            (created,) = creations(1, "Billed")
            await apply(client, [created])
        await settle(ground)
        last = await find_last(ground, topic, created.org_id)
        async with reader(kafka, topic) as (consumer, partitions):
            read = await ends(consumer, partitions)
        old_ms = await _almost_expired_ms(ground, topic)
        at = await write(ground, topic, last.partition, (last.key or b"", last.value, last.headers), old_ms)
        group = f"{kafka.topic_prefix}drill-billing"
        await commit(kafka, group, {**read, TopicPartition(topic, at.partition): at.offset})
        await ground.stack.deploy(["operate"])  # which looks at its start, and then each minute
        return {"topic": topic, "group": group}

    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """As `Drill.symptoms`."""
        labels = (("group", facts["group"]), ("topic", facts["topic"]))
        return [
            Metric("operate", "orgs_group_loss_seconds", "OrgsGroupNearLoss", labels, most=NEAR_S),
            _Listed(facts["group"]),
        ]

    def remedy(self, facts: Facts) -> Sequence[str]:
        """As `Drill.remedy`."""
        group = facts["group"]
        return [
            f"orgs offsets show {group}",
            f'orgs offsets reset {group} --to-latest --execute --reason "billing loads again from its backup"',
        ]

    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """As `Drill.judge`."""
        found = await _find_group(ground, facts["group"])
        if found is None:
            return [Mark("the group goes on in good time", ok=False, found="it has committed nothing any more")]
        near = found.loss_s is not None and found.loss_s < NEAR_S
        said = f"{found.lag} records behind, " + ("in time" if found.loss_s is None else f"{found.loss_s:.0f} s left")
        return [
            Mark("nothing is lost to the group within a day", not near, said),
            Mark("nothing was lost before the group read it", not found.lost, f"{found.lost} offsets"),
        ]


class _Listed:
    """The group stands on top of `orgs offsets`."""

    alert = None

    def __init__(self, group: str) -> None:
        self._group = group

    async def look(self, ground: Ground) -> Sight | None:
        """As `Symptom.look`."""
        found = await _find_group(ground, self._group)
        if found is None or found.loss_s is None:
            return None
        said = f"{self._group}: {found.group.state if found.group else '?'}, {found.lag} behind"
        return Sight("`orgs status`, `orgs offsets`", f"{said}, {found.loss_s / 60:.0f} minutes to loss")


async def _find_group(ground: Ground, group: str) -> GroupStanding | None:
    groups = (await look(ground.settings.kafka)).groups
    return next((each for each in groups if each.name == group), None)


async def _almost_expired_ms(ground: Ground, topic: str) -> int:
    """The time of a record that retention may take in `LEFT_S`, in milliseconds since 1970."""
    kept_ms = (await look(ground.settings.kafka)).retention_ms[topic]
    if kept_ms is None or kept_ms < LEFT_S * 1000:
        raise PreconditionError(f"{topic} is kept for ever, or hardly at all: this drill needs retention.ms.")
    return int(time.time() * 1000) - kept_ms + LEFT_S * 1000
