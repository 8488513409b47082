"""A history to try the checker on: what a faithful service publishes, made in memory."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from org_events.cloudevents import EVENT_ID_NAMESPACE
from org_events.topics import partition_for
from tests.support.field_rules import name_key
from tests.support.observed import JournaledOutcome, Observed, Record
from tests.support.oracle import Expected, Oracle
from tests.support.published import Published

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PARTITIONS = 12
ACTOR = "user-1"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class ExactHistory:
    """A faithful service in memory: takes commands one at a time and publishes what became of each."""

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.observed = Observed(partitions=PARTITIONS)
        self.published: list[Published] = []
        self.created: dict[str, datetime] = {}
        self.updated: dict[str, datetime] = {}
        self.deactivated: dict[str, datetime] = {}
        self.last: dict[str, dict[str, Any] | None] = {}
        self.results: dict[str, Record] = {}
        self.transactions = 0

    def send(self, number: int, command_type: str, org_id: str, /, *, readable: bool = True, **body: Any) -> None:
        value = json.dumps({"org_id": org_id, **body}).encode()
        command_id = str(UUID(int=number))
        headers = (
            ("ce_id", command_id.encode() if readable else b"?"),
            ("ce_type", command_type.encode()),
            ("ce_actor", ACTOR.encode()),
            ("traceparent", TRACE.encode()),
        )
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
            self._append(self.observed.results, "results", first.key, first.value, first.headers)
        elif expected.kind == "reused":
            rejection = {
                "command_id": command_id,
                "org_id": org_id,
                "outcome": "rejected",
                "code": 422,
                "version": None,
            }
            rejection |= {"organization": None, "position": None, "final": True, "problem": {"type": expected.problem}}
            self._append(self.observed.results, "results", record.key, json.dumps(rejection).encode(), ())
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
        row = JournaledOutcome(
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
            actor=ACTOR,
            traceparent=TRACE,
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
        self, row: JournaledOutcome, before: dict[str, Any] | None, after: dict[str, Any] | None, problem: Any
    ) -> None:
        names = ("command_id", "org_id", "outcome", "code", "version", "position")
        shared = {name: getattr(row, name) for name in names}
        result = shared | {"organization": after, "problem": problem, "final": True}
        key = (row.org_id or row.command_id).encode()
        time = row.recorded_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"ce_specversion": "1.0", "ce_source": "/orgs", "content-type": "application/json", "ce_time": time}
        headers |= {"ce_commandid": row.command_id, "ce_position": str(row.position), "traceparent": TRACE}
        headers |= {"ce_subject": row.org_id} if row.org_id else {}
        own = {"ce_id": str(uuid5(EVENT_ID_NAMESPACE, f"result:{row.position}")), "ce_type": "org.result"}
        own |= {"ce_dataschema": "urn:orgs:schema:result:1"}
        self.results[row.command_id] = self._relay("results", key, result, headers | own)
        position = {"position": row.position, "command_id": row.command_id, "recorded_at": time}
        position |= {"partitions": self.observed.partitions}
        self._relay("relay", b"orgs", position, {})
        if row.event_type is not None:
            event = {name: shared[name] for name in ("org_id", "version", "position", "command_id")}
            event |= {"changed": json.loads(row.changed or ""), "before": before, "after": after}
            event |= {"actor": ACTOR, "recorded_at": time}
            own = {"ce_id": str(uuid5(EVENT_ID_NAMESPACE, str(row.position))), "ce_type": row.event_type}
            own |= {"ce_dataschema": "urn:orgs:schema:organization-event:1", "ce_actor": ACTOR}
            own |= {"ce_orgversion": str(row.version)}
            self._relay("events", key, event, headers | own)
            own = {"ce_orgversion": str(row.version), "ce_position": str(row.position)}
            self._relay("state", key, after, own | ({"content-type": "application/json"} if after else {}))
        self.transactions += row.position % 2  # the next one begins: 1, then 2 and 3, 4 and 5 …

    def _relay(self, topic: str, key: bytes, body: dict[str, Any] | None, headers: dict[str, str]) -> Record:
        """Write in the transaction of now; of two rows in one only the last position stays."""
        log = getattr(self.observed, topic)
        if topic == "relay" and log and log[-1].marker == 1000 + self.transactions:
            log.pop()
        encoded = tuple((name, content.encode()) for name, content in headers.items())
        record = self._append(log, topic, key, None if body is None else json.dumps(body).encode(), encoded)
        log[-1] = replace(record, marker=1000 + self.transactions)
        return log[-1]

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
        partition = partition_for(key or b"", PARTITIONS)
        offset = sum(record.partition == partition for record in log)
        record = Record(topic, partition, offset, 0, key, value, headers)
        log.append(record)
        return record
