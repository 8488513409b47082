"""What was published, against the journal: results, events, states, and the relay's own position.

A journaled result goes out once by the relay, and once more for each duplicate by the worker that met it: the same
bytes under the same `ce_id`. They are told apart by the transaction they were written in, or weren't. The relay's
must be one, whatever was killed. Of the worker's there is none without a duplicate, and at least one for each. How
many at most depends on how often a record came: a batch that was answered but not acknowledged when its worker was
killed comes again, and is answered again, and nothing in the log or the journal tells of it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any
from uuid import uuid5

import orjson

from org_events.cloudevents import EVENT_ID_NAMESPACE
from tests.support.findings import Findings
from tests.support.folds import view
from tests.support.ledger import Ledger, record_text, row_text
from tests.support.observed import JournaledOutcome, Record
from tests.support.oracle import COMMAND_ID_REUSED
from tests.support.partitioner import partition_of

RESULT_MEMBERS = {
    "command_id", "org_id", "outcome", "code", "version", "organization", "position", "problem", "final"
}  # fmt: skip
EVENT_MEMBERS = {
    "org_id", "version", "position", "changed", "before", "after", "command_id", "actor", "recorded_at"
}  # fmt: skip
JSON_CONTENT = "application/json"


def check_results(ledger: Ledger) -> None:
    """Each journaled command has its result, each duplicate an equal copy, each reused id a 422, nobody else any."""
    relayed: dict[str, list[Record]] = defaultdict(list)
    copies: dict[str, list[Record]] = defaultdict(list)
    rejections: Counter[str] = Counter()
    last_position: dict[bytes | None, int] = {}
    for record in ledger.observed.results:
        _check_partition(record, ledger)
        body = _json(record, ledger.findings, RESULT_MEMBERS)
        command_id = str(body.get("command_id"))
        if (body.get("problem") or {}).get("type") == COMMAND_ID_REUSED:
            rejections[command_id] += 1
            found = *(body.get(name) for name in ("code", "position", "final", "outcome")), record.marker
            if found != (422, None, True, "rejected", None):
                ledger.findings.add("a rejection of a reused id is malformed", record_text(record))
        elif record.marker is None:
            copies[command_id].append(record)
        else:
            relayed[command_id].append(record)
            if body.get("position") is not None:
                if body["position"] < last_position.get(record.key, 0):
                    ledger.findings.add("results of one organization are not in order of position", record_text(record))
                last_position[record.key] = body["position"]
    for command_id in (relayed.keys() | copies.keys()) - ledger.rows.keys():
        ledger.findings.add(
            "a result stands for no journaled command", record_text((relayed[command_id] + copies[command_id])[0])
        )
    for command_id, row in ledger.rows.items():
        _check_copies(ledger, row, relayed.get(command_id, []), copies.get(command_id, []))
    for command_id in ledger.reused.keys() | rejections.keys():
        if rejections[command_id] < ledger.reused[command_id]:
            ledger.findings.add("a reused command id was not rejected", command_id)
        if rejections[command_id] and not ledger.reused[command_id]:
            ledger.findings.add("a command id was rejected that was used once", command_id)


def _check_copies(ledger: Ledger, row: JournaledOutcome, relayed: list[Record], copies: list[Record]) -> None:
    findings = ledger.findings
    duplicates = ledger.duplicates[row.command_id]
    if not relayed:
        findings.add("a journaled command has no result", row_text(row))
    if len(relayed) > 1:
        findings.add("the relay published a result again", f"{row_text(row)}: {len(relayed)} times")
    if copies and not duplicates:
        findings.add("a command published once has several results", f"{row_text(row)}: {len(copies)} copies")
    if len(copies) < duplicates:
        findings.add("a duplicate got no result", f"{row_text(row)}: {len(copies)} for {duplicates} duplicates")
    if ledger.deliveries_max is not None and len(copies) > duplicates * ledger.deliveries_max:
        findings.add(
            "a duplicate got its result too often", f"{row_text(row)}: {len(copies)} for {duplicates} duplicates"
        )
    everything = relayed + copies
    if any(record.value != everything[0].value for record in everything):
        findings.add("copies of a result differ", row_text(row))
    key = (row.org_id or row.command_id).encode()
    headers = _result_headers(row)
    for record in everything:
        _check_headers(record, headers, "a result's headers are wrong", findings)
        findings.unless(record.key == key, "a result has the wrong key", lambda record=record: record_text(record))
    if everything:
        _compare_result(everything[0], row, findings)


def _compare_result(record: Record, row: JournaledOutcome, findings: Findings) -> None:
    body = _loads(record)
    wanted = {
        "command_id": row.command_id,
        "org_id": row.org_id,
        "outcome": row.outcome,
        "code": row.code,
        "version": row.version,
        "organization": orjson.loads(row.after or "null"),
        "position": row.position,
        "problem": orjson.loads(row.problem or "null"),
        "final": True,
    }
    findings.unless(
        body == wanted, "a result is not what the journal says", lambda: f"{row_text(row)}: {body}, should be {wanted}"
    )


def check_events(ledger: Ledger) -> None:
    """Every applied command has one event; each organization's go on from one another, versions 1, 2, 3 …"""
    findings = ledger.findings
    applied = {row.position: row for row in ledger.observed.journal if row.event_type is not None}
    versions: dict[str, int] = {}
    last_after: dict[str, Any] = {}
    for record in ledger.observed.events:
        _check_partition(record, ledger)
        body = _json(record, findings, EVENT_MEMBERS)
        row = applied.pop(body.get("position", 0), None)
        if row is None:
            findings.add("an event stands for no change, or for one that has its event", record_text(record))
            continue
        _compare_event(record, body, row, findings)
        org_id = row.org_id or ""
        wanted = versions.get(org_id, 0) + 1
        if body.get("version") != wanted:
            findings.add(
                "versions have a gap or are not in order", f"{record_text(record)}: should be version {wanted}"
            )
        if body.get("before") != last_after.get(org_id):
            findings.add("an event does not go on from the one before", record_text(record))
        versions[org_id] = row.version or 0
        last_after[org_id] = body.get("after")
    for row in applied.values():
        findings.add("a change has no event", row_text(row))
    folded = {org_id: view(after) for org_id, after in last_after.items() if after is not None}
    findings.unless(
        folded == ledger.oracle.state(),
        "the events do not fold to the oracle's organizations",
        lambda: str(len(folded)),
    )


def _compare_event(record: Record, body: dict[str, Any], row: JournaledOutcome, findings: Findings) -> None:
    wanted = {
        "org_id": row.org_id,
        "version": row.version,
        "position": row.position,
        "command_id": row.command_id,
        "changed": orjson.loads(row.changed or "[]"),
        "before": orjson.loads(row.before or "null"),
        "after": orjson.loads(row.after or "null"),
        "actor": row.actor,
        "recorded_at": moment_text(row.recorded_at),
    }
    findings.unless(
        body == wanted, "an event is not what the journal says", lambda: f"{record_text(record)}: should be {wanted}"
    )
    _check_headers(record, _event_headers(row), "an event's headers are wrong", findings)
    findings.unless(
        record.key == (row.org_id or "").encode() and record.partition == row.command_partition,
        "an event is in another partition than its command, or has the wrong key",
        lambda: record_text(record),
    )


def check_states(ledger: Ledger) -> None:
    """Every applied command has one state record, a tombstone where it deleted; each organization's are in order.

    Only before the broker compacts the topic, which it does not to what a test wrote a moment ago.
    """
    findings = ledger.findings
    applied = {row.position: row for row in ledger.observed.journal if row.event_type is not None}
    last_position: dict[bytes | None, int] = {}
    for record in ledger.observed.state:
        _check_partition(record, ledger)
        row = applied.pop(_position_of(record), None)
        if row is None:
            findings.add("a state record stands for no change, or for one that has its record", record_text(record))
            continue
        _compare_state(record, row, findings)
        if row.position < last_position.get(record.key, 0):
            findings.add("the state of an organization went back", f"{record_text(record)}: {row_text(row)}")
        last_position[record.key] = row.position
    for row in applied.values():
        findings.add("a change has no state record", row_text(row))


def _compare_state(record: Record, row: JournaledOutcome, findings: Findings) -> None:
    found = None if record.value is None else _loads(record)
    wanted = None if row.after is None else orjson.loads(row.after)
    findings.unless(
        found == wanted and (record.value is None) == (row.after is None),
        "a state record is not what the journal says",
        lambda: f"{record_text(record)}: should be {wanted}",
    )
    headers = {"ce_orgversion": str(row.version), "ce_position": str(row.position)}
    if row.after is not None:
        headers["content-type"] = JSON_CONTENT
    _check_headers(record, headers, "a state record's headers are wrong", findings)
    findings.unless(
        record.key == (row.org_id or "").encode() and record.partition == row.command_partition,
        "a state record is in another partition than its command, or has the wrong key",
        lambda: record_text(record),
    )


def check_relay(ledger: Ledger, *, kafka_lost: bool = False) -> None:
    """The relay's positions grow, each names the last row of one transaction, and the last one is the head.

    A transaction may say its position twice: once more when others wrote between its records, as ends are others then.
    And where Kafka lost records, the relay says a position again when it has sent these again.
    """
    findings, observed = ledger.findings, ledger.observed
    positions = [relay_position(record) for record in observed.relay]
    last, marker = observed.position_start, None
    rows = {row.position: row for row in observed.journal}
    for record, position in zip(observed.relay, positions, strict=True):
        if position < last or (position == last and not (kafka_lost or record.marker == marker)):
            findings.add("the relay's position did not grow", f"{record_text(record)}: after {last}")
        last, marker = position, record.marker
        row = rows.get(position)
        wanted = None if row is None else _position_body(row, observed.partitions)
        findings.unless(
            _stands_at(record) == wanted and record.key == observed.relay[0].key and record.key is not None,
            "the relay's position names another row, or has another key",
            lambda record=record, wanted=wanted: f"{record_text(record)}: should be {wanted}",
        )
    findings.unless(
        last == observed.head,
        "the relay stands elsewhere than the head",
        lambda: f"relay {last}, head {observed.head}",
    )
    if not kafka_lost:
        _check_transactions(ledger, sorted(positions))


def _check_transactions(ledger: Ledger, positions: list[int]) -> None:
    """All between two positions was written in one transaction, with the second of them, and nothing else was."""
    observed, findings = ledger.observed, ledger.findings
    results = [record for record in observed.results if record.marker is not None]
    published = [(record, _position_of(record)) for record in (*results, *observed.events, *observed.state)]
    published += [(record, relay_position(record)) for record in observed.relay]
    markers: dict[tuple[str, int, int], int] = {}
    chunks: dict[tuple[str, int, int], int] = {}
    for record, position in published:
        if record.marker is None:
            findings.add("the relay published outside a transaction", record_text(record))
            continue
        chunk = bisect_left(positions, position)
        one = markers.setdefault((record.topic, record.partition, chunk), record.marker) == record.marker
        whole = chunks.setdefault((record.topic, record.partition, record.marker), chunk) == chunk
        findings.unless(
            one and whole,
            "a position is not that of the last row of a transaction",
            lambda record=record, chunk=chunk: f"{record_text(record)}: next position {positions[chunk : chunk + 1]}",
        )


def relay_position(record: Record) -> int:
    """The journal position that a record of the relay's topic holds."""
    content = orjson.loads(record.value or b"0")
    return int(content["position"] if isinstance(content, dict) else content)


def moment_text(moment: datetime) -> str:
    """A moment as it is published: RFC 3339, UTC, with Z."""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _position_body(row: JournaledOutcome, partitions: int) -> dict[str, Any]:
    """Of topics that have never grown."""
    at = {"position": row.position, "command_id": row.command_id, "recorded_at": moment_text(row.recorded_at)}
    return at | {"partitions": partitions}


def _stands_at(record: Record) -> dict[str, Any]:
    """A position record without what it says of ends."""
    return {name: value for name, value in _loads(record).items() if name not in {"ends", "looked", "behind"}}


def _shared_headers(row: JournaledOutcome) -> dict[str, str]:
    headers = {
        "ce_specversion": "1.0",
        "ce_source": "/orgs",
        "content-type": JSON_CONTENT,
        "ce_time": moment_text(row.recorded_at),
        "ce_commandid": row.command_id,
        "ce_position": str(row.position),
    }
    optional = {"ce_subject": row.org_id, "traceparent": row.traceparent}
    return headers | {name: content for name, content in optional.items() if content is not None}


def _result_headers(row: JournaledOutcome) -> dict[str, str]:
    return _shared_headers(row) | {
        "ce_id": str(uuid5(EVENT_ID_NAMESPACE, f"result:{row.position}")),
        "ce_type": "org.result",
        "ce_dataschema": "urn:orgs:schema:result:1",
    }


def _event_headers(row: JournaledOutcome) -> dict[str, str]:
    headers = _shared_headers(row) | {
        "ce_id": str(uuid5(EVENT_ID_NAMESPACE, str(row.position))),
        "ce_type": row.event_type or "",
        "ce_dataschema": "urn:orgs:schema:organization-event:1",
        "ce_orgversion": str(row.version),
    }
    return headers if row.actor is None else headers | {"ce_actor": row.actor}


def _check_headers(record: Record, wanted: dict[str, str], kind: str, findings: Findings) -> None:
    """These headers in any order, each once, and no others."""
    found = sorted(record.headers, key=repr)
    findings.unless(
        found == sorted(((name, content.encode()) for name, content in wanted.items()), key=repr),
        kind,
        lambda: f"{record_text(record)}: {found}, should be {wanted}",
    )


def _check_partition(record: Record, ledger: Ledger) -> None:
    """Where the default partitioner puts its key, as every topic has it, so that a subscriber may co-partition."""
    findings, partitions = ledger.findings, ledger.observed.partitions
    findings.unless(
        record.key is not None and record.partition == partition_of(record.key, partitions),
        "a record is not in the partition of its key",
        lambda: record_text(record),
    )


def _position_of(record: Record) -> int:
    """The position that a header names, or 0."""
    text = record.header("ce_position") or ""
    return int(text) if text.isdecimal() else 0


def _loads(record: Record) -> Any:
    """The JSON of a record; None where it is none."""
    try:
        return orjson.loads(record.value or b"")
    except ValueError:
        return None


def _json(record: Record, findings: Findings, members: set[str]) -> dict[str, Any]:
    body = _loads(record)
    if not isinstance(body, dict):
        findings.add("a published body is no JSON", record_text(record))
        return {}
    findings.unless(
        body.keys() == members,
        "a published body lacks members, or has others",
        lambda: f"{record_text(record)}: {set(body)}",
    )
    return body
