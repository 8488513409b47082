"""`orgs parked edit`: a parked command is discarded, and another one sent in its place, which names it as its cause.

The new one is a command like any other: it comes behind whatever waits in the queue, and its actor is the operator.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict

from org_events.cloudevents import command_headers
from org_events.ids import uuid7
from org_events.publishing.publisher import Publisher
from org_service import probes
from org_service.domain import details
from org_service.domain.decide import Invalid
from org_service.domain.reasons import ParkedState
from org_service.domain.requests import LOG_APPEND_TIME, Rejected, Request
from org_service.errors import PreconditionError
from org_service.kafka.connection import make_producer
from org_service.operate.operation import Execution, Plan, Tally, open_database
from org_service.operate.parked import RESOURCE
from org_service.operate.parked_selection import find_open
from org_service.operate.parked_steps import running
from org_service.operate.publish import SOURCE
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.parked_queues import ParkedFilter
from org_service.wire.commands import read
from org_service.wire.parked import RecordAgain, read_type

CAUSE_HEADER: Final = "ce_causationid"
"""Of a command that replaces another one: its id."""
_ERRORS_SHOWN_MAX: Final = 5
"""Wrong fields that are named at once."""
_BEHIND_MAX: Final = 100_000
"""More never wait behind one (`queued_commands_max`)."""


class Parameters(BaseModel):
    """What makes an edit again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parked_id: int
    replaced_id: UUID
    command_id: UUID
    """Of the new command, chosen when it was planned: however often it is sent, it is decided once."""
    command_type: str
    org_id: UUID
    body: dict[str, Any]


class EditParked:
    """An edit of one parked command."""

    kind: ClassVar[str] = "parked edit"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings, parked_id: int, body: Mapping[str, Any]) -> "EditParked":
        """Make one.

        Args:
            settings: Of the servers.
            parked_id: Which record.
            body: Of the new command, which has the type of the old one; `org_id` may be left out.

        Raises:
            PreconditionError: The record can't be edited, or the body is no good one; the message says why.
        """
        if settings.auth.commands != "trusted":
            raise PreconditionError(
                "this service accepts commands only with their user's token (ORGS_AUTH__COMMANDS), and keeps none: "
                f"discard the command (`orgs parked discard {parked_id}`), and let its user send another one."
            )
        async with open_database(settings) as database, database.connect() as conn:
            stored = await find_open(conn, parked_id)
        if stored.command_id is None or stored.org_id is None:
            raise PreconditionError(f"record {parked_id} is no command of an organization: discard it.")
        asked = Parameters(
            parked_id=parked_id,
            replaced_id=stored.command_id,
            command_id=uuid7(),
            command_type=read_type(stored),
            org_id=stored.org_id,
            body={**body, "org_id": str(body.get("org_id", stored.org_id))},
        )
        _see_good(asked)
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """What is parked."""
        return RESOURCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The new command."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """See that the record is open, and what waits behind it."""
        asked = self._asked
        async with open_database(self._settings) as database, database.connect() as conn:
            await find_open(conn, asked.parked_id)
            queue = ParkedFilter(ParkedState.OPEN, loose=False, org_ids=[asked.org_id])
            behind = await parked_queues.list_records(conn, queue, asked.parked_id, _BEHIND_MAX)
        tally = Tally()
        tally.add(
            b"%d %b" % (asked.parked_id, orjson.dumps(asked.body)),
            lambda: {
                "id": asked.parked_id,
                "org_id": str(asked.org_id),
                "type": asked.command_type,
                "command_id": str(asked.replaced_id),
                "new_command_id": str(asked.command_id),
            },
        )
        notes = [
            f"command {asked.replaced_id} is rejected, finally (500 discarded), and {asked.command_id} sent for it."
        ]
        if behind:
            notes.append(
                f"{len(behind):,} commands that wait behind it are decided before the new one, which comes last. Where "
                "they need it (it creates the organization, say), discard them too."
            )
        return tally.plan({}, notes)

    async def run(self, execution: Execution) -> None:
        """Discard, send, and let the queue go on; each is done once, however often this is called."""
        asked = self._asked
        async with running(self._settings, execution) as steps:
            if execution.progress is None:  # the discard notes some: nobody else may have ended the record before it
                async with open_database(self._settings) as database, database.connect() as conn:
                    await find_open(conn, asked.parked_id)
            if stored := await steps.select(ParkedFilter(ParkedState.OPEN, ids=[asked.parked_id]), 0):
                await steps.releaser.discard(stored, details.replaced_by(str(asked.command_id)))
            if not steps.at.sent:
                if probes.listeners:
                    await probe("operate.before_publish")
                await self._send(execution.requested_by)
                if probes.listeners:
                    await probe("operate.after_publish")
                steps.move(sent=True)
                await steps.note()
            await steps.drain()

    async def _send(self, actor: str) -> None:
        asked, kafka = self._asked, self._settings.kafka
        headers = command_headers(
            command_id=asked.command_id, command_type=asked.command_type, source=SOURCE, actor=actor
        )
        cause = (CAUSE_HEADER, str(asked.replaced_id).encode())
        publisher = Publisher(kafka.topics.commands, lambda: make_producer(kafka, linger_ms=0))
        try:
            key, value = str(asked.org_id).encode(), orjson.dumps(asked.body)
            await (await publisher.append(key, value, [*headers, cause]))
        finally:
            await publisher.stop()


def _see_good(asked: Parameters) -> None:
    """See that the reader of commands accepts the new one."""
    headers = command_headers(command_id=asked.command_id, command_type=asked.command_type, source=SOURCE)
    key, value = str(asked.org_id).encode(), orjson.dumps(asked.body)
    request = read(RecordAgain(0, "", 0, 0, 0, LOG_APPEND_TIME, key, value, headers))
    assert isinstance(request, Request)
    if isinstance(request.command, Rejected):
        raise PreconditionError(f"the new command can't be read: {request.command.detail}")
    if isinstance(request.command, Invalid):
        wrong = "; ".join(f"{each.path}: {each.message}" for each in request.command.errors[:_ERRORS_SHOWN_MAX])
        raise PreconditionError(f"the new command has wrong fields: {wrong}")
    # A worker passes over what it doesn't know; here it is a typing error.
    if unknown := sorted(asked.body.keys() - type(request.command).model_fields.keys()):
        raise PreconditionError(f"the new command has unknown fields: {', '.join(unknown)}")
