"""What was published, against the journal: results, events, and the relay's own position."""

from collections import Counter, defaultdict
from typing import Any
from uuid import uuid5

import orjson

from org_events.cloudevents import EVENT_ID_NAMESPACE
from tests.support.findings import Findings
from tests.support.folds import view
from tests.support.ledger import Ledger, record_text, row_text
from tests.support.observed import JournalRow, Record
from tests.support.oracle import COMMAND_ID_REUSED

RESULT_MEMBERS = {
    "command_id", "org_id", "outcome", "code", "version", "organization", "position", "problem", "final"
}  # fmt: skip
EVENT_MEMBERS = {
    "org_id", "version", "position", "changed", "before", "after", "command_id", "actor", "recorded_at"
}  # fmt: skip


def check_results(ledger: Ledger) -> None:
    """Each journaled command has its result, each duplicate an equal copy, each reused id a 422, nobody else any."""
    copies: dict[str, list[Record]] = defaultdict(list)
    refusals: Counter[str] = Counter()
    last_position: dict[bytes | None, int] = {}
    for record in ledger.observed.results:
        body = _json(record, ledger.findings, RESULT_MEMBERS)
        command_id = str(body.get("command_id"))
        if (body.get("problem") or {}).get("type") == COMMAND_ID_REUSED:
            refusals[command_id] += 1
            if (body["code"], body["position"], body["final"], body["outcome"]) != (422, None, True, "rejected"):
                ledger.findings.add("a refusal of a reused id is malformed", record_text(record))
            continue
        copies[command_id].append(record)
        if not ledger.duplicates[command_id] and body.get("position") is not None:
            if body["position"] < last_position.get(record.key, 0):
                ledger.findings.add("results of one organization are not in order of position", record_text(record))
            last_position[record.key] = body["position"]
    for command_id in copies.keys() - ledger.rows.keys():
        ledger.findings.add("a result stands for no journaled command", record_text(copies[command_id][0]))
    for command_id, row in ledger.rows.items():
        _check_copies(ledger, row, copies.get(command_id, []))
    for command_id in ledger.reused.keys() | refusals.keys():
        if refusals[command_id] < ledger.reused[command_id]:
            ledger.findings.add("a reused command id was not refused", command_id)
        if refusals[command_id] and not ledger.reused[command_id]:
            ledger.findings.add("a command id was refused that was used once", command_id)


def _check_copies(ledger: Ledger, row: JournalRow, copies: list[Record]) -> None:
    findings = ledger.findings
    duplicates = ledger.duplicates[row.command_id]
    if not copies:
        findings.add("a journaled command has no result", row_text(row))
        return
    if not duplicates and len(copies) > 1:
        findings.add("a command published once has several results", f"{row_text(row)}: {len(copies)}")
    if len(copies) < 1 + duplicates:
        findings.add("a duplicate got no result", f"{row_text(row)}: {len(copies)} for {1 + duplicates} records")
    if any(copy.value != copies[0].value for copy in copies):
        findings.add("copies of a result differ", row_text(row))
    body = orjson.loads(copies[0].value or b"null")
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
    key = (row.org_id or row.command_id).encode()
    findings.unless(copies[0].key == key, "a result has the wrong key", lambda: f"{row_text(row)}: {copies[0].key!r}")


def check_events(ledger: Ledger) -> None:
    """Every applied command has one event; each organization's go on from one another, versions 1, 2, 3 …"""
    findings = ledger.findings
    applied = {row.position: row for row in ledger.observed.journal if row.event_type is not None}
    versions: dict[str, int] = {}
    last_after: dict[str, Any] = {}
    for record in ledger.observed.events:
        body = _json(record, findings, EVENT_MEMBERS)
        row = applied.pop(body.get("position", 0), None)
        if row is None:
            findings.add("an event stands for no change, or for one that has its event", record_text(record))
            continue
        _compare_event(record, body, row, findings)
        org_id = row.org_id or ""
        wanted = versions.get(org_id, 0) + 1
        if body["version"] != wanted:
            findings.add(
                "versions have a gap or are not in order", f"{record_text(record)}: should be version {wanted}"
            )
        if body["before"] != last_after.get(org_id):
            findings.add("an event does not go on from the one before", record_text(record))
        versions[org_id] = body["version"]
        last_after[org_id] = body["after"]
    for row in applied.values():
        findings.add("a change has no event", row_text(row))
    folded = {org_id: view(after) for org_id, after in last_after.items() if after is not None}
    findings.unless(
        folded == ledger.oracle.state(),
        "the events do not fold to the oracle's organizations",
        lambda: str(len(folded)),
    )


def _compare_event(record: Record, body: dict[str, Any], row: JournalRow, findings: Findings) -> None:
    found = {name: body[name] for name in ("org_id", "version", "command_id", "changed", "before", "after")}
    wanted = {
        "org_id": row.org_id,
        "version": row.version,
        "command_id": row.command_id,
        "changed": orjson.loads(row.changed or "[]"),
        "before": orjson.loads(row.before or "null"),
        "after": orjson.loads(row.after or "null"),
    }
    findings.unless(
        found == wanted, "an event is not what the journal says", lambda: f"{record_text(record)}: should be {wanted}"
    )
    headers = {
        "ce_type": row.event_type,
        "ce_id": str(uuid5(EVENT_ID_NAMESPACE, str(row.position))),
        "ce_subject": row.org_id,
        "ce_orgversion": str(row.version),
        "ce_position": str(row.position),
        "ce_commandid": row.command_id,
    }
    seen = {name: record.header(name) for name in headers}
    findings.unless(seen == headers, "an event's headers are wrong", lambda: f"{record_text(record)}: {seen}")
    findings.unless(
        record.key == (row.org_id or "").encode() and record.partition == row.command_partition,
        "an event is in the wrong partition, or has the wrong key",
        lambda: record_text(record),
    )


def check_relay(ledger: Ledger) -> None:
    """The relay's last position is the head, and it never went back."""
    positions = [relay_position(record) for record in ledger.observed.relay]
    if positions != sorted(positions):
        ledger.findings.add("the relay's position went back", str(positions[-10:]))
    last = positions[-1] if positions else ledger.observed.position_start
    ledger.findings.unless(
        last == ledger.observed.head,
        "the relay stands elsewhere than the head",
        lambda: f"relay {last}, head {ledger.observed.head}",
    )


def relay_position(record: Record) -> int:
    """The journal position that a record of the relay's topic holds."""
    content = orjson.loads(record.value or b"0")
    return int(content["position"] if isinstance(content, dict) else content)


def _json(record: Record, findings: Findings, members: set[str]) -> dict[str, Any]:
    try:
        body = orjson.loads(record.value or b"")
    except ValueError:
        findings.add("a published body is no JSON", record_text(record))
        return {}
    findings.unless(
        body.keys() == members,
        "a published body lacks members, or has others",
        lambda: f"{record_text(record)}: {set(body)}",
    )
    return body
