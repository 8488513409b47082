"""The golden messages: one story of four organizations, byte for byte as the service and its publishers write it.

Made with the relay's own encoder, so that other teams test against what they will get. The story has every type of
message, a name that one organization frees and another takes, a deletion that stays, one that is taken back, and an
erasure. Ids and times are chosen by hand, and never change: released messages are compared with.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final
from uuid import UUID

from org_events import asyncapi
from org_events.cloudevents import command_headers
from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.events import EventType
from org_events.organization import Address
from org_events.reference import Membership, Partnership, Reference, Role, Staff
from org_events.results import PROBLEMS, RESULT_TYPE, Outcome, Problem, ProblemType
from org_events.topics import Topics
from org_service.domain.organization import StoredOrganization, find_changed_fields, to_json
from org_service.domain.outcomes import JournaledOutcome
from org_service.wire.changes import encode
from org_service.wire.results import make_result_record

_TOPICS: Final = Topics()
_BEGIN: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_ADDRESS: Final = Address(line1="Storgata 1", city="Tromsø", postal_code="9008", country="NO")
_STORED: Final = _ADDRESS.model_dump()

_Message = dict[str, Any]


def _org_id(number: int) -> UUID:
    return UUID(f"0a000000-0000-7000-8000-{number:012d}")


def _command_id(number: int) -> UUID:
    return UUID(f"0c000000-0000-7000-8000-{number:012d}")


ACME, BOLT, CARGO, DELTA = map(_org_id, range(1, 5))


@dataclass(slots=True)
class _Story:
    """What the journal would hold, change by change."""

    rows: list[JournaledOutcome] = field(default_factory=list[JournaledOutcome])
    _now: dict[UUID, StoredOrganization] = field(default_factory=dict[UUID, StoredOrganization])
    """The rows, deleted ones included."""

    def tell(self, event: EventType, org_id: UUID, **fields: Any) -> None:
        """The next change."""
        position, moment = len(self.rows) + 1, _BEGIN + timedelta(minutes=len(self.rows))
        known = self._now.get(org_id)
        former = known or StoredOrganization(org_id, "", None, None, None, moment, moment, None, None, 0)
        fields |= {"version": former.version + 1, "updated_at": moment}
        after = self._now[org_id] = former._replace(**fields)
        is_there = event not in {EventType.DELETED, EventType.ERASED}
        was_there = known is not None and event not in {EventType.RESTORED, EventType.ERASED}
        pair = known if was_there else None, after if is_there else None
        erased = event is EventType.ERASED
        self.rows.append(
            JournaledOutcome(
                position=position,
                command_id=_command_id(position),
                org_id=org_id,
                version=after.version,
                event_type=event.value,
                outcome=Outcome.APPLIED,
                code=200,
                actor=None if erased else "ann",
                changed=None if erased else json.dumps(find_changed_fields(*pair), separators=(",", ":")),
                before=None if pair[0] is None else to_json(pair[0]),
                after=None if pair[1] is None else to_json(pair[1]),
                problem=None,
                traceparent=_TRACE if position % 2 else None,
                recorded_at=moment,
            )
        )


def _tell() -> Sequence[JournaledOutcome]:
    story = _Story()
    story.tell(EventType.CREATED, ACME, name='Ål & "Sønn"')
    story.tell(EventType.CREATED, BOLT, name="Bolt", domain="bolt.example", primary_address=_STORED)
    story.tell(EventType.CREATED, CARGO, name="Kari Nordmann", domain="kari.example", primary_address=_STORED)
    story.tell(EventType.UPDATED, ACME, name="Acme")
    story.tell(EventType.CREATED, DELTA, name='Ål & "Sønn"')
    story.tell(EventType.UPDATED, ACME, domain="acme.example", primary_address=_STORED)
    story.tell(EventType.UPDATED, BOLT, domain=None, primary_address=None)
    story.tell(EventType.DELETED, CARGO)
    story.tell(EventType.DEACTIVATED, ACME, deactivated_at=_BEGIN + timedelta(minutes=8))
    story.tell(EventType.DELETED, BOLT)
    story.tell(EventType.REACTIVATED, ACME, deactivated_at=None)
    story.tell(EventType.UPDATED, DELTA, name="Delta", domain="bolt.example")
    story.tell(EventType.DELETED, ACME)
    story.tell(EventType.ERASED, CARGO)
    story.tell(EventType.RESTORED, ACME)
    story.tell(EventType.UPDATED, ACME, name="Acme Nord")
    return story.rows


def make_golden_messages() -> str:
    """The text of the file."""
    messages = [*_published(), *_results(), *_commands(), *_facts()]
    known = asyncapi.make_document()["components"]["messages"]
    if missing := known.keys() - {message["message"] for message in messages}:
        raise ValueError(f"the golden messages lack {', '.join(sorted(missing))}")
    lines = ",\n".join(json.dumps(message, ensure_ascii=False) for message in messages)
    return f'{{"contract": "{version("org-events")}", "messages": [\n{lines}\n]}}\n'


def _published() -> Iterator[_Message]:
    for row in _tell():
        records = encode(row)
        yield _message(_TOPICS.results, RESULT_TYPE, records.key, *records.result)
        if records.event is not None and records.state is not None:
            yield _message(_TOPICS.events, row.event_type or "", records.key, *records.event)
            state = "organization" if records.state[0] is not None else "organization-deleted"
            yield _message(_TOPICS.state, state, records.key, *records.state)


def _results() -> Iterator[_Message]:
    """Outcomes without an event."""
    last = _tell()[-1].after
    yield _outcome(17, ACME, Outcome.UNCHANGED, 200, version=8, organization=last)
    yield _outcome(18, DELTA, Outcome.REJECTED, 409, version=2, problem=ProblemType.NAME_TAKEN)
    yield _outcome(19, None, Outcome.REJECTED, 400, problem=ProblemType.UNREADABLE)
    yield _outcome(None, DELTA, Outcome.PARKED, 500, problem=ProblemType.PARKED)


def _outcome(
    position: int | None,
    org_id: UUID | None,
    outcome: Outcome,
    code: int,
    *,
    version: int | None = None,
    organization: str | None = None,
    problem: ProblemType | None = None,
) -> _Message:
    number = position or 20
    record = make_result_record(
        derived_from=f"result:{number}",
        command_id=_command_id(number),
        org_id=org_id,
        outcome=outcome,
        code=code,
        version=version,
        organization=organization,
        position=position,
        problem=None if problem is None else _problem(problem).model_dump_json(),
        recorded_at=_BEGIN + timedelta(minutes=number),
        traceparent=None,
        final=outcome is not Outcome.PARKED,
    )
    return _message(_TOPICS.results, RESULT_TYPE, record.key, record.value, record.headers)


def _problem(kind: ProblemType) -> Problem:
    status, title = PROBLEMS[kind]
    return Problem(type=kind, title=title, status=status, detail=f"{title}.", errors=[])


def _commands() -> Iterator[_Message]:
    commands: list[Command] = [
        CreateOrganization(org_id=BOLT, name="Bolt", domain="bolt.example", primary_address=_ADDRESS),
        UpdateOrganization(org_id=BOLT, domain=None, primary_address=None),
        UpdateOrganization(org_id=ACME, name="Acme", expected_version=1, if_current=IfCurrent(domain=None)),
        DeactivateOrganization(org_id=ACME, expected_version=3),
        ReactivateOrganization(org_id=ACME),
        DeleteOrganization(org_id=ACME, if_current=IfCurrent(name="Acme")),
        RestoreOrganization(org_id=ACME),
    ]
    for number, command in enumerate(commands, 1):
        headers = command_headers(
            command_id=_command_id(number), command_type=command.type, source="/crm", actor="ann", traceparent=_TRACE
        )
        yield _message(_TOPICS.commands, command.type, str(command.org_id).encode(), command.to_body(), headers)


def _facts() -> Iterator[_Message]:
    facts: list[tuple[str, Reference]] = [
        (_TOPICS.memberships, Membership(user_id="ann", org_id=ACME, role=Role.ADMIN, joined_at=_BEGIN)),
        (_TOPICS.partnerships, Partnership(partner_org_id=DELTA, org_id=ACME, role=Role.SUPPORT)),
        (_TOPICS.staff, Staff(user_id="kim")),
    ]
    for topic, fact in facts:
        name = type(fact).__name__.lower()
        yield _message(topic, name, fact.key(), fact.to_body(), [])
        yield _message(topic, f"{name}-removed", fact.key(), None, [])


def _message(
    topic: str, message: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]
) -> _Message:
    """As in the file: JSON may stand there as it is, because its shortest form is the value."""
    body = None if value is None else json.loads(value)
    if value is not None and json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() != value:
        raise ValueError(f"{message} is not the shortest form of its JSON: the file would have other bytes")
    found = {name: content.decode() for name, content in headers}
    return {"topic": topic, "message": message, "key": key.decode(), "headers": found, "body": body}
