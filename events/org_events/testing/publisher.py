"""A stand-in for `OrganizationClient`, for tests of publishers: no Kafka, and the outcomes that a test chooses.

    fake = FakeOrganizationClient(source="/crm")
    fake.answer_next(rejected(ProblemType.NAME_TAKEN))
    await rename_customer(fake, org_id, "Acme")      # the code under test
    assert fake.sent[0].body == {"org_id": str(org_id), "name": "Acme"}

It checks what the client checks (ids, sizes, fields), and answers as the service does: a command id that comes again
gets the first outcome, one that comes with another command is rejected. It decides nothing by itself: a command
without a chosen outcome is applied, whatever the organization is. Needs `org-events[kafka]`, as the client does.
"""

import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from org_events.cloudevents import command_headers
from org_events.commands import (
    AnyCommand,
    Command,
    CreateOrganization,
    DeleteOrganization,
    UpdateOrganization,
    body_to_send,
)
from org_events.ids import uuid7
from org_events.organization import Organization
from org_events.publishing.client import IN_FLIGHT_MAX, OrganizationClient, Sent
from org_events.publishing.errors import ClientError, OutcomeUnknown
from org_events.publishing.tokens import TokenSource, authorization_of
from org_events.results import PROBLEMS, FieldError, Outcome, Problem, ProblemType, Result
from org_events.testing.usage import recorded

__all__ = ["Answer", "FakeOrganizationClient", "SentCommand", "fails", "parked", "rejected", "unchanged", "unknown"]

_NOW: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
_KEEPS: Final = ("name", "domain", "primary_address")


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command as Kafka would have it."""

    command_id: UUID
    type: str
    org_id: UUID
    body: dict[str, Any]
    headers: dict[str, str]
    command: AnyCommand
    """As it was given."""


Answer = Callable[[SentCommand], Result]
"""Makes the outcome of a command, or raises what the client would."""


def rejected(kind: ProblemType, *, detail: str = "As the test says.", errors: Iterable[FieldError] = ()) -> Answer:
    """The command is rejected."""
    status, title = PROBLEMS[kind]
    problem = Problem(type=kind, title=title, status=status, detail=detail, errors=list(errors))
    return lambda sent: _result(sent, Outcome.REJECTED, code=status, problem=problem)


def parked() -> Answer:
    """The command is parked: an outcome that is not final."""
    status, title = PROBLEMS[ProblemType.PARKED]
    problem = Problem(type=ProblemType.PARKED, title=title, status=status, detail=title)
    return lambda sent: _result(sent, Outcome.PARKED, code=status, problem=problem, final=False)


def unchanged(organization: Organization) -> Answer:
    """There was nothing to change."""
    return lambda sent: _result(sent, Outcome.UNCHANGED, organization=organization)


def unknown() -> Answer:
    """No outcome comes in time, and nobody knows whether the command was applied."""

    def raise_it(sent: SentCommand) -> Result:
        raise OutcomeUnknown("the test says so", sent.command_id, sent.command)

    return raise_it


def fails(error: ClientError) -> Answer:
    """Nothing is sent: `KafkaUnavailable`, `KafkaRefused`, `TokenRefused`, …"""

    def raise_it(_: SentCommand) -> Result:
        raise error

    return raise_it


class FakeOrganizationClient(OrganizationClient):
    """Remembers what is sent, and answers at once. Usable without a start, and after a stop."""

    def __init__(self, *, source: str = "/test", actor: str | None = None, token: TokenSource | None = None) -> None:
        super().__init__(bootstrap_servers="none", source=source, actor=actor, token=token)
        self.sent: list[SentCommand] = []
        """In their order; a repeated one again, one that wasn't sent not."""
        self.organizations: dict[UUID, Organization] = {}
        """As applied commands leave them; a test may put in what is to be there."""
        self._answers: deque[Answer] = deque()
        self._outcomes: dict[UUID, tuple[SentCommand, Result]] = {}

    def answer_next(self, *answers: Answer) -> None:
        """Choose the outcomes of the next commands, in their order; those of repeated ones are known."""
        self._answers.extend(answers)

    async def start(self) -> None:
        """Nothing."""

    async def stop(self) -> None:
        """Nothing."""

    async def ping(self) -> None:
        """Always well."""

    @property
    def is_usable(self) -> bool:
        """Always."""
        return True

    @property
    def unread(self) -> str | None:
        """None."""
        return None

    async def execute(
        self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None
    ) -> Result:
        """As of the client, with the outcome that the test chose."""
        sent = await self._note(command, command_id or uuid7())
        known = self._outcomes.get(sent.command_id)
        if known is not None and known[1].final:
            same = (known[0].type, known[0].body) == (sent.type, sent.body)
            return known[1] if same else rejected(ProblemType.COMMAND_ID_REUSED)(sent)
        try:
            result = self._answers.popleft()(sent) if self._answers else self._apply(sent)
        except OutcomeUnknown:
            raise
        except ClientError:
            self.sent.pop()
            raise
        self._outcomes[sent.command_id] = sent, result
        return result

    async def send(
        self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None
    ) -> Sent:
        """As of the client; the outcome is there for `outcome`."""
        command_id = command_id or uuid7()
        await self.execute(command, command_id=command_id)
        return Sent(command_id, partition=0, offset=len(self.sent) - 1, timestamp=_NOW)

    async def outcome(self, command_id: UUID, *, timeout_s: float | None = None) -> Result:
        """As of the client, at once."""
        if command_id not in self._outcomes:
            raise OutcomeUnknown("nothing was sent under this id", command_id)
        return self._outcomes[command_id][1]

    async def execute_many(
        self,
        commands: Iterable[Command | tuple[UUID, Command]] | AsyncIterable[Command | tuple[UUID, Command]],
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Result, None]:
        """As of the client, one after the other."""
        if isinstance(commands, AsyncIterable):
            commands = [item async for item in commands]
        for item in commands:
            command_id, command = item if isinstance(item, tuple) else (uuid7(), item)
            yield await self.execute(command, command_id=command_id)

    async def _note(self, command: AnyCommand, command_id: UUID) -> SentCommand:
        body = json.loads(body_to_send(command, command_id))
        headers = command_headers(
            command_id=command_id,
            command_type=command.type,
            source=self._source,
            actor=self._actor,
            authorization=await authorization_of(self._token, self._deadline(None)),
        )
        texts = {name: content.decode() for name, content in headers}
        sent = SentCommand(command_id, command.type, command.org_id, body, texts, command)
        self.sent.append(sent)
        if (usage := recorded()) is not None:
            usage.note_sent(sent.type, body)
        return sent

    def _apply(self, sent: SentCommand) -> Result:
        known = self.organizations.get(sent.org_id)
        version = known.version + 1 if known is not None else 1
        if sent.type == DeleteOrganization.type:
            self.organizations.pop(sent.org_id, None)
            return _result(sent, Outcome.APPLIED, version=version)
        former = {"name": "", "domain": None, "primary_address": None, "deactivated_at": None, "created_at": _NOW}
        fields = former | (known.model_dump() if known is not None else {})
        if sent.type in {CreateOrganization.type, UpdateOrganization.type}:
            fields |= {name: sent.body[name] for name in _KEEPS if name in sent.body}
        deactivated = sent.type == "org.deactivate" or (
            bool(fields.get("deactivated")) and sent.type != "org.reactivate"
        )
        fields |= {"id": sent.org_id, "version": version, "updated_at": _NOW}
        fields |= {"deactivated": deactivated, "deactivated_at": _NOW if deactivated else None}
        organization = self.organizations[sent.org_id] = Organization.model_validate(fields)
        return _result(sent, Outcome.APPLIED, organization=organization)


def _result(
    sent: SentCommand,
    outcome: Outcome,
    *,
    code: int = 200,
    version: int | None = None,
    organization: Organization | None = None,
    problem: Problem | None = None,
    final: bool = True,
) -> Result:
    return Result(
        command_id=sent.command_id,
        org_id=sent.org_id,
        outcome=outcome,
        code=code,
        version=organization.version if organization is not None else version,
        organization=organization,
        position=1 if final else None,
        problem=problem,
        final=final,
    )
