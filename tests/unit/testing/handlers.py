"""Handlers of subscribers: one that is right, in two forms, and each classic mistake."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from org_events import EventType, Organization
from org_events.testing import DeliveredChange, Message

KNOWN = {*EventType, "organization", "organization-deleted"}


class Handler:
    """Keeps each organization; the mistakes differ from it in one thing each."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.rows: dict[Any, Any] = {}
        self.versions: dict[UUID, int] = {}

    def state(self) -> object:
        return self.rows

    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return dict(organizations)

    async def handle(self, change: DeliveredChange) -> None:
        if change.version <= self.versions.get(change.org_id, 0):
            return
        await asyncio.sleep(0)  # to a database
        self.apply(change)
        self.versions[change.org_id] = change.version

    def apply(self, change: DeliveredChange) -> None:
        if change.after is None:
            self.rows.pop(change.org_id, None)
        else:
            self.rows[change.org_id] = change.after


class NoDeduplication(Handler):
    async def handle(self, change: DeliveredChange) -> None:
        self.apply(change)


class CountsInPlace(Handler):
    def reset(self) -> None:
        self.count = 0

    def state(self) -> object:
        return self.count

    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return len(organizations)

    async def handle(self, change: DeliveredChange) -> None:
        self.count += (change.after is not None) - (change.before is not None)
        if change.type == EventType.ERASED:
            return


class IgnoresTombstones(Handler):
    def apply(self, change: DeliveredChange) -> None:
        if change.after is not None or change.type.startswith("org."):
            super().apply(change)


class RaisesOnUnknownTypes(Handler):
    async def handle(self, change: DeliveredChange) -> None:
        if change.type not in KNOWN:
            raise ValueError(f"{change.type} is not an event")
        await super().handle(change)


class TrustsBefore(Handler):
    """An index by name."""

    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return {organization.name: org_id for org_id, organization in organizations.items()}

    def apply(self, change: DeliveredChange) -> None:
        if change.before is not None and self.rows.get(change.before.name) == change.org_id:
            del self.rows[change.before.name]
        if change.after is not None:
            self.rows[change.after.name] = change.org_id


class KeepsTheVersionFirst(Handler):
    async def handle(self, change: DeliveredChange) -> None:
        if change.version <= self.versions.get(change.org_id, 0):
            return
        self.versions[change.org_id] = change.version
        await asyncio.sleep(0)
        self.apply(change)


class ForgetsVersions(Handler):
    async def handle(self, change: DeliveredChange) -> None:
        await super().handle(change)
        if change.after is None:
            self.versions.pop(change.org_id, None)


class NeedsBefore(Handler):
    def apply(self, change: DeliveredChange) -> None:
        super().apply(change)
        if change.type == EventType.ERASED:
            assert change.org_id in self.rows or self.versions.get(change.org_id), "nothing to erase"


class ExpectsNothing(Handler):
    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return {}


@dataclass
class Row:
    """As a program might declare it that builds rows of whatever an organization has."""

    FIELDS: ClassVar = "id name domain created_at updated_at primary_address deactivated deactivated_at version".split()
    id: str
    name: str
    domain: str | None
    created_at: str
    updated_at: str
    primary_address: Any
    deactivated: bool
    deactivated_at: str | None
    version: int


class OfRecords(Handler):
    """Reads records itself."""

    make: ClassVar[Callable[..., Any]] = staticmethod(lambda **members: members["name"])

    def expect(self, organizations: Mapping[UUID, Organization]) -> object:
        return {str(org_id): organization.name for org_id, organization in organizations.items()}

    def handle(self, message: Message) -> Awaitable[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.read(message)

    async def read(self, message: Message) -> None:
        org_id, version = message.key.decode(), int(message.header["ce_orgversion"])
        if version <= self.versions.get(org_id, 0):  # type: ignore[arg-type]
            return
        body = json.loads(message.value or b"null")
        after = body if message.topic == "orgs.state" or body is None else body["after"]
        self.rows.pop(org_id, None)
        if after is not None:
            self.rows[org_id] = self.make(**after)
        self.versions[org_id] = version  # type: ignore[index]


class PassesMembersOn(OfRecords):
    make = staticmethod(lambda **members: Row(**members).name)


class KnowsRecordsByOffset(OfRecords):
    def reset(self) -> None:
        super().reset()
        self.offset = -1

    async def read(self, message: Message) -> None:
        if message.offset > self.offset:
            self.offset = message.offset
            await super().read(message)
