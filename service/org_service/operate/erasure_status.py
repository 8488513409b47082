"""`orgs erase --status`: which copies of erased organizations are left, looked for one by one, and until when.

Nothing is kept to look for but the ids: rows and records are found by them, and what they say is judged by its shape.
Tables are empty from the erasure on. Topics hold what was published before until Kafka removes it, which depends on
their settings; nobody can hurry that, so the answer is a date, or the setting that makes one impossible.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from org_events.events import EventType
from org_service.domain import details
from org_service.domain.forgetting import mentions
from org_service.errors import PreconditionError
from org_service.kafka.reader import Record, read_all
from org_service.kafka.topics import fetch_settings
from org_service.operate.operation import open_database
from org_service.settings import Settings
from org_service.store import erasing, notes
from org_service.store.database import Database
from org_service.store.erasing import Erased

ORGANIZATIONS_AT_ONCE: Final = 1_000
FOR_EVER_MS: Final = 100 * 365 * 24 * 60 * 60 * 1000
"""Kafka's default for what never happens is 292 million years."""

OnProgress = Callable[[str], None]
"""Told what is looked at next."""


class Copy(NamedTuple):
    """One place where something may be left."""

    place: str
    left: int
    """Rows or records that say something of an erased organization."""
    newest: datetime | None
    """When Kafka got the last of them; None in a table."""
    gone_by: datetime | None
    """When Kafka will have removed them; None where nothing is left, or nobody can say."""
    advice: str | None
    """What to do about it."""


class Status(NamedTuple):
    """What is left."""

    organizations: int
    copies: Sequence[Copy]

    @property
    def left(self) -> int:
        """Rows and records."""
        return sum(each.left for each in self.copies)


async def look(settings: Settings, org_id: UUID | None, on_progress: OnProgress) -> Status:
    """Look for copies of erased organizations everywhere: of one, or of all. Changes nothing.

    Raises:
        PreconditionError: It isn't erased.
        KafkaError, TopicsMissingError, PartitionUnreadableError: A topic can't be read to its end.
    """
    async with open_database(settings) as database:
        async with database.connect() as conn:
            erased = await erasing.list_erased(conn, None if org_id is None else [org_id])
        if org_id is not None and not erased:
            raise PreconditionError(f"{org_id} is not erased; `orgs show {org_id}` says what it is.")
        on_progress("tables")
        copies, replayed = await _look_at_tables(database, erased)
    topics = settings.kafka.topics
    judges: dict[str, _Judge] = dict.fromkeys(replayed, _of_event) | {
        topics.commands: _of_command,
        topics.results: _of_result,
        topics.events: _of_event,
        topics.state: _of_state,
    }
    configs = await fetch_settings(settings.kafka, judges.keys())
    by_key = {str(each.id).encode(): each for each in erased}
    for topic, config in configs.items():
        on_progress(topic)
        copy = await _look_at_topic(settings, topic, config, by_key, judges[topic])
        if copy.left and topic in replayed:
            copy = copy._replace(advice="a replay made it: delete it when nobody reads it any more")
        copies.append(copy)
    return Status(len(erased), copies)


async def _look_at_tables(database: Database, erased: Sequence[Erased]) -> tuple[list[Copy], set[str]]:
    """What is left in tables, and which topics runs have replayed events to."""
    left = {"journal": 0, "parked": 0, "accepted_command": 0}
    async with database.connect() as conn:
        for start in range(0, len(erased), ORGANIZATIONS_AT_ONCE):
            counted = await erasing.count_left(conn, erased[start : start + ORGANIZATIONS_AT_ONCE])
            for table, rows in zip(left, counted, strict=True):
                left[table] += rows
        operations = await notes.list_operations(conn, datetime.min.replace(tzinfo=UTC))
    ids = {str(each.id) for each in erased}
    left["operation"] = sum(mentions(each.sample, ids & _words(each.sample)) for each in operations)
    replayed = {
        each.parameters["topic"]
        for each in operations
        if each.parameters.get("where") in ("fresh", "named") and "topic" in each.parameters
    }
    advice = "it was written after the erasure, or restored from a backup"
    return [Copy(f"table {name}", rows, None, None, advice if rows else None) for name, rows in left.items()], replayed


def _words(sample: Sequence[Any]) -> set[str]:
    """The texts of items, which ids are among."""
    return {each for item in sample for each in orjson.dumps(item).decode().split('"')}


_Judge = Callable[[Record, Erased], bool]
"""Whether a record with the key of an erased organization says something of it."""


def _of_command(record: Record, erased: Erased) -> bool:
    """Every command does: who sent it, at least. One that came after the erasure counts, too."""
    del record, erased
    return True


def _of_event(record: Record, erased: Erased) -> bool:
    del erased
    return dict(record.headers).get("ce_type") != EventType.ERASED.encode()


def _of_state(record: Record, erased: Erased) -> bool:
    del erased
    return record.value is not None


def _of_result(record: Record, erased: Erased) -> bool:
    body = orjson.loads(record.value or b"{}")
    position, problem = body.get("position"), body.get("problem")
    if position is None or position >= erased.position:
        return False
    return body.get("organization") is not None or (problem is not None and problem["detail"] != details.FORGOTTEN)


async def _look_at_topic(
    settings: Settings, topic: str, config: Mapping[str, str], by_key: Mapping[bytes, Erased], judge: _Judge
) -> Copy:
    left = newest_ms = 0
    last_deleted: datetime | None = None
    # All partitions: where topics grew, what is old of an organization may be on its former one.
    async for records in read_all(settings.kafka, topic):
        for record in records:
            erased = by_key.get(record.key or b"")
            if erased is not None and judge(record, erased):
                left += 1
                newest_ms = max(newest_ms, record.timestamp)
                last_deleted = max(last_deleted or erased.deleted_at, erased.deleted_at)
    newest = datetime.fromtimestamp(newest_ms / 1000, UTC) if left else None
    gone_by, advice = tell_end(topic, config, newest, last_deleted, datetime.now(UTC))
    return Copy(f"topic {topic}", left, newest, gone_by, advice)


def tell_end(
    topic: str, config: Mapping[str, str], newest: datetime | None, last_deleted: datetime | None, now: datetime
) -> tuple[datetime | None, str | None]:
    """When Kafka will have removed what is left on a topic, and what to do where it won't or hasn't. Pure.

    Args:
        topic: Which.
        config: Its settings.
        newest: When Kafka got the last record that is left; None where none is.
        last_deleted: When the last of their organizations was deleted: a tombstone followed.
        now: The time.
    """
    rolled_ms = int(config["segment.ms"])
    ends: list[datetime | None] = []
    policies = config["cleanup.policy"].split(",")
    if "delete" in policies:
        # A segment goes when its last record is old enough, and takes records for so long.
        kept_ms = int(config["retention.ms"])
        ends.append(None if kept_ms < 0 or newest is None else newest + timedelta(milliseconds=kept_ms + rolled_ms))
        setting, forever = "retention.ms", kept_ms < 0
    else:
        setting, forever = "max.compaction.lag.ms", False
    if "compact" in policies:
        # A record that a tombstone replaces goes once its segment is rolled, and no later than the longest lag.
        lag_ms = int(config["max.compaction.lag.ms"])
        if lag_ms < FOR_EVER_MS:
            since = last_deleted
            ends.append(None if since is None else since + timedelta(milliseconds=lag_ms + min(rolled_ms, lag_ms)))
            forever = False
        elif "delete" not in policies:
            forever = True
    if forever:
        return None, f"Kafka may keep them for ever: set {setting} of {topic} (`orgs topics apply --dry-run` says how)"
    known = [each for each in ends if each is not None]
    if newest is None or not known:
        return None, None
    end = min(known)
    if end > now:
        return end, None
    return end, (
        "due: brokers look every few minutes, and a segment that takes records ends with the next one in its partition"
    )
