"""The checker over a history that is exact, and over the same history with one thing wrong at a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.support.checker import judge
from tests.support.exact_history import NOON, ExactHistory
from tests.support.observed import JournaledOutcome, Observed, Record
from tests.support.published import Published

A, B, C = (str(UUID(int=number)) for number in (10, 11, 12))


@pytest.fixture
def history() -> ExactHistory:
    it = ExactHistory()
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


def test_an_exact_history_passes_and_reports_what_was_checked(history: ExactHistory) -> None:
    findings = judge(history.observed, history.published)
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


def _header(records: list[Record], place: int, name: str, content: bytes | None) -> None:
    """Change a header, or leave it out."""
    kept = tuple(header for header in records[place].headers if header[0] != name)
    records[place] = replace(records[place], headers=kept if content is None else (*kept, (name, content)))


def _twice(rows: list[JournaledOutcome]) -> None:
    rows.append(rows[-1])


def _repeat(records: list[Record], place: int, **changed: Any) -> None:
    records.insert(place + 1, replace(records[place], offset=1000, **changed))


def _all_in_one_partition(records: list[Record]) -> None:
    records[:] = [replace(record, partition=0) for record in records]


def _tombstone(records: list[Record]) -> int:
    return next(place for place, record in enumerate(records) if record.value is None)


def _copy(records: list[Record]) -> int:
    """The worker's own, that a duplicate got."""
    return next(n for n, record in enumerate(records) if record.marker is None and record.headers)


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
    ("the relay published a result again", lambda it: _repeat(it.results, 0)),
    ("the relay published a result again", lambda it: _repeat(it.results, _copy(it.results), marker=1002)),
    ("a command published once has several results", lambda it: _repeat(it.results, 0, marker=None)),
    ("a duplicate got no result", lambda it: it.results.pop(_copy(it.results))),
    ("copies of a result differ", lambda it: _body(it.results, 4, code=201)),
    ("a result is not what the journal says", lambda it: _body(it.results, 0, version=7)),
    ("a result stands for no journaled command", lambda it: _body(it.results, 0, command_id=str(UUID(int=77)))),
    ("a result has the wrong key", lambda it: _record(it.results, 0, key=B.encode())),
    ("a result has the wrong key", lambda it: _record(it.results, _copy(it.results), key=B.encode())),
    ("a result's headers are wrong", lambda it: _header(it.results, 0, "ce_id", b"another")),
    ("a result's headers are wrong", lambda it: _header(it.results, _copy(it.results), "ce_time", None)),
    ("a rejection of a reused id is malformed", lambda it: _record(it.results, 5, marker=1002)),
    ("a record is not in the partition of its key", lambda it: _record(it.results, 0, partition=99)),
    ("a record is not in the partition of its key", lambda it: _record(it.results, 5, partition=99)),
    ("a record is not in the partition of its key", lambda it: _all_in_one_partition(it.results)),
    ("results of one organization are not in order of position", lambda it: _swap(it.results, A)),
    ("a reused command id was not rejected", lambda it: it.results.pop(5)),
    ("a published body lacks members, or has others", lambda it: _body(it.results, 0, extra=1)),
    ("a published body is no JSON", lambda it: _record(it.results, 0, value=b"{")),
    ("a change has no event", lambda it: it.events.pop(1)),
    ("an event stands for no change, or for one that has its event", lambda it: _repeat(it.events, 1)),
    ("versions have a gap or are not in order", lambda it: _swap(it.events, A)),
    ("an event does not go on from the one before", lambda it: _body(it.events, 2, before=None)),
    ("an event is not what the journal says", lambda it: _body(it.events, 2, version=9)),
    ("the events do not fold to the oracle's organizations", lambda it: _body(it.events, -1, after=None)),
    ("an event is not what the journal says", lambda it: _body(it.events, 0, actor="mallory")),
    ("an event is not what the journal says", lambda it: _body(it.events, 0, recorded_at="1970-01-01T00:00:00Z")),
    ("an event's headers are wrong", lambda it: _record(it.events, 0, headers=())),
    ("an event's headers are wrong", lambda it: _header(it.events, 0, "ce_actor", b"mallory")),
    ("an event's headers are wrong", lambda it: _header(it.events, 0, "traceparent", None)),
    (
        "an event is in another partition than its command, or has the wrong key",
        lambda it: _record(it.events, 0, key=C.encode()),
    ),
    ("a record is not in the partition of its key", lambda it: _record(it.events, 0, partition=99)),
    ("the journal names another actor or trace", lambda it: _row(it, 1, actor="mallory")),
    ("the journal names another actor or trace", lambda it: _row(it, 1, traceparent=None)),
    ("the state topic does not fold to the oracle's", lambda it: it.state.pop()),
    ("the state of an organization went back", lambda it: _swap(it.state, A)),
    ("a record is not in the partition of its key", lambda it: _all_in_one_partition(it.state)),
    ("a state record stands for no change, or for one that has its record", lambda it: _repeat(it.state, 0)),
    (
        "a state record stands for no change, or for one that has its record",
        lambda it: _repeat(it.state, _tombstone(it.state)),
    ),
    (
        "a state record stands for no change, or for one that has its record",
        lambda it: _header(it.state, 0, "ce_position", b"99"),
    ),
    ("a change has no state record", lambda it: it.state.pop(2)),
    ("a change has no state record", lambda it: it.state.pop(_tombstone(it.state))),
    ("a state record is not what the journal says", lambda it: _body(it.state, 0, name="Other")),
    ("a state record is not what the journal says", lambda it: _record(it.state, 0, value=None)),
    ("a state record is not what the journal says", lambda it: _record(it.state, _tombstone(it.state), value=b"null")),
    ("a state record's headers are wrong", lambda it: _header(it.state, 0, "ce_orgversion", b"7")),
    ("a state record's headers are wrong", lambda it: _header(it.state, 0, "content-type", None)),
    (
        "a state record is in another partition than its command, or has the wrong key",
        lambda it: _record(it.state, 0, key=C.encode()),
    ),
    ("a state record is malformed", lambda it: _body(it.state, 0, colour="red")),
    ("deactivated and deactivated_at disagree", lambda it: _body(it.state, -1, deactivated_at=None)),
    ("state topic and table hold other organizations", lambda it: it.state.append(replace(it.state[0], value=None))),
    ("state topic and table have other times", lambda it: it.organizations[A].update(updated_at=NOON)),
    ("the table holds other organizations than the oracle", lambda it: it.organizations.pop(A)),
    ("a row is not the oracle's", lambda it: it.organizations[A].update(name_key="acme")),
    ("an unreadable record was dropped in silence", lambda it: it.parked.clear()),
    ("a record was parked that should not be", lambda it: it.parked[0].update(reason="data_refused")),
    ("the relay stands elsewhere than the head", lambda it: it.relay.pop()),
    ("the relay's position did not grow", lambda it: it.relay.reverse()),
    ("the relay's position did not grow", lambda it: _repeat(it.relay, 1, marker=4_444)),
    ("the relay's position names another row, or has another key", lambda it: _record(it.relay, 2, key=b"other")),
    (
        "the relay's position names another row, or has another key",
        lambda it: _body(it.relay, 2, command_id=str(UUID(int=77))),
    ),
    (
        "the relay's position names another row, or has another key",
        lambda it: _body(it.relay, 2, recorded_at="1970-01-01T00:00:00Z"),
    ),
    ("the relay's position names another row, or has another key", lambda it: _body(it.relay, -1, position=99)),
    ("a position is not that of the last row of a transaction", lambda it: it.relay.pop(1)),
    ("a position is not that of the last row of a transaction", lambda it: _body(it.relay, 1, position=2)),
    ("a position is not that of the last row of a transaction", lambda it: _record(it.events, 3, marker=1001)),
    ("the relay published outside a transaction", lambda it: _record(it.events, 0, marker=None)),
    ("the relay published outside a transaction", lambda it: _record(it.relay, 0, marker=None)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), SPOILS, ids=[f"{number} {row[0]}" for number, row in enumerate(SPOILS)])
def test_a_single_error_is_found(history: ExactHistory, kind: str, spoil: Callable[[Observed], object]) -> None:
    spoil(history.observed)
    findings = judge(history.observed, history.published)
    assert kind in findings.differences, findings.text()


def test_a_command_that_was_never_published_is_found(history: ExactHistory) -> None:
    assert "a command in the log was published by nobody" in judge(history.observed, history.published[1:]).differences


def test_an_unacknowledged_command_may_be_in_the_log_or_not(history: ExactHistory) -> None:
    history.published[0] = replace(history.published[0], partition=None, offset=None)
    history.published.append(Published(str(UUID(int=99)), A, "org.update", 99, "{}", None, None))
    assert judge(history.observed, history.published).ok


def test_a_publisher_whose_order_was_changed_is_found(history: ExactHistory) -> None:
    history.published[3], history.published[0] = (
        replace(history.published[3], sequence=1),
        replace(history.published[0], sequence=4),
    )
    history.published.sort(key=lambda entry: entry.sequence)
    assert (
        "commands of one organization are not in their publisher's order"
        in judge(history.observed, history.published).differences
    )


def test_positions_out_of_partition_order_are_found(history: ExactHistory) -> None:
    rows = history.observed.journal
    first, second = [number for number, row in enumerate(rows) if row.org_id == A][2:4]
    rows[first], rows[second] = (
        replace(rows[second], position=rows[first].position),
        replace(rows[first], position=rows[second].position),
    )
    assert "an organization's positions are not in partition order" in judge(history.observed).differences


def test_an_extra_copy_is_found_if_the_number_of_deliveries_is_known(history: ExactHistory) -> None:
    copy = _copy(history.observed.results)
    assert judge(history.observed, history.published, deliveries_max=1).ok
    _repeat(history.observed.results, copy)
    assert judge(history.observed, history.published, deliveries_max=2).ok
    assert judge(history.observed, history.published).ok
    assert "a duplicate got its result too often" in judge(history.observed, deliveries_max=1).differences
