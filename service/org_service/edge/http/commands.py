"""Changes: published as commands, with the caller's own token, and their outcomes waited for.

The worker is the only judge, so a change is the same over HTTP, MCP and Kafka. Nothing is lost or done twice:

- Once Kafka has confirmed a command it will have an outcome, and the answer is that outcome or 202. Before, the answer
  is 503, and the same request with the same `Idempotency-Key` is the same command, whatever became of the first.
- What a repeated request gets is read from the journal and not from the results topic, where the outcomes of two
  requests with one key can't be told apart. The digest of the request says whether it is a repetition or a mistake.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from org_events.commands import UncheckedCommand
from org_events.publishing.client import OrganizationClient
from org_events.publishing.errors import ClientError, OutcomeUnknown
from org_events.results import ProblemType, Result
from org_service.domain.fold import is_same_request
from org_service.domain.outcomes import KnownOutcome, Undecided
from org_service.domain.policy import READ, Policy
from org_service.domain.reasons import AcceptReason
from org_service.edge.http.gate import Caller
from org_service.edge.http.problems import ProblemError, key_reused, unavailable
from org_service.errors import RetryError
from org_service.settings import Settings
from org_service.store import accepted as accepted_commands
from org_service.store import directory, outcomes
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import HTTP_ACCEPTED
from org_service.telemetry.tracing import TRACEPARENT, active, is_sampled
from org_service.waiting import Patience, Trouble
from org_service.wire.body import digest_request

log = get_logger(__name__)

SOURCE: Final = "/orgs/edge"
PENDING_MAX: Final = 10_000
"""Accepted commands kept in memory until Postgres takes them; more than a long outage brings at our rates."""
_LOOK_S: Final = 1.0
"""Between looks at the client and at what waits for Postgres."""
_CONNECT_TIMEOUT_S: Final = 5.0
_CONNECT_WAIT_S: Final = (0.2, 5.0)
_PROMISE_S: Final = 2.0
"""To write one down: the client has waited for an outcome already, and memory keeps it too."""
_NOT_SENT: Final = "Kafka is unavailable, or did not confirm the command in time."


class CommandBody(NamedTuple):
    """One form of a change: the command's body, and the version that it expects because of `If-Match`."""

    value: bytes
    expected_version: int | None = None


class ChangeRequest(NamedTuple):
    """What a request wants changed.

    Several `bodies` are one request: `If-Match` may list several versions, a command expects one.
    """

    command_type: str
    org_id: UUID
    command_id: UUID
    bodies: Sequence[CommandBody]
    repeatable: bool
    """Whether the request has an `Idempotency-Key`."""
    wait_s: float


class Decided(NamedTuple):
    """The outcome of a change. `organization` is JSON."""

    command_id: UUID
    org_id: UUID | None
    outcome: str
    code: int
    version: int | None
    position: int | None
    organization: bytes | None
    problem: dict[str, Any] | None
    body: CommandBody
    """The form in which it was decided."""


class Pending(NamedTuple):
    """A change that Kafka has and the worker has not decided yet."""

    command_id: UUID


class Accepted(NamedTuple):
    """A command that was answered with 202."""

    actor: str
    org_id: UUID
    at: datetime
    partition: int | None = None
    """Where Kafka has it, as far as that was told."""
    offset: int | None = None


class Commands:
    """Publishes changes and knows their outcomes. `run` keeps it connected."""

    def __init__(self, settings: Settings, database: Database, policy: Policy) -> None:
        self._settings = settings
        self._database = database
        self._policy = policy
        self._client: OrganizationClient | None = None
        self._pending: dict[UUID, Accepted] = {}
        """Not in Postgres yet."""

    async def run(self) -> None:
        """Keep a client connected, and write down what was accepted while Postgres was away; until cancelled."""
        tries = aiter(
            Patience("Kafka is unavailable, changes cannot be accepted", _CONNECT_WAIT_S, log=log, judge=_judge)
        )
        while True:
            await self._write_pending()
            try:
                await self._connect()
            except (ClientError, OSError) as error:
                await tries.wait(error)
            else:
                tries.succeed()
                await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Disconnect; who still waits for an outcome is told that it is unknown."""
        await self._write_pending()
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def describe_kafka(self) -> str:
        """Whether changes can be taken now, as text."""
        if self._client is None:
            return "not connected: changes are answered with 503"
        try:
            await self._client.ping()
        except ClientError as error:
            return f"unavailable: changes are answered with 503 ({type(error).__name__})"
        unread = self._client.unread
        return "answers" if unread is None else f"responds; outcomes are late where results cannot be read: {unread}"

    def find_accepted(self, command_id: UUID) -> Accepted | None:
        """A command that was accepted and is not in Postgres yet."""
        return self._pending.get(command_id)

    async def execute(self, caller: Caller, change: ChangeRequest) -> Decided | Pending:
        """Publish a change and wait for its outcome.

        Raises:
            ProblemError: 503, nothing is known; 422, the key belongs to another request.
            Exception: Postgres is away (`classify` knows). With an `Idempotency-Key` the request may be repeated.
        """
        tracing, traceparent = active(), TRACEPARENT.get()
        if tracing is None or not is_sampled(traceparent):
            return await self._execute(caller, change)
        about = {"orgs.command.id": str(change.command_id), "orgs.organization.id": str(change.org_id)}
        with tracing.within(f"send {change.command_type}", traceparent, about, sends=True) as found:
            answer = await self._execute(caller, change)
            found["orgs.outcome"] = answer.outcome if isinstance(answer, Decided) else "pending"
            return answer

    async def _execute(self, caller: Caller, change: ChangeRequest) -> Decided | Pending:
        known = await self._known(caller, change) if change.repeatable else None
        if known is not None:
            return known
        body = await self._chosen(caller, change)
        client = self._client
        if client is None:
            raise unavailable(_NOT_SENT + " Nothing was changed.", command_id=str(change.command_id))
        sender = client.on_behalf_of(token=caller.token)
        command = UncheckedCommand(change.command_type, change.org_id, body.value)
        try:
            if change.wait_s <= 0:
                confirm_s = self._settings.edge.outcome_timeout_s
                sent = await sender.send(command, command_id=change.command_id, timeout_s=confirm_s)
                if change.repeatable:
                    await self._known(caller, change)  # the key may belong to another request that came meanwhile
                return await self._accept(caller, change, AcceptReason.ASKED_FOR, sent.partition, sent.offset)
            result = await sender.execute(command, command_id=change.command_id, timeout_s=change.wait_s)
        except OutcomeUnknown as unknown:
            if unknown.confirmed:
                return await self._accept(caller, change, AcceptReason.TIMED_OUT, unknown.partition, unknown.offset)
            raise _unconfirmed(change) from unknown
        except ClientError as error:
            log.warning("a change was not sent", command_id=str(change.command_id), why=type(error).__name__)
            raise unavailable(_NOT_SENT + " Nothing was changed.", command_id=str(change.command_id)) from error
        if not result.final:
            await self._promise(caller, change)  # parked: what an operator decides will be asked for
        known = await self._known(caller, change) if change.repeatable else None
        if known is not None:
            return known
        return _from_result(result, body)

    async def _known(self, caller: Caller, change: ChangeRequest) -> Decided | None:
        """What was decided about the same request before; None where nothing was yet.

        Raises:
            ProblemError: The key belongs to another request (422); or the caller's role is denied by now to read what
                the answer would show (403).
        """
        async with self._database.connect() as conn:
            found = await outcomes.find(conn, change.command_id)
            if found is None or found.request_digest is None:
                return None
            shown = found.org_id if isinstance(found, KnownOutcome) and found.after is not None else None
            hidden = await directory.is_hidden(conn, caller.user_id, shown, self._policy)
        digest, command_type = found.request_digest, change.command_type.encode()
        same = (each for each in change.bodies if is_same_request(digest, digest_request(command_type, each.value)))
        body = next(same, None)
        if body is None:
            raise key_reused()
        if isinstance(found, Undecided):
            return None
        if hidden:
            raise ProblemError(ProblemType.FORBIDDEN, f"Your role is denied {READ}.")
        return Decided(
            found.command_id,
            found.org_id,
            found.outcome,
            found.code,
            found.version,
            found.position,
            None if found.after is None else found.after.encode(),
            None if found.problem is None else orjson.loads(found.problem),
            body,
        )

    async def _chosen(self, caller: Caller, change: ChangeRequest) -> CommandBody:
        """Of several versions the one that the organization has; where it has none of them, any will be rejected."""
        if len(change.bodies) == 1:
            return change.bodies[0]
        async with self._database.connect() as conn:
            seen = await directory.find(conn, caller.user_id, change.org_id, self._policy)
        version = None if seen is None else seen.organization.version
        return next((body for body in change.bodies if body.expected_version == version), change.bodies[0])

    async def _connect(self) -> None:
        """Make a client where there is none, or the one there is can't continue."""
        if self._client is not None and self._client.is_usable:
            return
        if self._client is not None:
            log.error("the outcome client has ended; starting a new one")
            client, self._client = self._client, None
            await client.stop()
        kafka = self._settings.kafka
        client = OrganizationClient(
            source=SOURCE,
            topics=kafka.topics,
            traceparent=TRACEPARENT.get,
            timeout_s=_CONNECT_TIMEOUT_S,
            **kafka.connection(),
        )
        await client.start()
        self._client = client

    async def _accept(
        self, caller: Caller, change: ChangeRequest, why: AcceptReason, partition: int | None, offset: int | None
    ) -> Pending:
        """Remember a command that is answered with 202; where Postgres is away, as soon as it is back."""
        HTTP_ACCEPTED.labels(why).inc()
        await self._promise(caller, change, partition, offset)
        return Pending(change.command_id)

    async def _promise(
        self, caller: Caller, change: ChangeRequest, partition: int | None = None, offset: int | None = None
    ) -> None:
        """Remember who may ask for the outcome of a command."""
        accepted = Accepted(caller.user_id, change.org_id, datetime.now(UTC), partition, offset)
        if not await self._write(change.command_id, accepted) and len(self._pending) < PENDING_MAX:
            self._pending[change.command_id] = accepted

    async def _write_pending(self) -> None:
        for command_id, accepted in list(self._pending.items()):
            if not await self._write(command_id, accepted):
                return
            self._pending.pop(command_id, None)

    async def _write(self, command_id: UUID, accepted: Accepted) -> bool:
        """Whether Postgres has it now."""
        try:
            async with asyncio.timeout(_PROMISE_S), self._database.connect() as conn:
                await accepted_commands.remember(
                    conn,
                    command_id,
                    accepted.actor,
                    accepted.org_id,
                    accepted.at,
                    partition=accepted.partition,
                    offset=accepted.offset,
                )
        except Exception as error:
            if not isinstance(classify(error), RetryError):
                raise
            log.warning("Postgres is unavailable, an accepted command is kept in memory", command_id=str(command_id))
            return False
        return True


def _unconfirmed(change: ChangeRequest) -> ProblemError:
    how = (
        "Retry the same request with the same Idempotency-Key: this is safe."
        if change.repeatable
        else f"See /v1/commands/{change.command_id} for its outcome. An Idempotency-Key makes retries safe."
    )
    return unavailable(f"{_NOT_SENT} It may still take effect. {how}", command_id=str(change.command_id))


def _from_result(result: Result, body: CommandBody) -> Decided:
    organization = result.organization
    return Decided(
        result.command_id,
        result.org_id,
        result.outcome,
        result.code,
        result.version,
        result.position,
        None if organization is None else organization.model_dump_json().encode(),
        None if result.problem is None else result.problem.model_dump(mode="json"),
        body,
    )


def _judge(error: Exception) -> Trouble:
    return Trouble(type(error).__name__)
