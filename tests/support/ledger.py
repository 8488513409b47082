"""The log and the journal, joined and replayed: what the oracle says must have happened."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from tests.support.findings import Findings
from tests.support.folds import view
from tests.support.observed import JournaledOutcome, Observed, Record
from tests.support.oracle import Expected, Oracle, Unreadable, attribute, read
from tests.support.published import Published


@dataclass(slots=True)
class Ledger:
    """The log and the journal, joined: what must have been published."""

    observed: Observed
    findings: Findings
    oracle: Oracle = field(default_factory=Oracle)
    expected: dict[str, Expected] = field(default_factory=dict[str, Expected])
    """The first outcome by command id."""
    rows: dict[str, JournaledOutcome] = field(default_factory=dict[str, JournaledOutcome])
    duplicates: Counter[str] = field(default_factory=Counter[str])
    reused: Counter[str] = field(default_factory=Counter[str])
    unreadable: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Coordinates of records nobody could be answered for."""
    deliveries_max: int | None = None
    """How often a worker may have got the same record; None where nobody knows."""


def check_published(ledger: Ledger, published: Sequence[Published]) -> None:
    """Every acknowledged command is in the log where the broker said, in the publisher's order; nothing else is."""
    findings = ledger.findings
    log = {(record.partition, record.offset): record for record in ledger.observed.commands}
    last: dict[tuple[str, int], tuple[int, int]] = {}
    for entry in published:
        if entry.partition is None or entry.offset is None:
            continue
        record = log.get((entry.partition, entry.offset))
        if record is None or (record.value or b"") != entry.body.encode("latin-1"):
            findings.add("an acknowledged command is not in the log", entry.line().decode())
            continue
        sequence, offset = last.get((entry.org_id, entry.partition), (0, -1))
        if entry.sequence > sequence and entry.offset < offset:
            findings.add("commands of one organization are not in their publisher's order", entry.line().decode())
        last[entry.org_id, entry.partition] = (entry.sequence, entry.offset)
    for command_id in ledger.rows.keys() - {entry.command_id for entry in published}:
        findings.add("a command in the log was published by nobody", row_text(ledger.rows[command_id]))


def check_positions(ledger: Ledger) -> None:
    """Positions are unique and gapless, and the head is the last of them."""
    observed = ledger.observed
    positions = [row.position for row in observed.journal]
    first = observed.position_start + 1
    wanted = list(range(first, first + len(positions)))
    if positions != wanted:
        gap = next(pair for pair in zip(positions, wanted, strict=True) if pair[0] != pair[1])
        ledger.findings.add("positions have a gap", f"{gap[0]} where {gap[1]} should be")
    last = positions[-1] if positions else observed.position_start
    ledger.findings.unless(
        observed.head == last, "the head is not the last position", lambda: f"head {observed.head}, last {last}"
    )


def replay(ledger: Ledger) -> None:
    """Feed the oracle in order of position and compare; then see what the rest of the log must have got."""
    log = {(record.partition, record.offset): record for record in ledger.observed.commands}
    last_offset: dict[str, int] = {}
    for row in ledger.observed.journal:
        record = log.pop((row.command_partition, row.command_offset), None)
        if record is None:
            ledger.findings.add("a journal row stands for no record, or for one that has a row already", row_text(row))
            continue
        expected = ledger.oracle.expect(record.key, record.headers, record.value)
        if expected.kind != "first" or expected.command_id != row.command_id:
            ledger.findings.add(
                "the journal holds what is no first command", f"{row_text(row)}: the record is {expected.kind}"
            )
            continue
        ledger.expected[row.command_id] = expected
        ledger.rows[row.command_id] = row
        _compare_row(row, expected, ledger.findings)
        _compare_origin(row, record, ledger.findings)
        if expected.code != 400 and expected.org_id is not None:
            if row.command_offset < last_offset.get(expected.org_id, -1):
                ledger.findings.add("an organization's positions are not in partition order", row_text(row))
            last_offset[expected.org_id] = row.command_offset
    _sort_the_rest(ledger, list(log.values()))


def _compare_row(row: JournaledOutcome, expected: Expected, findings: Findings) -> None:
    problem = orjson.loads(row.problem) if row.problem else None
    found = (row.outcome, row.code, row.version, problem["type"] if problem else None)
    wanted = (expected.outcome, expected.code, expected.version, expected.problem)
    findings.unless(
        found == wanted, "the outcome is not the oracle's", lambda: f"{row_text(row)}: {found}, should be {wanted}"
    )
    if problem and expected.wrong_fields:
        paths = tuple(sorted({error["path"] for error in problem["errors"]}))
        findings.unless(
            paths == expected.wrong_fields,
            "the wrong fields are not the oracle's",
            lambda: f"{row_text(row)}: {paths}, should be {expected.wrong_fields}",
        )
    if expected.code != 400:
        findings.unless(
            row.org_id == expected.org_id,
            "the journal names another organization",
            lambda: f"{row_text(row)}: should be {expected.org_id}",
        )
    findings.unless(
        view(row.after) == expected.organization,
        "the organization after a command is not the oracle's",
        lambda: f"{row_text(row)}: {row.after}, should be {expected.organization}",
    )
    event = expected.event
    seen_event = (row.event_type, view(row.before), sorted(orjson.loads(row.changed or "[]")))
    wanted_event = (event.type, event.before, sorted(event.changed)) if event else (None, None, [])
    findings.unless(
        seen_event == wanted_event,
        "the journaled change is not the oracle's",
        lambda: f"{row_text(row)}: {seen_event}, should be {wanted_event}",
    )


def _compare_origin(row: JournaledOutcome, record: Record, findings: Findings) -> None:
    """Who and which trace, as the publisher says; of what can't be read as a command these may be lost."""
    if row.code != 400:
        found = row.actor, row.traceparent
        wanted = (
            attribute(record.headers, record.value, "actor"),
            attribute(record.headers, record.value, "traceparent"),
        )
        findings.unless(
            found == wanted,
            "the journal names another actor or trace",
            lambda: f"{row_text(row)}: {found}, should be {wanted}",
        )


def _sort_the_rest(ledger: Ledger, records: list[Record]) -> None:
    """Records without a journal row: each must be a duplicate, a reused id, or unreadable."""
    for record in records:
        command_id = command_id_of(record)
        if command_id is None:
            ledger.unreadable.add((record.partition, record.offset))
            continue
        row = ledger.rows.get(command_id)
        if row is None:
            ledger.findings.add("a command has no outcome", record_text(record))
            continue
        if (record.partition, record.offset) < (row.command_partition, row.command_offset) and (
            record.partition == row.command_partition
        ):
            ledger.findings.add("a later copy of a command counted as the first", record_text(record))
        kind = ledger.oracle.expect(record.key, record.headers, record.value).kind
        (ledger.duplicates if kind == "duplicate" else ledger.reused)[command_id] += 1


def check_parked(ledger: Ledger) -> None:
    """Set aside is what nobody could be answered for, and nothing else."""
    parked = {(row["partition"], row["offset"]): row for row in ledger.observed.parked}
    for place in ledger.unreadable - parked.keys():
        ledger.findings.add("an unreadable record was dropped in silence", str(place))
    for place, row in parked.items():
        if place not in ledger.unreadable or row["reason"] != "unreadable":
            ledger.findings.add("a record was parked that should not be", str(row))


def command_id_of(record: Record) -> str | None:
    """The command id of a record; None where it can't be read."""
    try:
        return read(record.key, record.headers, record.value).command_id
    except Unreadable:
        return None


def row_text(row: JournaledOutcome) -> str:
    """A journal row in words."""
    return (
        f"position {row.position}, command {row.command_id}, organization {row.org_id}, "
        f"record {row.command_partition}/{row.command_offset}, {row.outcome} {row.code} version {row.version}"
    )


def record_text(record: Record) -> str:
    """A record in words."""
    value = (record.value or b"null")[:300].decode("utf-8", "backslashreplace")
    return f"{record.topic} {record.partition}/{record.offset} key {record.key!r}: {value}"
