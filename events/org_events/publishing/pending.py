"""A command between the producer and its outcome, and what it means when one of the two fails."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from aiokafka.structs import RecordMetadata

from org_events.commands import AnyCommand
from org_events.publishing.connection import REFUSALS
from org_events.publishing.errors import ClientError, KafkaRefused, OutcomeUnknown
from org_events.publishing.outcomes import Expected


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command handed to the producer."""

    command_id: UUID
    command: AnyCommand
    acknowledged: asyncio.Future[RecordMetadata]
    outcome: asyncio.Future[bytes]
    deadline: float


def failure_of(error: BaseException, command_id: UUID, command: AnyCommand | None) -> ClientError:
    """What to raise for a command that the producer, or the reader of outcomes, failed with."""
    if isinstance(error, REFUSALS):
        return KafkaRefused(f"Kafka refuses the command {command_id}: {error!r}")
    return OutcomeUnknown(str(error) or repr(error), command_id, command)


def hand_on_failure(
    expected: Expected, command_id: UUID, outcome: asyncio.Future[bytes], acknowledged: asyncio.Future[RecordMetadata]
) -> None:
    """Without an acknowledgement don't wait for an outcome until the time is up."""
    if not acknowledged.cancelled() and (error := acknowledged.exception()) is not None:
        expected.fail(command_id, outcome, error)
