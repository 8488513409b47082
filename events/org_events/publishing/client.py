"""What a publishing service uses: one typed call a command, a clear outcome for each, no fear of retrying.

    async with OrganizationClient(bootstrap_servers="kafka:9092", source="/billing") as orgs:
        result = await orgs.update(org_id, name="Acme", expected_version=7)
        if result.outcome is Outcome.REJECTED:
            print(result.code, result.problem.detail)

A rejection is a value (`Result`), never an exception. An exception means that there is no outcome: either nothing was
sent, or, `OutcomeUnknown`, the same command should be sent again with the same command id, which is always safe.

A `parked` result is handed out like any other, with `final=False`: an operator decides, perhaps in hours. Whoever
wants to wait for that calls `outcome` again.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Self, Unpack, cast
from uuid import UUID

from aiokafka.errors import KafkaError

from org_events.cloudevents import command_headers
from org_events.commands import (
    AnyCommand,
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
    body_to_send,
)
from org_events.ids import uuid7
from org_events.publishing.arguments import CreateOptions, ExistingOptions, UpdateOptions
from org_events.publishing.connection import REFUSALS, Connection, ConnectionOptions
from org_events.publishing.errors import KafkaRefused, KafkaUnavailable, OutcomeUnknown
from org_events.publishing.interest import keys_of_result
from org_events.publishing.outcomes import wait_until
from org_events.publishing.pending import PendingCommand, failure_of, hand_on_failure
from org_events.publishing.tokens import TokenSource, authorization_of
from org_events.publishing.tracing import sending
from org_events.results import Result
from org_events.topics import Topics

TIMEOUT_S: Final = 30.0
"""For an outcome, unless a call says otherwise: it takes milliseconds, except while something is down."""
IN_FLIGHT_MAX: Final = 5_000
"""Commands of one `execute_many` sent but not yet handed out; more gains nothing, each holds about 2 KB."""
_SENDS_A_TURN: Final = 64
"""How many sends may follow each other before other tasks get a turn."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that is durable in Kafka: it will have an outcome."""

    command_id: UUID
    partition: int
    offset: int
    timestamp: datetime
    """The broker's, UTC."""


class OrganizationClient:
    """Sends commands and waits for their outcomes. One a process is enough; calls may run concurrently.

    Args:
        bootstrap_servers: `host:port`, comma-separated.
        source: Names the publishing service, as a URI reference: `/billing`.
        topics: Their names, where they have a prefix.
        actor: On whose behalf, for brokers that trust their publishers.
        token: A JWT that names the actor, or a function, plain or async, that gives a fresh one for each command; as
            `ClientCredentials` does.
        traceparent: Gives the W3C trace context of the current command, or None. Without it, and where OpenTelemetry
            is installed, each command gets a span in the current trace, which ends with its outcome.
        timeout_s: For an outcome, and to connect.
        options: Passed on to aiokafka's producer and consumer: `security_protocol`, `ssl_context`, `sasl_…`.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        source: str,
        topics: Topics | None = None,
        actor: str | None = None,
        token: TokenSource | None = None,
        traceparent: Callable[[], str | None] | None = None,
        timeout_s: float = TIMEOUT_S,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        self._connection = Connection(bootstrap_servers, topics or Topics(), options)
        self._source = source
        self._actor = actor
        self._token = token
        self._traceparent = traceparent
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect, and begin to read results: from here on no outcome can be missed.

        Raises:
            KafkaUnavailable: No connection within `timeout_s`. Nothing is left open, it may be tried again.
            TopicMissing: The topics are not there.
            KafkaRefused: This user may not use them.
        """
        await self._connection.start(self._timeout_s)

    async def stop(self) -> None:
        """Wait a few seconds for what is on its way to Kafka, then disconnect.

        Who still waits for an outcome gets `OutcomeUnknown`. May be called again.
        """
        await self._connection.stop()

    @property
    def is_usable(self) -> bool:
        """False before the start, after the stop, and once the reader of outcomes has died: start a new client."""
        return self._connection.is_usable

    @property
    def unread(self) -> str | None:
        """Partitions of the results that can't be read, as text; outcomes in them come when they are fixed."""
        return self._connection.unread

    async def ping(self) -> None:
        """Ask a broker for its metadata.

        Raises:
            KafkaUnavailable: None answers.
            NotConnected: Not started, stopped, or the reader of outcomes has died: start a new client.
        """
        if not await self._connection.publisher().can_reach_broker():
            raise KafkaUnavailable("No broker responds")

    def on_behalf_of(self, actor: str | None = None, *, token: TokenSource | None = None) -> Self:
        """The same client with another actor; it shares the connection and needs no start or stop of its own."""
        view = copy.copy(self)
        view._actor, view._token = actor, token
        return view

    async def create(self, org_id: UUID, *, name: str, **arguments: Unpack[CreateOptions]) -> Result:
        """Create an organization under an id of your choice; see `execute`."""
        return await self._call(CreateOrganization, org_id, name=name, **arguments)

    async def update(self, org_id: UUID, **arguments: Unpack[UpdateOptions]) -> Result:
        """Change the fields that are given, None clears; see `execute`."""
        return await self._call(UpdateOrganization, org_id, **arguments)

    async def delete(self, org_id: UUID, **arguments: Unpack[ExistingOptions]) -> Result:
        """Delete an organization; see `execute`."""
        return await self._call(DeleteOrganization, org_id, **arguments)

    async def deactivate(self, org_id: UUID, **arguments: Unpack[ExistingOptions]) -> Result:
        """Deactivate an organization; see `execute`."""
        return await self._call(DeactivateOrganization, org_id, **arguments)

    async def reactivate(self, org_id: UUID, **arguments: Unpack[ExistingOptions]) -> Result:
        """Take a deactivation back; see `execute`."""
        return await self._call(ReactivateOrganization, org_id, **arguments)

    async def restore(self, org_id: UUID, **arguments: Unpack[ExistingOptions]) -> Result:
        """Bring a deleted organization back; see `execute`."""
        return await self._call(RestoreOrganization, org_id, **arguments)

    async def execute(
        self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None
    ) -> Result:
        """Send a command and wait for its outcome.

        Args:
            command: What to do.
            command_id: Give the id of the first try to retry; None takes a new one.
            timeout_s: None takes the client's.

        Returns:
            The outcome, rejections and `parked` included.

        Raises:
            OutcomeUnknown: None came in time. Send the same command with the same id again; that is safe.
            KafkaUnavailable, KafkaRefused, NotConnected, TokenUnavailable, TokenRefused: Nothing was sent.
            ValueError: The command is larger than the service reads, or its id is none; nothing was sent.
        """
        sending = await self._send(command, command_id, timeout_s)
        try:
            return await self._result(sending.command_id, sending.outcome, sending.deadline, command)
        except OutcomeUnknown as unknown:
            acknowledged = sending.acknowledged
            unknown.confirmed = acknowledged.done() and not acknowledged.cancelled() and not acknowledged.exception()
            if unknown.confirmed:
                unknown.partition, unknown.offset = acknowledged.result().partition, acknowledged.result().offset
            raise

    async def send(
        self, command: AnyCommand, *, command_id: UUID | None = None, timeout_s: float | None = None
    ) -> Sent:
        """Send a command without waiting for its outcome; `outcome` may be asked for later.

        Calls awaited one after the other reach the service in this order, for each organization.

        Returns:
            Once all in-sync replicas have the command.

        Raises:
            OutcomeUnknown: Kafka did not confirm in time; send the same command with the same id again.
            KafkaUnavailable, KafkaRefused, NotConnected, TokenUnavailable, TokenRefused, ValueError: As `execute`.
        """
        sending = await self._send(command, command_id, timeout_s)
        try:
            await wait_until(sending.acknowledged, sending.deadline)
        finally:
            self._connection.expected.leave(sending.command_id)
        if not sending.acknowledged.done():
            raise OutcomeUnknown("Kafka did not confirm it in time", sending.command_id, command)
        if error := sending.acknowledged.exception():
            raise failure_of(error, sending.command_id, command) from error
        at = sending.acknowledged.result()
        timestamp_ms = cast("int", at.timestamp)
        return Sent(sending.command_id, at.partition, at.offset, datetime.fromtimestamp(timestamp_ms / 1000, UTC))

    async def outcome(self, command_id: UUID, *, timeout_s: float | None = None) -> Result:
        """Wait for the outcome of a command that this client sent; each is handed out once.

        Outcomes nobody asked for are kept up to `UNCLAIMED_MAX`, the oldest go first. For one that is gone, or was sent
        by another process, send the command again with the same id: the answer is the first outcome. After a `parked`
        result, another call waits for what the operator decides.

        Raises:
            OutcomeUnknown: None came in time; it may be asked for again.
        """
        deadline = self._deadline(timeout_s)
        outcome = await self._connection.claim(command_id, deadline)
        return await self._result(command_id, outcome, deadline, None)

    async def execute_many(
        self,
        commands: Iterable[Command | tuple[UUID, Command]] | AsyncIterable[Command | tuple[UUID, Command]],
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Send many commands, many at a time, and give their outcomes in the same order.

        Thousands a second flow, in bounded memory: a command is taken from `commands` only when fewer than
        `in_flight_max` are on their way. Commands of one organization are decided in the order given.

        Args:
            commands: With a command id each where the whole may be run again after a failure: what was done before is
                then not done twice, and gets its first outcome again.
            in_flight_max: Sent, but not yet handed out.
            timeout_s: For each outcome, from the moment its command was sent.

        Raises:
            OutcomeUnknown: For the first command without an outcome in time. All before it were handed out; of those
                after it some may have been applied. Run the whole, or the rest, again with the same ids.
            Exception: What `commands` raised, after the outcomes of all that came before.
            ValueError: `in_flight_max` is less than 1; nothing was sent.
        """
        if in_flight_max < 1:
            raise ValueError("in_flight_max must be 1 or more")
        slots = asyncio.Semaphore(in_flight_max)
        sendings: asyncio.Queue[PendingCommand | None] = asyncio.Queue()

        async def pump() -> None:
            sent = 0
            try:
                async for command_id, command in _with_ids(commands):
                    await slots.acquire()
                    sendings.put_nowait(await self._send(command, command_id, timeout_s))
                    sent += 1
                    if sent % _SENDS_A_TURN == 0:
                        await asyncio.sleep(0)
            finally:
                sendings.put_nowait(None)

        pumping = asyncio.create_task(pump(), name="org-events execute_many")
        try:
            while (sending := await sendings.get()) is not None:
                result = await self._result(sending.command_id, sending.outcome, sending.deadline, sending.command)
                slots.release()
                yield result
            await pumping
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
            while not sendings.empty():
                if (left := sendings.get_nowait()) is not None:
                    self._connection.expected.leave(left.command_id)

    async def _call(
        self,
        model: type[Command],
        org_id: UUID,
        *,
        command_id: UUID | None = None,
        timeout_s: float | None = None,
        **fields: object,
    ) -> Result:
        command = model.model_validate({"org_id": org_id, **fields})
        return await self.execute(command, command_id=command_id, timeout_s=timeout_s)

    def _deadline(self, timeout_s: float | None) -> float:
        return asyncio.get_running_loop().time() + (self._timeout_s if timeout_s is None else timeout_s)

    async def _send(self, command: AnyCommand, command_id: UUID | None, timeout_s: float | None) -> PendingCommand:
        """Hand a command to the producer, inside the caller's trace; its outcome is expected from here on."""
        command_id = command_id or uuid7()
        if self._traceparent is not None:
            return await self._hand_over(command, command_id, timeout_s, self._traceparent())
        with sending(command.type, command_id) as span:
            pending = await self._hand_over(command, command_id, timeout_s, span.traceparent)
            span.end_with(pending.outcome, pending.deadline)
            return pending

    async def _hand_over(
        self, command: AnyCommand, command_id: UUID, timeout_s: float | None, traceparent: str | None
    ) -> PendingCommand:
        body = body_to_send(command, command_id)
        publisher, expected = self._connection.publisher(), self._connection.expected
        deadline = self._deadline(timeout_s)
        headers = command_headers(
            command_id=command_id,
            command_type=command.type,
            source=self._source,
            actor=self._actor,
            authorization=await authorization_of(self._token, deadline),
            traceparent=traceparent,
        )
        keys = keys_of_result(command, command_id)
        outcome = await self._connection.expect(command_id, hash((command.type, body)), keys, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                acknowledged = await publisher.append(str(command.org_id).encode(), body, headers)
        except BaseException as error:
            expected.withdraw(command_id)
            if isinstance(error, REFUSALS):
                raise KafkaRefused(f"Kafka refuses {command.type} {command_id}: {error!r}") from error
            if isinstance(error, KafkaError | TimeoutError):
                raise KafkaUnavailable(f"Kafka is unavailable: {command.type} {command_id} was not sent") from error
            raise
        acknowledged.add_done_callback(partial(hand_on_failure, expected, command_id, outcome))
        return PendingCommand(command_id, command, acknowledged, outcome, deadline)

    async def _result(
        self, command_id: UUID, outcome: asyncio.Future[bytes], deadline: float, command: AnyCommand | None
    ) -> Result:
        expected = self._connection.expected
        try:
            await wait_until(outcome, deadline)
        except BaseException:
            expected.leave(command_id)  # though it may be here by now: nobody takes it
            raise
        if not outcome.done():
            expected.leave(command_id)
            unread = f", and results cannot be read: {self.unread}" if self.unread else ""
            raise OutcomeUnknown(f"none arrived in time{unread}", command_id, command)
        is_final = True
        try:
            if error := outcome.exception():
                raise failure_of(error, command_id, command) from error
            result = Result.model_validate_json(outcome.result())
            is_final = result.final
            return result
        finally:
            expected.forget(command_id, outcome, is_final=is_final)


async def _with_ids(
    commands: Iterable[Command | tuple[UUID, Command]] | AsyncIterable[Command | tuple[UUID, Command]],
) -> AsyncIterator[tuple[UUID, Command]]:
    if isinstance(commands, AsyncIterable):
        async for item in commands:
            yield item if isinstance(item, tuple) else (uuid7(), item)
    else:
        for item in commands:
            yield item if isinstance(item, tuple) else (uuid7(), item)
