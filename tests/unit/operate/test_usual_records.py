"""What is digested where it stands in a batch comes to the same as records that are taken apart."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from org_events.kafka.batches import WholeBatch
from org_events.kafka.whole import open_batch
from org_service.domain.digests import WINDOW, Digest, fold
from org_service.domain.outcomes import JournaledOutcome
from org_service.kafka.record_batches import RecordBatch
from org_service.operate.verifying.logs import Log, LogScan, scan_records, scan_rest
from org_service.operate.verifying.rows import digest_of
from org_service.operate.verifying.usual import count_usual, digest_usual
from org_service.wire.changes import RUN_HEADER, encode
from tests.support.raw_batches import Raw, framed, record, varint
from tests.support.relaying import org, organization

Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
LOGS: Final[tuple[Log, ...]] = ("events", "results")
THROUGH: Final = 3 * WINDOW
TIME: Final = datetime(2026, 3, 1, 12, 0, 0, 120000, UTC)
NOBODY: Final = {"org_id": None, "version": None, "event_type": None, "outcome": "rejected", "code": 400, "after": None}


def row(position: int, **others: Any) -> JournaledOutcome:
    given: dict[str, Any] = {
        "position": position,
        "command_id": uuid.UUID(int=position),
        "org_id": org(position % 7),
        "version": position,
        "event_type": "org.updated",
        "outcome": "applied",
        "code": 200,
        "actor": "alice",
        "changed": '["name"]',
        "before": organization(org(position % 7), position),
        "after": organization(org(position % 7), position + 1),
        "problem": None,
        "traceparent": None,
        "recorded_at": TIME,
    }
    return JournaledOutcome(**given | others)


def record_of(made_of: JournaledOutcome, log: Log) -> Record:
    records = encode(made_of)
    value, headers = (records.event or (None, [])) if log == "events" else records.result
    return records.key, value, headers


def whole(records: list[Record], base_offset: int = 40) -> WholeBatch:
    batch = RecordBatch()
    for key, value, headers in records:
        assert batch.add(batch.records, 1_750_000_000_000, key, value, headers) is not None
        batch.records += 1
    built = batch.build(7, 0, 0)
    built[:8] = base_offset.to_bytes(8, "big")
    made = WholeBatch(built)
    made.base_offset = base_offset
    return made


def usual(scan: LogScan, log: Log, batch: WholeBatch, asked: tuple[int, int, bytes | None] = (0, THROUGH, None)) -> int:
    records = count_usual(batch, 0)
    done = digest_usual(scan, log, 3, batch, records, asked) if records else 0
    if not records or done < records:
        scan_rest(scan, log, 3, open_batch(batch), asked, done)
    return done


def apart(
    scan: LogScan, log: Log, batch: WholeBatch, asked: tuple[int, int, bytes | None] = (0, THROUGH, None)
) -> None:
    scan_records(scan, log, 3, open_batch(batch), asked)


def empty() -> LogScan:
    return LogScan(seen=bytearray((THROUGH >> 3) + 1))


SOUND: Final = [
    row(1),
    row(
        2, actor='Zo\u00eb "the\\boss"\u2028\x01', traceparent="00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01"
    ),
    row(3, after=None, event_type="org.deleted"),
    row(4, before=None, event_type="org.created", actor=None),
    row(WINDOW, changed=None),
    row(WINDOW + 1),
    row(2 * WINDOW + 1, after=organization(org(2), 1, "n" * 3000)),
    row(9),
]


@pytest.mark.parametrize("log", LOGS)
def test_what_the_relay_writes_is_usual_and_comes_to_what_the_journal_says(log: Log) -> None:
    rows = [*SOUND, row(8, **NOBODY)] if log == "results" else SOUND
    scan = empty()
    assert usual(scan, log, whole([record_of(each, log) for each in rows])) == len(rows)
    for window in range(3):
        digests = [digest_of(each, log) or b"" for each in rows if (each.position - 1) // WINDOW == window]
        assert scan.digests[window] == fold(digests)
    assert (scan.records, scan.strange, scan.repeats) == (len(rows), [], {})


def changed(change: Callable[[bytes, bytes, list[tuple[str, bytes]]], Record]) -> Callable[[Log], Record]:
    def make(log: Log) -> Record:
        key, value, headers = record_of(row(5), log)
        assert key is not None
        assert value is not None
        return change(key, value, headers)

    return make


OWN_TYPE: Final = b"\x0ece_type\x16org.updated"
ODD: Final[dict[str, Callable[[Log], Record]]] = {
    "a tombstone": changed(lambda key, _, headers: (key, None, headers)),
    "without a key": changed(lambda _, value, headers: (None, value, headers)),
    "another key": changed(lambda _, value, headers: (str(org(6)).encode(), value, headers)),
    "a key that is no id": changed(lambda _, value, headers: (b"x" * 36, value, headers)),
    "a short key": changed(lambda _, value, headers: (b"key", value, headers)),
    "not JSON": changed(lambda key, _, headers: (key, b"\xff\x00{", headers)),
    "an empty body": changed(lambda key, _, headers: (key, b"", headers)),
    "without a position": changed(lambda key, value, headers: (key, value.replace(b'"position"', b'"p"'), headers)),
    "position null": changed(lambda key, v, headers: (key, v.replace(b'"position":5', b'"position":null'), headers)),
    "a position with a sign": changed(lambda key, v, h: (key, v.replace(b'"position":5', b'"position":-5'), h)),
    "a body that was changed": changed(lambda key, value, headers: (key, value.replace(b"Acme", b"Acne"), headers)),
    "no headers": changed(lambda key, value, _: (key, value, [])),
    "headers in another order": changed(lambda key, value, headers: (key, value, headers[::-1])),
    "another type": changed(lambda key, value, headers: (key, value, [headers[0], ("ce_type", b"x"), *headers[2:]])),
    "a type of another name": changed(lambda key, v, h: (key, v, [h[0], ("ce_typo", h[1][1]), *h[2:]])),
    "a type inside of a header": changed(lambda key, v, _: (key, v, [("x", b"." * 40 + OWN_TYPE)])),
    "replayed": changed(lambda key, value, headers: (key, value, [*headers, (RUN_HEADER, b"0190")])),
    "a name that says it was": changed(lambda key, v, h: (key, v.replace(b"Acme", RUN_HEADER.encode()), h)),
    "long": changed(lambda key, value, headers: (key, value.replace(b"Acme", b"A" * 20_000), headers)),
    "a repeat": lambda log: record_of(row(2), log),
    "a position that was skipped": lambda log: record_of(row(6), log),
    "a position before all that is asked for": lambda log: record_of(row(1), log),
    "a later position": lambda log: record_of(row(THROUGH + 1), log),
}  # fmt: skip


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("odd", ODD)
def test_what_is_not_usual_comes_to_the_same_as_taken_apart(log: Log, odd: str) -> None:
    batch = whole([record_of(row(2), log), record_of(row(3), log), ODD[odd](log), record_of(row(WINDOW + 4), log)])
    skip = bytes([1 << 6, *bytes(THROUGH >> 3)])
    fast, slow = empty(), empty()
    usual(fast, log, batch, (1, THROUGH, skip))
    apart(slow, log, batch, (1, THROUGH, skip))
    assert fast == slow
    assert fast.digests[1].things == 1, "what comes behind it is seen"


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("longer", [-700, -1, 1, 700])
def test_a_batch_with_a_record_whose_length_lies_is_told_as_unreadable(log: Log, longer: int) -> None:
    sound, other = raw(log, 2), raw(log, 3)
    body = sound.value or b""
    whole_record, begin = record(sound, 1), varint(len(body)) + body[:9]
    lying = varint(len(whole_record) - 2 + longer) + whole_record[2:]
    lying_body = whole_record.replace(begin, varint(len(body) + max(longer, 2_000)) + body[:9])
    for records in ([lying, record(other, 1)], [record(other, 0), lying], [record(other, 0), lying_body]):
        batch = WholeBatch(framed(0, b"".join(records), 2))
        batch.base_offset = 0
        fast, slow = empty(), empty()
        usual(fast, log, batch)
        apart(slow, log, batch)
        assert len(slow.strange) == 1
        assert fast.strange == slow.strange


def raw(log: Log, position: int) -> Raw:
    key, value, headers = record_of(row(position), log)
    return Raw(value, key, [(name.encode(), content) for name, content in headers])


@pytest.mark.parametrize("log", LOGS)
def test_a_batch_that_compaction_has_been_at_is_taken_apart(log: Log) -> None:
    batch = bytearray(whole([record_of(row(2), log), record_of(row(3), log)]))
    batch[23:27] = (7).to_bytes(4, "big")  # the last offset
    compacted = WholeBatch(batch)
    compacted.base_offset = 0
    assert count_usual(compacted, 0) == 0
    assert count_usual(whole([record_of(row(2), log)], base_offset=4), 5) == 0, "it begins before what is asked for"


def test_a_fold_is_the_exclusive_or() -> None:
    digests = [bytes([number]) * 16 for number in (1, 2, 4, 8, 16, 32, 64)]
    for count, every in enumerate((0, 1, 3, 7, 15, 31, 63, 127)):
        assert fold(digests[:count]) == Digest(count, int.from_bytes(bytes([every]) * 16, "big"))
