"""What consumer groups have committed, and committing in the name of one that nobody is in."""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, CoordinatorNotAvailableError, GroupAuthorizationFailedError, for_code
from aiokafka.structs import OffsetAndMetadata

from org_events.kafka.consumer import SteadyConsumer
from org_service.errors import PreconditionError
from org_service.kafka.connection import admin
from org_service.settings import KafkaSettings

_NOTHING: Final = OffsetAndMetadata(-1, "")


async def read_committed(
    kafka: KafkaSettings, group: str, partitions: Collection[TopicPartition], *, or_none: bool = False
) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """Read what a group has committed in partitions, with its metadata; offset -1 where it has committed nothing.

    Args:
        kafka: Where.
        group: Its id.
        partitions: All of them are answered for.
        or_none: Also take -1 of partitions that the coordinator does not know, or does not know yet. For a look, not
            for whoever continues from there.

    Raises:
        CoordinatorNotAvailableError: The group's coordinator does not know them all (yet).
        KafkaError: Kafka can't be reached.
    """
    async with admin(kafka) as client:
        committed = await client.list_consumer_group_offsets(group, partitions=list(partitions))
    # A coordinator that is still loading answers for no partition, and the client says nothing of its error.
    missing = set(partitions) - committed.keys()
    if missing and not or_none:
        raise CoordinatorNotAvailableError(f"the group's coordinator returns no offset for {len(missing)} partitions")
    return {**committed, **dict.fromkeys(missing, _NOTHING)}


async def read_groups(
    kafka: KafkaSettings, partitions: Collection[TopicPartition]
) -> Mapping[str, Mapping[TopicPartition, int]]:
    """Read what every consumer group has committed in partitions; groups that have committed nothing are left out.

    What a group has that our login may not see is left out, too.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    wanted = set(partitions)
    found: dict[str, dict[TopicPartition, int]] = {}
    async with admin(kafka) as client:
        listed = await client.list_consumer_groups()
        for group in sorted({str(each[0]) for each in listed}):
            try:
                committed = await client.list_consumer_group_offsets(group)
            except GroupAuthorizationFailedError:
                continue
            offsets = {at: has.offset for at, has in committed.items() if at in wanted and has.offset >= 0}
            if offsets:
                found[group] = offsets
    return found


class Group(NamedTuple):
    """A consumer group as its coordinator knows it."""

    state: str
    """`Empty` where nobody is in it, `Stable`, `PreparingRebalance`, `CompletingRebalance`; `Dead` where the
    coordinator knows none of this name (or one that speaks another protocol)."""
    members: int

    @property
    def active(self) -> bool:
        """Whether somebody is in it."""
        return self.members > 0 or self.state not in ("Empty", "Dead")


async def describe_groups(kafka: KafkaSettings, groups: Collection[str]) -> dict[str, Group]:
    """Ask who is in groups; those that our login may not see are left out.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    found: dict[str, Group] = {}
    async with admin(kafka) as client:
        # One at a time: aiokafka 0.14 reads the answer in the form of an older version, which fits to one group alone.
        answers: list[Any] = [
            each for group in sorted(groups) for each in await client.describe_consumer_groups([group])
        ]
    for answer in answers:
        for code, name, state, _, _, members, *_ in answer.groups:
            if code == GroupAuthorizationFailedError.errno:
                continue
            if code:
                raise for_code(code)(name)
            found[name] = Group(state, len(members))
    return found


async def commit(kafka: KafkaSettings, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Commit in the name of a group that nobody is in. Either all of it, or an error says that some may be missing.

    Raises:
        PreconditionError: Somebody is in the group; the coordinator itself rejects the commit then.
        KafkaError: Kafka can't be reached; some of it may be committed.
    """
    consumer = SteadyConsumer(**kafka.connection(), group_id=group, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign(list(offsets))
        await consumer.commit({at: OffsetAndMetadata(offset, "") for at, offset in offsets.items()})
    except CommitFailedError as error:
        raise PreconditionError(f"somebody has joined the group {group}: nothing was committed.") from error
    finally:
        await consumer.stop()
