"""The proof of the accounts: what was sent, decided and published, from the topics and the tables, all of it compared.

It reads the topics `read_committed` from their beginning and the tables page by page, believes neither, and trusts
no counter of the service. For a pipeline that is idle and whose topics still hold everything; memory grows with the
number of commands, at about 1 KB each.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from org_events import cloudevents
from org_events.cloudevents import NotACloudEvent
from org_events.events import EventType
from org_events.topics import partition_for
from org_service.domain.organization import to_json
from org_service.domain.outcomes import JournaledOutcome
from org_service.domain.reasons import ParkedState
from org_service.kafka.reader import Record, read_all
from org_service.kafka.topics import count_partitions
from org_service.operate.replay_events import RUN_HEADER
from org_service.settings import KafkaSettings, Settings
from org_service.store import journal, organizations, parked_queues
from org_service.store.database import Database
from org_service.store.journal import Gap
from org_service.store.parked_queues import ParkedFilter, ParkedRecord

PAGE_ROWS: Final = 5_000
DIFFERENCES_SHOWN_MAX: Final = 20
"""Of one kind; the rest is counted, as one fault may touch every row."""

Coordinates = tuple[str, int, int]


class Accounts(NamedTuple):
    """What there is, and what doesn't fit together."""

    commands: int
    """Commands sent, however often each."""
    outcomes: int
    """Commands whose outcome was published."""
    events: int
    parked: int
    """Records set aside and not released or discarded."""
    differences: list[str]


@dataclass(slots=True)
class _OnTopics:
    """What the topics hold."""

    commands: set[UUID] = field(default_factory=set[UUID])
    unreadable: set[Coordinates] = field(default_factory=set[Coordinates])
    outcomes: dict[UUID, set[tuple[int | None, str, int]]] = field(
        default_factory=dict[UUID, set[tuple[int | None, str, int]]]
    )
    """Of each command: the (position, outcome, code) of its results, each once."""
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    replayed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Events that an operator's run sent again."""
    state: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class _Stored:
    """What the tables hold."""

    head: int = 0
    gaps: list[Gap] = field(default_factory=list[Gap])
    journal: dict[int, JournaledOutcome] = field(default_factory=dict[int, JournaledOutcome])
    organizations: dict[str, Any] = field(default_factory=dict[str, Any])
    parked_commands: set[UUID] = field(default_factory=set[UUID])
    parked_unreadable: set[Coordinates] = field(default_factory=set[Coordinates])
    parked_open: int = 0


async def check(settings: Settings) -> Accounts:
    """Compare everything with everything. Call it when the pipeline is idle (`progress.behind`).

    What was published at positions in a known gap of the journal is left out: an operator gave it up. Not so the
    state that it left behind, which differs until the organization changes again.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError, StopError: A topic does not exist; the journal has an unknown hole.
    """
    published = await _read_topics(settings.kafka)
    stored = await _read_tables(settings)
    _leave_out_gaps(published, stored)
    differences = [
        *_outcomes(published, stored),
        *_parked(published, stored),
        *_events(published, stored),
        *_histories(published),
        *_state(published, stored),
    ]
    return Accounts(
        commands=len(published.commands),
        outcomes=len(published.outcomes),
        events=len(published.events),
        parked=stored.parked_open,
        differences=_shortened(differences),
    )


async def _read_topics(kafka: KafkaSettings) -> _OnTopics:
    topics, found = kafka.topics, _OnTopics()
    async for record in _records(kafka, topics.commands):
        command_id = _command_id(record)
        if command_id is None:
            found.unreadable.add((record.topic, record.partition, record.offset))
        else:
            found.commands.add(command_id)
    async for record in _records(kafka, topics.results):
        body = orjson.loads(record.value or b"")
        known = found.outcomes.setdefault(UUID(body["command_id"]), set())
        known.add((body["position"], body["outcome"], body["code"]))
    # Where the topics grew, what is old of an organization is on the partition with the lower number.
    events: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    async for record in _records(kafka, topics.events):
        body = orjson.loads(record.value or b"")
        headers = dict(record.headers)
        body["type"] = (headers["ce_type"] or b"").decode()
        (found.replayed if RUN_HEADER in headers else events[record.partition]).append(body)
    found.events += chain.from_iterable(events[partition] for partition in sorted(events))
    partitions = await count_partitions(kafka, topics.state) or 1
    async for record in _records(kafka, topics.state):
        if partition_for(record.key or b"", partitions) != record.partition:
            continue  # left behind when the topics grew
        key = (record.key or b"").decode()
        if record.value is None:
            found.state.pop(key, None)
        else:
            found.state[key] = orjson.loads(record.value)
    return found


async def _records(kafka: KafkaSettings, topic: str) -> AsyncIterator[Record]:
    async for records in read_all(kafka, topic):
        for record in records:
            yield record


def _command_id(record: Record) -> UUID | None:
    """The id that makes a record answerable; None for one that can only be parked."""
    try:
        text = cloudevents.read(record.headers, record.value).id
    except NotACloudEvent as error:
        text = error.event_id or ""
    try:
        command_id = UUID(text)
    except ValueError:
        return None
    return command_id if str(command_id) == text.lower() else None


async def _read_tables(settings: Settings) -> _Stored:
    stored = _Stored()
    database = Database(settings.database, "reader", direct=True)
    async with database.connect() as conn:
        stored.head = await journal.read_head(conn)
        stored.gaps = await journal.read_gaps(conn)
        position = 0
        while rows := await journal.read_after(conn, position, PAGE_ROWS):
            stored.journal.update((row.position, row) for row in rows)
            position = rows[-1].position
        after: UUID | None = None
        while page := await organizations.list_by_id(conn, PAGE_ROWS, after):
            after = page[-1].id
            present = (each for each in page if each.deleted_at is None)
            stored.organizations.update((str(each.id), orjson.loads(to_json(each))) for each in present)
        after_id = 0
        while records := await parked_queues.list_records(conn, ParkedFilter(), after_id, PAGE_ROWS):
            after_id = records[-1].id
            for record in records:
                _add_parked(stored, record)
    return stored


def _add_parked(stored: _Stored, record: ParkedRecord) -> None:
    stored.parked_open += record.state == ParkedState.OPEN
    if record.command_id is None:
        stored.parked_unreadable.add((record.topic, record.partition, record.offset))
    else:
        stored.parked_commands.add(record.command_id)


def _leave_out_gaps(published: _OnTopics, stored: _Stored) -> None:
    def given_up(position: int | None) -> bool:
        return position is not None and any(gap.holds(position) for gap in stored.gaps)

    for events in (published.events, published.replayed):
        events[:] = [event for event in events if not given_up(event["position"])]
    # A command that was sent again afterwards counts as any other.
    here = stored.parked_commands.union(row.command_id for row in stored.journal.values())
    for command_id, results in list(published.outcomes.items()):
        kept = {result for result in results if not given_up(result[0])}
        if kept != results and command_id not in here:
            published.commands.discard(command_id)
            kept.clear()
        if kept:
            published.outcomes[command_id] = kept
        else:
            del published.outcomes[command_id]


def _outcomes(published: _OnTopics, stored: _Stored) -> Iterable[str]:
    """Every command has one outcome, decided once, published as it was decided."""
    given_up = sum(gap.last_position - gap.first_position + 1 for gap in stored.gaps)
    if len(stored.journal) + given_up != stored.head:
        yield f"journal: {len(stored.journal)} rows and {given_up} given up, but its head is {stored.head}"
    decided = {row.command_id for row in stored.journal.values()}
    for command_id in published.commands - decided - stored.parked_commands:
        yield f"no outcome: command {command_id}"
    erasures = {row.command_id for row in stored.journal.values() if row.event_type == EventType.ERASED}
    for command_id in (decided | stored.parked_commands) - published.commands - erasures:
        yield f"never sent: command {command_id}, which has an outcome"
    for command_id in stored.parked_commands - set(published.outcomes):
        yield f"not published: command {command_id} is parked"
    for row in stored.journal.values():
        results = published.outcomes.get(row.command_id, set())
        if (row.position, row.outcome, row.code) not in results:
            yield f"not published: outcome of command {row.command_id} at position {row.position}"
    at = {row.command_id: row.position for row in stored.journal.values()}
    for command_id, results in published.outcomes.items():
        # A result without a position is of a parked command, or tells that the id was used for another payload.
        positions = {position for position, *_ in results if position is not None}
        if positions - {at.get(command_id)}:
            yield f"published, never decided: command {command_id} at positions {sorted(positions)}"


def _parked(published: _OnTopics, stored: _Stored) -> Iterable[str]:
    """Records that nobody can be answered for are parked, and no others are as such."""
    for topic, partition, offset in published.unreadable - stored.parked_unreadable:
        yield f"lost: the unreadable record {topic}[{partition}] offset {offset} is not parked"
    for topic, partition, offset in stored.parked_unreadable - published.unreadable:
        yield f"parked, though readable: {topic}[{partition}] offset {offset}"


def _events(published: _OnTopics, stored: _Stored) -> Iterable[str]:
    """Every applied command has one event, which says what the journal says; so does what was sent again."""
    times = Counter(int(event["position"]) for event in published.events)
    for position, count in times.items():
        if count > 1:
            yield f"published {count} times: the event at position {position}"
    applied = {position: row for position, row in stored.journal.items() if row.event_type is not None}
    for position in applied.keys() - times.keys():
        yield f"no event: position {position}"
    for event in (*published.events, *published.replayed):
        row = applied.get(event["position"])
        if row is None:
            yield f"an event without a change: position {event['position']}"
        elif not _is_emptied(row) and _said(event) != _meant(row):
            yield f"a different event than decided: position {event['position']}"


def _is_emptied(row: JournaledOutcome) -> bool:
    """Whether the organization was erased since, and what the change was with it."""
    return row.before is None and row.after is None and row.event_type != EventType.ERASED


def _said(event: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("org_id", "version", "type", "command_id", "actor", "changed", "before", "after")
    return tuple(event[name] for name in names)


def _meant(row: JournaledOutcome) -> tuple[Any, ...]:
    changed, before, after = (
        None if text is None else orjson.loads(text) for text in (row.changed, row.before, row.after)
    )
    return str(row.org_id), row.version, row.event_type, str(row.command_id), row.actor, changed, before, after


def _histories(published: _OnTopics) -> Iterable[str]:
    """Each organization's events, in the order of the topic, have versions without a gap and fit each other."""
    last: dict[str, tuple[int, Any]] = {}
    for event in published.events:
        version, after = last.get(event["org_id"], (0, None))
        if event["version"] != version + 1:
            yield f"out of order: organization {event['org_id']} has version {event['version']} after {version}"
        elif event["before"] != after:
            yield f"does not follow: organization {event['org_id']} version {event['version']}"
        last[event["org_id"]] = event["version"], event["after"]


def _state(published: _OnTopics, stored: _Stored) -> Iterable[str]:
    """The state topic folds to the organizations in the tables."""
    for org_id in published.state.keys() | stored.organizations.keys():
        if published.state.get(org_id) != stored.organizations.get(org_id):
            yield f"state differs: organization {org_id} on the state topic and in the table"


def _shortened(differences: Iterable[str]) -> list[str]:
    """At most `DIFFERENCES_SHOWN_MAX` of each kind, which is what stands before the colon."""
    kinds: Counter[str] = Counter()
    shown: list[str] = []
    for difference in differences:
        kind = difference.partition(":")[0]
        kinds[kind] += 1
        if kinds[kind] <= DIFFERENCES_SHOWN_MAX:
            shown.append(difference)
    more = (f"{kind}: {n - DIFFERENCES_SHOWN_MAX} more" for kind, n in kinds.items() if n > DIFFERENCES_SHOWN_MAX)
    return [*shown, *more]
