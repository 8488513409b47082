"""The fold of a few commands, without anything around it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

from org_events.commands import Command
from org_events.reference import Role
from org_service.auth.policy import load_policy
from org_service.domain.access import NO_RELATIONS, Relations, UserMembership
from org_service.domain.fold import Fold, Plan
from org_service.domain.organization import StoredOrganization
from org_service.domain.outcomes import KeptRecord, KnownOutcome
from org_service.domain.requests import Request
from org_service.domain.snapshot import Snapshot
from org_service.settings import AuthSettings
from org_service.wire.commands import read
from org_service.wire.parked import keep_record
from tests.support.records import FakeRecord, record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = (UUID(int=n, version=4) for n in (1, 2, 3))


def organization(org_id: UUID, name: str) -> StoredOrganization:
    return StoredOrganization(org_id, name, name.lower(), None, None, NOW, NOW, None, None, 1)


def parked_of(plan: Plan) -> list[KeptRecord]:
    return [keep_record(each) for each in plan.parked]


def fold(
    *commands: Command | FakeRecord,
    known: tuple[StoredOrganization, ...] = (),
    held: Mapping[UUID, int] = MappingProxyType({}),
    parked: Mapping[UUID, bytes] = MappingProxyType({}),
    journaled: Collection[KnownOutcome] = (),
    clients: Mapping[UUID, Sequence[tuple[UUID, bool]]] = MappingProxyType({}),
    refused: str | None = None,
    by: str | None = None,
    relations: Relations = NO_RELATIONS,
    queued_max: int = 1_000,
) -> Plan:
    records = [c if isinstance(c, FakeRecord) else record_of(c) for c in commands]
    holders = {o.name_key: o.id for o in known if o.name_key}
    decided = {each.command_id: each for each in journaled}
    snapshot = Snapshot({o.id: o for o in known}, decided, dict(held), dict(parked), holders, relations, clients)
    folding = Fold(snapshot, NOW, load_policy(AuthSettings()), refused=refused, queued_max=queued_max)
    for record in records:
        request = read(record)
        folding.add(request._replace(user_id=by, actor=by) if by and isinstance(request, Request) else request)
    return folding.plan


def outcomes(plan: Plan) -> list[tuple[str, int, int | None]]:
    return [(row.outcome, row.code, row.version) for row in plan.journal]


def related(**roles: Role) -> Relations:
    """Members of A by name; `staff` is staff."""
    memberships = {user: {A: UserMembership(A, role, NOW, active=True)} for user, role in roles.items()}
    return Relations(frozenset({"staff"}), memberships, {})


def id_of(record: FakeRecord) -> UUID:
    return UUID(dict(record.headers)["ce_id"].decode())  # type: ignore[union-attr] - record_of sets it
