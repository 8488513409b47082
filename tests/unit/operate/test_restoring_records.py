"""What the relay makes of a journal row, read back: the row, byte for byte."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import orjson
import pytest
from structlog.testing import capture_logs

from org_events.kafka.batches import UnreadBatch, WholeBatch
from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import PartitionUnreadableError
from org_service.kafka.client import TopicPartition
from org_service.kafka.record_batches import RecordBatch
from org_service.kafka.whole_batches import Unopened
from org_service.operate.restoring.records import (
    Outcome,
    Window,
    glimpse_results,
    glimpse_states,
    read_events,
    read_outcome,
    read_results,
    read_states,
)
from org_service.wire.changes import RUN_HEADER, encode

AT = TopicPartition("orgs.events", 3)
ALL = Window(0, 100)
COMMAND, ORG = UUID(int=1), UUID(int=2)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MOMENT = datetime(2026, 3, 1, 12, 0, 0, 120, tzinfo=UTC)
AWKWARD = '},"after":null,"command_id":"x","position":7,"final":true} \\ \n é \u2028'
"""As a name or a line of an address: it looks like what comes behind it."""


class Sent(NamedTuple):
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    key: bytes | None = str(ORG).encode()
    timestamp: int = 1_772_366_400_000


def text(name: str) -> str:
    return orjson.dumps({"id": str(ORG), "name": name, "deactivated": False}).decode()


def row(**other: object) -> JournaledOutcome:
    made = JournaledOutcome(
        position=5,
        command_id=COMMAND,
        org_id=ORG,
        version=2,
        event_type="org.updated",
        outcome="applied",
        code=200,
        actor="ann",
        changed='["name","primary_address"]',
        before=text("Acme"),
        after=text("Acme, too"),
        problem=None,
        traceparent=TRACE,
        recorded_at=MOMENT,
    )
    return made._replace(**other)


def event(of: JournaledOutcome) -> Sent:
    encoded = encode(of).event
    assert encoded is not None
    return Sent(0, encoded[0], list(encoded[1]))


def result(of: JournaledOutcome) -> Sent:
    body, headers = encode(of).result
    return Sent(0, body, list(headers))


def as_text(of: JournaledOutcome) -> tuple[object, ...]:
    return tuple(str(each) if isinstance(each, UUID) else each for each in of)


@pytest.mark.parametrize(
    "changed",
    [
        row(),
        row(before=None, event_type="org.created", version=1),
        row(after=None, event_type="org.deleted", changed="[]", actor=None, traceparent=None),
        row(before=None, after=None, event_type="org.erased", changed="[]", actor=None),
        row(before=text(AWKWARD), after=text(AWKWARD * 2), actor=AWKWARD),
        # Not as our encoder writes it: it stays as it is all the same.
        row(before='{"name": "Acme" , "x": [1.50, "\\u00e9"]}'),
    ],
)
def test_an_event_says_all_of_its_row_byte_for_byte(changed: JournaledOutcome) -> None:
    [read] = read_events(AT, [event(changed)], ALL)
    assert dict(zip(changed._fields, as_text(changed), strict=True)) == read._asdict()


def test_an_event_that_was_written_again_by_another_encoder_is_parsed() -> None:
    sent = event(row(actor=AWKWARD))
    spaced = orjson.dumps(orjson.loads(sent.value or b""), option=orjson.OPT_INDENT_2)
    assert list(read_events(AT, [sent._replace(value=spaced)], ALL)) == list(read_events(AT, [sent], ALL))


def test_only_positions_of_the_window_are_read_and_no_replay() -> None:
    replayed = event(row())
    replayed.headers.append((RUN_HEADER, b"a run"))
    assert list(read_events(AT, [event(row(position=4)), event(row(position=6)), replayed], Window(4, 5))) == []
    assert list(read_results(AT, [result(row(position=4)), result(row(position=6))], Window(4, 5))) == []


def test_a_result_gives_its_position_and_on_demand_all_that_it_says() -> None:
    problem = orjson.dumps({"type": "urn:orgs:problem:name-taken", "detail": AWKWARD}).decode()
    rejected = row(event_type=None, outcome="rejected", code=409, changed=None, before=None, after=None, actor=None)
    rejected = rejected._replace(problem=problem)
    [found] = read_results(AT, [result(rejected)], ALL)
    assert isinstance(found, Outcome)
    assert found.position == 5
    assert read_outcome(found.record)._asdict() == dict(zip(rejected._fields, as_text(rejected), strict=True))


def whole(sent: Sequence[Sent]) -> Unopened:
    """A batch of them, as it stands in the log."""
    batch = RecordBatch()
    for offset, each in enumerate(sent):
        headers = [(name, content or b"") for name, content in each.headers]
        assert batch.add(offset, each.timestamp, each.key, each.value, headers) is not None
    content = WholeBatch(batch.build(-1, -1, -1))
    content.base_offset, content.records = 0, len(sent)
    return Unopened(AT, len(sent) - 1, content)


def state(of: JournaledOutcome) -> Sent:
    encoded = encode(of).state
    assert encoded is not None
    return Sent(0, encoded[0], list(encoded[1]))


@pytest.mark.parametrize("position", [7, 42, 99_999, 12_345_678_901])
def test_a_glimpse_sees_all_positions_of_a_batch_that_the_relay_wrote(position: int) -> None:
    rows = [row(position=position), row(position=position + 1, after=None, event_type="org.deleted")]
    for glimpse in (glimpse_results(whole(list(map(result, rows)))), glimpse_states(whole(list(map(state, rows))))):
        assert glimpse.positions == [position, position + 1]
        assert glimpse.whole


def test_a_glimpse_does_not_take_what_is_written_otherwise_for_all() -> None:
    spaced = result(row())._replace(value=b'{"position" : 6, "problem": null, "final": true}')
    assert not glimpse_results(whole([result(row()), spaced])).whole
    assert not glimpse_states(whole([state(row()), Sent(0, b"{}", [])])).whole
    unread = UnreadBatch(b'"position":5,"problem":')
    assert not glimpse_results(Unopened(AT, 0, unread)).whole


def test_what_somebody_else_wrote_is_left_out_and_said() -> None:
    foreign = Sent(7, b'{"position":5}', [("ce_source", b"/x")])
    with capture_logs() as logs:
        assert list(read_events(AT, [foreign], ALL)) == []
        assert list(read_results(AT, [foreign], ALL)) == []
        assert list(read_states(AT, [foreign], 100)) == []
    assert [(each["log_level"], each["offset"]) for each in logs] == [("warning", 7)] * 3


def test_a_broken_batch_is_not_taken_for_somebody_elses() -> None:
    batch = UnreadBatch(b"...")
    batch.why, batch.first_offset, batch.records = "its records overlap", 7, 3
    with pytest.raises(PartitionUnreadableError, match=r"orgs\.events, partition 3: the batch at offset 7"):
        list(read_events(AT, [Sent(7, batch, [])], ALL))
