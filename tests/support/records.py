"""Command records as Kafka would hand them over, for tests that drive the worker without a broker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID, uuid4

from org_events.cloudevents import command_headers
from org_events.commands import Command

_offsets = count()


@dataclass(frozen=True)
class FakeRecord:
    """What the worker reads of `aiokafka.ConsumerRecord`; offsets grow with every record made."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int = 0
    offset: int = field(default_factory=lambda: next(_offsets))
    topic: str = "orgs.commands"
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))
    timestamp_type: int = 1


def record_of(
    command: Command, command_id: UUID | None = None, *, actor: str | None = "tester", partition: int = 0
) -> FakeRecord:
    """A binary-mode record of `command`."""
    headers = command_headers(command_id=command_id or uuid4(), command_type=command.type, source="/tests", actor=actor)
    return FakeRecord(str(command.org_id).encode(), command.to_body(), headers, partition)
