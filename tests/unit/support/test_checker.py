"""The checker over a story that is exact, and over the same story with one thing wrong at a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from org_events.cloudevents import EVENT_ID_NAMESPACE
from org_events.topics import partition_for
from tests.support.checker import judge
from tests.support.field_rules import name_key
from tests.support.observed import JournalRow, Observed, Record
from tests.support.oracle import Expected, Oracle
from tests.support.published import Published

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
A, B, C = (str(UUID(int=number)) for number in (10, 11, 12))


class Story:
    """A faithful service in memory: takes commands one at a time and publishes what became of each."""

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.observed = Observed()
        self.published: list[Published] = []
        self.created: dict[str, datetime] = {}
        self.updated: dict[str, datetime] = {}
        self.deactivated: dict[str, datetime] = {}
        self.last: dict[str, dict[str, Any] | None] = {}
        self.results: dict[str, Record] = {}

    def send(self, number: int, command_type: str, org_id: str, /, *, readable: bool = True, **body: Any) -> None:
        value = json.dumps({"org_id": org_id, **body}).encode()
        command_id = str(UUID(int=number))
        headers = (("ce_id", command_id.encode() if readable else b"?"), ("ce_type", command_type.encode()))
        record = self._append(self.observed.commands, "commands", org_id.encode(), value, headers)
        sequence = sum(entry.org_id == org_id for entry in self.published) + 1
        known = command_id if readable else None
        self.published.append(
            Published(known, org_id, command_type, sequence, value.decode(), record.partition, record.offset)
        )
        expected = self.oracle.expect(record.key, headers, value)
        if expected.kind == "first":
            self._journal(record, expected)
        elif expected.kind == "duplicate":
            first = self.results[command_id]
            self._append(self.observed.results, "results", first.key, first.value, ())
        elif expected.kind == "reused":
            refusal = {"command_id": command_id, "org_id": org_id, "outcome": "rejected", "code": 422, "version": None}
            refusal |= {"organization": None, "position": None, "final": True, "problem": {"type": expected.problem}}
            self._append(self.observed.results, "results", record.key, json.dumps(refusal).encode(), ())
        else:
            place = {"partition": record.partition, "offset": record.offset, "reason": "unreadable"}
            self.observed.parked.append(place)

    def _journal(self, record: Record, expected: Expected) -> None:
        position = self.observed.head = self.observed.head + 1
        now = NOON + timedelta(seconds=position)
        org_id = expected.org_id or ""
        before, after = None, self.last.get(org_id) if expected.outcome == "unchanged" else None
        event = expected.event
        if event is not None:
            before, after = self.last.get(org_id), self._whole(org_id, event.after, now)
            self.last[org_id] = after
        problem = None
        if expected.problem:
            problem = {"type": expected.problem, "errors": [{"path": path} for path in expected.wrong_fields]}
        row = JournalRow(
            position=position,
            command_id=expected.command_id or "",
            org_id=expected.org_id,
            version=expected.version,
            event_type=event.type if event else None,
            outcome=expected.outcome,
            code=expected.code,
            command_partition=record.partition,
            command_offset=record.offset,
            changed=json.dumps(event.changed) if event else None,
            before=json.dumps(before) if before else None,
            after=json.dumps(after) if after else None,
            problem=json.dumps(problem) if problem else None,
            recorded_at=now,
        )
        self.observed.journal.append(row)
        self._publish(row, before, after, problem)
        self._write_table()

    def _whole(self, org_id: str, after: dict[str, Any] | None, now: datetime) -> dict[str, Any] | None:
        self.updated[org_id] = now
        if after is None:
            return None
        created = self.created.setdefault(org_id, now)
        deactivated = self.deactivated.setdefault(org_id, now) if after["deactivated"] else None
        times = {"created_at": created, "updated_at": now, "deactivated_at": deactivated}
        return after | {name: time.isoformat() if time else None for name, time in times.items()}

    def _publish(
        self, row: JournalRow, before: dict[str, Any] | None, after: dict[str, Any] | None, problem: Any
    ) -> None:
        names = ("command_id", "org_id", "outcome", "code", "version", "position")
        shared = {name: getattr(row, name) for name in names}
        result = shared | {"organization": after, "problem": problem, "final": True}
        key = (row.org_id or row.command_id).encode()
        value = json.dumps(result).encode()
        self.results[row.command_id] = self._append(self.observed.results, "results", key, value, ())
        self._append(self.observed.relay, "relay", b"orgs", json.dumps({"position": row.position}).encode(), ())
        if row.event_type is None:
            return
        event = {name: shared[name] for name in ("org_id", "version", "position", "command_id")}
        event |= {"changed": json.loads(row.changed or ""), "before": before, "after": after}
        event |= {"actor": None, "recorded_at": row.recorded_at.isoformat()}
        headers = {
            "ce_id": str(uuid5(EVENT_ID_NAMESPACE, str(row.position))),
            "ce_type": row.event_type,
            "ce_subject": row.org_id or "",
            "ce_orgversion": str(row.version),
            "ce_position": str(row.position),
            "ce_commandid": row.command_id,
        }
        encoded = tuple((name, content.encode()) for name, content in headers.items())
        self._append(self.observed.events, "events", key, json.dumps(event).encode(), encoded)
        self._append(self.observed.state, "state", key, json.dumps(after).encode() if after else None, ())

    def _write_table(self) -> None:
        for org_id, organization in self.oracle.organizations.items():
            self.observed.organizations[org_id] = {
                "name": organization.name,
                "name_key": None if organization.deleted else name_key(organization.name),
                "domain": organization.domain,
                "primary_address": json.dumps(organization.primary_address) if organization.primary_address else None,
                "created_at": self.created[org_id],
                "updated_at": self.updated[org_id],
                "deactivated_at": self.deactivated[org_id] if organization.deactivated else None,
                "deleted_at": NOON if organization.deleted else None,
                "version": organization.version,
            }

    def _append(
        self,
        log: list[Record],
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...],
    ) -> Record:
        partition = partition_for(key or b"", 3)
        offset = sum(record.partition == partition for record in log)
        record = Record(topic, partition, offset, 0, key, value, headers)
        log.append(record)
        return record


@pytest.fixture
def story() -> Story:
    it = Story()
    it.send(1, "org.create", A, name="Acme", domain="acme.no")
    it.send(2, "org.create", B, name="Bolt", primary_address={"line1": "1 Way", "city": "Oslo", "country": "NO"})
    it.send(3, "org.update", A, name="Bolt")
    it.send(4, "org.update", A, name="New")
    it.send(4, "org.update", A, name="New")
    it.send(4, "org.update", A, name="Other")
    it.send(5, "org.delete", B)
    it.send(6, "org.explode", C)
    it.send(7, "org.create", C, readable=False)
    it.send(8, "org.update", A)
    it.send(9, "org.restore", B)
    it.send(10, "org.deactivate", A)
    it.send(11, "org.update", B, name="", domain="x")
    return it


def test_an_exact_story_passes_and_says_what_it_looked_at(story: Story) -> None:
    findings = judge(story.observed, story.published)
    assert findings.ok, findings.text()
    assert findings.counts == {
        "commands": 13,
        "journaled": 10,
        "applied": 6,
        "duplicates": 1,
        "ids reused": 1,
        "unreadable": 1,
        "results": 12,
        "events": 6,
        "states": 6,
        "organizations": 2,
    }


def _row(observed: Observed, number: int, **changed: Any) -> None:
    place = next(n for n, row in enumerate(observed.journal) if row.command_id == str(UUID(int=number)))
    observed.journal[place] = replace(observed.journal[place], **changed)


def _swap(records: list[Record], key: str) -> None:
    first, second = [number for number, record in enumerate(records) if record.key == key.encode()][:2]
    records[first], records[second] = records[second], records[first]


def _body(records: list[Record], place: int, **changed: Any) -> None:
    body = json.loads(records[place].value or b"") | changed
    records[place] = replace(records[place], value=json.dumps(body).encode())


def _record(records: list[Record], place: int, **changed: Any) -> None:
    records[place] = replace(records[place], **changed)


def _twice(rows: list[JournalRow]) -> None:
    rows.append(rows[-1])


def _repeat(records: list[Record], place: int) -> None:
    records.insert(place + 1, replace(records[place], offset=1000))


NO_ERRORS = json.dumps({"type": "urn:orgs:problem:invalid-fields", "errors": []})
SPOILS: list[tuple[str, Callable[[Observed], object]]] = [
    ("an acknowledged command is not in the log", lambda it: it.commands.pop()),
    ("positions have a gap", lambda it: it.journal.pop(3)),
    ("the head is not the last position", lambda it: setattr(it, "head", 99)),
    ("a command has no outcome", lambda it: it.journal.pop()),
    ("a journal row stands for no record, or for one that has a row already", lambda it: _row(it, 2, command_offset=9)),
    ("a journal row stands for no record, or for one that has a row already", lambda it: _twice(it.journal)),
    ("the journal holds what is no first command", lambda it: _row(it, 2, command_id=str(UUID(int=77)))),
    ("the outcome is not the oracle's", lambda it: _row(it, 3, outcome="applied", code=200)),
    ("the outcome is not the oracle's", lambda it: _row(it, 1, version=2)),
    ("the wrong fields are not the oracle's", lambda it: _row(it, 11, problem=NO_ERRORS)),
    ("the journal names another organization", lambda it: _row(it, 3, org_id=B)),
    ("the organization after a command is not the oracle's", lambda it: _row(it, 1, after=None)),
    ("the journaled change is not the oracle's", lambda it: _row(it, 1, changed='["name"]')),
    ("a journaled command has no result", lambda it: it.results.pop(0)),
    ("a command published once has several results", lambda it: _repeat(it.results, 0)),
    ("a duplicate got no result", lambda it: it.results.pop(4)),
    ("copies of a result differ", lambda it: _body(it.results, 4, code=201)),
    ("a result is not what the journal says", lambda it: _body(it.results, 0, version=7)),
    ("a result stands for no journaled command", lambda it: _body(it.results, 0, command_id=str(UUID(int=77)))),
    ("a result has the wrong key", lambda it: _record(it.results, 0, key=B.encode())),
    ("results of one organization are not in order of position", lambda it: _swap(it.results, A)),
    ("a reused command id was not refused", lambda it: it.results.pop(5)),
    ("a published body lacks members, or has others", lambda it: _body(it.results, 0, extra=1)),
    ("a published body is no JSON", lambda it: _record(it.results, 0, value=b"{")),
    ("a change has no event", lambda it: it.events.pop(1)),
    ("an event stands for no change, or for one that has its event", lambda it: _repeat(it.events, 1)),
    ("versions have a gap or are not in order", lambda it: _swap(it.events, A)),
    ("an event does not go on from the one before", lambda it: _body(it.events, 2, before=None)),
    ("an event is not what the journal says", lambda it: _body(it.events, 2, version=9)),
    ("the events do not fold to the oracle's organizations", lambda it: _body(it.events, -1, after=None)),
    ("an event's headers are wrong", lambda it: _record(it.events, 0, headers=())),
    ("an event is in the wrong partition, or has the wrong key", lambda it: _record(it.events, 0, key=C.encode())),
    ("the state topic does not fold to the oracle's", lambda it: it.state.pop()),
    ("the state of an organization went back", lambda it: _swap(it.state, A)),
    ("a state record is malformed", lambda it: _body(it.state, 0, colour="red")),
    ("deactivated and deactivated_at disagree", lambda it: _body(it.state, -1, deactivated_at=None)),
    ("state topic and table hold other organizations", lambda it: it.state.append(replace(it.state[0], value=None))),
    ("state topic and table have other times", lambda it: it.organizations[A].update(updated_at=NOON)),
    ("the table holds other organizations than the oracle", lambda it: it.organizations.pop(A)),
    ("a row is not the oracle's", lambda it: it.organizations[A].update(name_key="acme")),
    ("an unreadable record was dropped in silence", lambda it: it.parked.clear()),
    ("a record was parked that should not be", lambda it: it.parked[0].update(reason="data_refused")),
    ("the relay stands elsewhere than the head", lambda it: it.relay.pop()),
    ("the relay's position went back", lambda it: it.relay.reverse()),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), SPOILS, ids=[f"{number} {row[0]}" for number, row in enumerate(SPOILS)])
def test_one_thing_wrong_is_found(story: Story, kind: str, spoil: Callable[[Observed], object]) -> None:
    spoil(story.observed)
    findings = judge(story.observed, story.published)
    assert kind in findings.differences, findings.text()


def test_a_command_nobody_published_is_found(story: Story) -> None:
    assert "a command in the log was published by nobody" in judge(story.observed, story.published[1:]).differences


def test_an_unacknowledged_command_may_be_in_the_log_or_not(story: Story) -> None:
    story.published[0] = replace(story.published[0], partition=None, offset=None)
    story.published.append(Published(str(UUID(int=99)), A, "org.update", 99, "{}", None, None))
    assert judge(story.observed, story.published).ok


def test_a_publisher_whose_order_was_changed_is_found(story: Story) -> None:
    story.published[3], story.published[0] = (
        replace(story.published[3], sequence=1),
        replace(story.published[0], sequence=4),
    )
    story.published.sort(key=lambda entry: entry.sequence)
    assert (
        "commands of one organization are not in their publisher's order"
        in judge(story.observed, story.published).differences
    )


def test_positions_out_of_partition_order_are_found(story: Story) -> None:
    rows = story.observed.journal
    first, second = [number for number, row in enumerate(rows) if row.org_id == A][2:4]
    rows[first], rows[second] = (
        replace(rows[second], position=rows[first].position),
        replace(rows[first], position=rows[second].position),
    )
    assert "an organization's positions are not in partition order" in judge(story.observed).differences
