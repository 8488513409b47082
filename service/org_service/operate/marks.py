"""`orgs mark`: a name for now, so that one can say "since then" and "until then" later.

The ends of the topics are looked at first and the journal's position last. So a reader that begins at the ends gets
every change behind the mark, and perhaps some before it, never fewer.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from org_events.kafka.topic_ids import Topic, describe
from org_service.errors import BadInputError, PreconditionError, TopicsMissingError
from org_service.kafka.client import AIOKafkaConsumer, TopicPartition, UnknownTopicOrPartitionError
from org_service.kafka.offsets import read_groups
from org_service.kafka.reader import ends, groupless_consumer
from org_service.settings import Settings
from org_service.store import journal, marks
from org_service.store.database import Database, DatabaseConnection
from org_service.store.marks import Mark

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


async def make(settings: Settings, name: str, *, marked_by: str, reason: str) -> Mark:
    """Give now a name.

    Raises:
        BadInputError: The name can't be one.
        PreconditionError: It is taken; nothing was changed.
        KafkaError, TopicsMissingError: Kafka, or a topic, is away.
    """
    _see_name(name)
    names = sorted(spec.name for spec in settings.kafka.topics.specs())
    async with groupless_consumer(settings.kafka) as consumer:
        described = await _describe(consumer, names)
        at = await ends(consumer, [TopicPartition(each, n) for each in names for n in sorted(described[each].leaders)])
    topics: dict[str, Any] = {each: {"id": str(described[each].topic_id), "ends": {}} for each in names}
    for each, offset in at.items():
        topics[each.topic]["ends"][str(each.partition)] = offset
    groups: dict[str, dict[str, dict[str, int]]] = {}
    for group, committed in (await read_groups(settings.kafka, at)).items():
        for each, offset in sorted(committed.items()):
            groups.setdefault(group, {}).setdefault(each.topic, {})[str(each.partition)] = offset
    database = Database(settings.database, "operate", direct=True)
    async with database.begin() as conn:
        position = await journal.read_head(conn)
        made = await marks.add(
            conn,
            name=name,
            position=position,
            topics=topics,
            groups=groups,
            marked_by=marked_by,
            reason=reason,
        )
    if made is None:
        raise PreconditionError(
            f"the mark {name!r} exists already: choose another name, or delete it with `orgs marks delete {name}`."
        )
    return made


async def find(conn: DatabaseConnection, name: str) -> Mark:
    """Read a mark.

    Raises:
        PreconditionError: There is none of this name.
    """
    found = await marks.find(conn, name)
    if found is None:
        raise PreconditionError(f"there is no mark {name!r}; `orgs marks` lists them.")
    return found


async def find_ends(settings: Settings, name: str, topic: str) -> dict[int, int]:
    """Where a topic ended at a mark, by partition; 0 for partitions that were added since.

    Raises:
        PreconditionError: There is no mark of this name, or the topic is another one by now.
        KafkaError, TopicsMissingError: Kafka, or the topic, is away.
    """
    then = (await show(settings, name)).topics.get(topic, {})
    async with groupless_consumer(settings.kafka) as consumer:
        now = (await _describe(consumer, [topic]))[topic]
    if then.get("id") != str(now.topic_id):
        raise PreconditionError(
            f"the topic {topic} is not the one that there was at the mark {name!r}: its offsets mean other records now."
        )
    return {partition: then["ends"].get(str(partition), 0) for partition in now.leaders}


async def show(settings: Settings, name: str) -> Mark:
    """Read a mark; raises as `find`."""
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        return await find(conn, name)


async def list_latest(settings: Settings, limit: int) -> list[Mark]:
    """The latest marks, latest first."""
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        return await marks.list_latest(conn, limit)


async def delete(settings: Settings, name: str) -> Mark:
    """Delete a mark, and return what it was; its name is free then. Plans that were made by it stay as they are.

    Raises:
        PreconditionError: There is none of this name.
    """
    async with Database(settings.database, "operate", direct=True).begin() as conn:
        removed = await marks.remove(conn, name)
    if removed is None:
        raise PreconditionError(f"there is no mark {name!r}; `orgs marks` lists them.")
    return removed


async def _describe(consumer: AIOKafkaConsumer, names: Sequence[str]) -> Mapping[str, Topic]:
    try:
        return await describe(consumer, names)
    except UnknownTopicOrPartitionError as error:
        raise TopicsMissingError(f"{error}: run `orgs topics apply`.") from error


def _see_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{name[:100]!r} can't be the name of a mark: 1 to 100 letters, digits, dots, hyphens and underscores, "
            "the first one a letter or digit."
        )
