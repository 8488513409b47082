"""The fold of one batch: as if each command had a transaction of its own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import pytest

from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.reference import Role
from org_service.auth.policy import load_policy
from org_service.domain import fold as batch
from org_service.domain.access import NO_RELATIONS, Membership, Relations
from org_service.domain.fold import Fold, Plan
from org_service.domain.organization import Organization
from org_service.domain.outcomes import KeptRecord, KnownOutcome
from org_service.domain.requests import Refused, Request, SetAside, Unreadable
from org_service.domain.snapshot import Snapshot, is_torn, names_wanted, restored
from org_service.settings import AuthSettings
from org_service.wire.commands import read
from org_service.wire.parked import keep
from tests.support.records import FakeRecord, record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = (UUID(int=n, version=4) for n in (1, 2, 3))


def organization(org_id: UUID, name: str) -> Organization:
    return Organization(org_id, name, name.lower(), None, None, NOW, NOW, None, None, 1)


def parked_of(plan: Plan) -> list[KeptRecord]:
    return [keep(each) for each in plan.parked]


def fold(
    *commands: Command | FakeRecord,
    known: tuple[Organization, ...] = (),
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


def test_two_organizations_swap_names_in_one_batch() -> None:
    plan = fold(
        UpdateOrganization(org_id=A, name="Between"),
        UpdateOrganization(org_id=B, name="Acme"),
        UpdateOrganization(org_id=A, name="Globex"),
        known=(organization(A, "Acme"), organization(B, "Globex")),
    )
    assert outcomes(plan) == [("applied", 200, 2), ("applied", 200, 2), ("applied", 200, 3)]
    assert {o.id: o.name for o in plan.updated.values()} == {A: "Globex", B: "Acme"}
    assert plan.claimed == {"between", "acme", "globex"}
    assert plan.passing_names() == {"between"}


def test_a_name_taken_earlier_in_the_batch_is_taken_and_a_freed_one_is_free() -> None:
    plan = fold(
        CreateOrganization(org_id=C, name="acme"),
        DeleteOrganization(org_id=A),
        CreateOrganization(org_id=C, name="acme"),
        RestoreOrganization(org_id=A),
        known=(organization(A, "Acme"),),
    )
    assert outcomes(plan) == [("rejected", 409, None), ("applied", 200, 2), ("applied", 200, 1), ("rejected", 409, 2)]


def test_an_organization_made_and_changed_in_one_batch_is_inserted_once() -> None:
    plan = fold(
        CreateOrganization(org_id=A, name="Acme"),
        UpdateOrganization(org_id=A, domain="acme.com"),
        DeleteOrganization(org_id=A),
        RestoreOrganization(org_id=A),
    )
    assert plan.updated == {}
    assert plan.created[A].version == 4
    assert [row.event_type for row in plan.journal] == ["org.created", "org.updated", "org.deleted", "org.restored"]
    for earlier, later in zip(plan.journal[:2], plan.journal[1:3], strict=True):
        assert later.before == earlier.after
    assert plan.journal[2].after is None
    assert plan.journal[3].before is None


def test_a_duplicate_in_the_batch_gets_the_first_outcome() -> None:
    first = record_of(UpdateOrganization(org_id=A, name="New"), command_id := uuid4())
    again = record_of(UpdateOrganization(org_id=A, name="New"), command_id)
    plan = fold(first, again, known=(organization(A, "Acme"),))
    assert outcomes(plan) == [("applied", 200, 2)]
    assert [(reply.kind, reply.of) for reply in plan.replies] == [("duplicate", 0)]


def test_a_command_id_used_for_another_payload_is_refused_and_not_journaled() -> None:
    first = record_of(UpdateOrganization(org_id=A, name="New"), command_id := uuid4())
    other = record_of(UpdateOrganization(org_id=A, name="Other"), command_id)
    plan = fold(first, other, known=(organization(A, "Acme"),))
    assert outcomes(plan) == [("applied", 200, 2)]
    assert [reply.kind for reply in plan.replies] == ["reused"]


def test_a_command_that_makes_our_code_raise_is_parked_and_holds_back_only_its_organization(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide = batch.decide

    def raising(command: Any, *rest: Any, **more: Any) -> Any:
        if getattr(command, "domain", None) == "boom.example":
            raise ZeroDivisionError("a text that may quote the payload")
        return decide(command, *rest, **more)

    monkeypatch.setattr(batch, "decide", raising)
    culprit = record_of(UpdateOrganization(org_id=A, domain="boom.example"))
    behind = record_of(UpdateOrganization(org_id=A, name="Later"))
    plan = fold(
        UpdateOrganization(org_id=A, name="Before"),
        culprit,
        behind,
        UpdateOrganization(org_id=B, name="Elsewhere"),
        record_of(UpdateOrganization(org_id=A, domain="boom.example"), _id(culprit)),
        known=(organization(A, "Acme"), organization(B, "Globex")),
    )
    assert [(row.org_id, row.version) for row in plan.journal] == [(A, 2), (B, 2)]
    assert [(row.offset, row.reason) for row in parked_of(plan)] == [
        (culprit.offset, "handler_raised"),
        (behind.offset, "queued_behind"),
    ]
    assert "payload" not in parked_of(plan)[0].detail
    assert parked_of(plan)[0].detail.startswith("ZeroDivisionError in raising")
    assert (parked_of(plan)[0].key, parked_of(plan)[0].value) == (culprit.key, culprit.value)
    assert [reply.kind for reply in plan.replies] == ["parked", "parked", "parked"]


def test_commands_queue_behind_a_parked_one_of_an_earlier_batch() -> None:
    plan = fold(
        UpdateOrganization(org_id=A, name="Later"),
        UpdateOrganization(org_id=B, name="Elsewhere"),
        known=(organization(A, "Acme"), organization(B, "Globex")),
        held={A: 1},
    )
    assert [row.reason for row in parked_of(plan)] == ["queued_behind"]
    assert [row.org_id for row in plan.journal] == [B]


EVERYTHING = (
    CreateOrganization(org_id=A, name="New"),
    UpdateOrganization(org_id=A, name="New"),
    DeleteOrganization(org_id=A),
    DeactivateOrganization(org_id=A),
    ReactivateOrganization(org_id=A),
    RestoreOrganization(org_id=A),
)
DELETED = organization(A, "Acme")._replace(name_key=None, deleted_at=NOW)


def related(**roles: Role) -> Relations:
    """Members of A by name; `staff` is staff."""
    memberships = {user: {A: Membership(A, role, NOW, active=True)} for user, role in roles.items()}
    return Relations(frozenset({"staff"}), memberships, {})


@pytest.mark.parametrize("known", [(organization(A, "Acme"),), (DELETED,), ()], ids=["there", "deleted", "not there"])
def test_a_stranger_gets_from_an_organization_that_is_held_what_anybody_gets_who_can_not_see_it(
    known: tuple[Organization, ...],
) -> None:
    free = fold(*EVERYTHING[1:], known=known, by="mallory", relations=related())
    held = fold(*EVERYTHING[1:], known=known, by="mallory", relations=related(), held={A: 1})
    assert outcomes(held) == [("rejected", 404, None)] * 5
    assert [(row.code, row.problem) for row in held.journal] == [(row.code, row.problem) for row in free.journal]
    assert (held.parked, held.replies) == ([], [])


def test_an_id_that_is_taken_is_taken_whatever_waits() -> None:
    for known in (organization(A, "Acme"), DELETED):
        plan = fold(EVERYTHING[0], known=(known,), by="staff", relations=related(), held={A: 1})
        assert outcomes(plan) == [("rejected", 409, 1)]
        assert "already-exists" in (plan.journal[0].problem or "")


@pytest.mark.parametrize("known", [(organization(A, "Acme"),), (DELETED,), ()], ids=["there", "deleted", "not there"])
def test_who_may_change_an_organization_waits_in_its_queue(known: tuple[Organization, ...]) -> None:
    for user in ("ann", "staff"):
        plan = fold(*EVERYTHING[1:], known=known, by=user, relations=related(ann=Role.ADMIN), held={A: 1})
        assert [row.reason for row in parked_of(plan)] == ["queued_behind"] * 5
        assert plan.journal == []


def test_nobody_waits_for_what_their_role_is_denied() -> None:
    plan = fold(
        EVERYTHING[1], known=(organization(A, "Acme"),), by="bob", relations=related(bob=Role.USER), held={A: 1}
    )
    assert (outcomes(plan), parked_of(plan)) == ([("rejected", 403, 1)], [])


def test_a_wrong_field_is_told_at_once() -> None:
    update = record_of(UpdateOrganization(org_id=A, name="New"))
    wrong = replace(update, value=f'{{"org_id": "{A}", "name": ""}}'.encode())
    plan = fold(wrong, known=(organization(A, "Acme"),), held={A: 1})
    assert (outcomes(plan), parked_of(plan)) == ([("rejected", 422, 1)], [])


def test_a_queue_takes_no_more_than_its_bound_and_then_says_so() -> None:
    plan = fold(
        *(UpdateOrganization(org_id=A, name=f"New {n}") for n in range(4)),
        UpdateOrganization(org_id=B, name="Elsewhere"),
        known=(organization(A, "Acme"), organization(B, "Globex")),
        held={A: 2, B: 1},
        queued_max=4,
    )
    assert [(row.org_id, row.reason) for row in parked_of(plan)] == [(A, "queued_behind")] * 2 + [(B, "queued_behind")]
    assert outcomes(plan) == [("rejected", 409, 1)] * 2
    assert all("queue-full" in (row.problem or "") for row in plan.journal)


def test_strangers_learn_nothing_of_a_full_queue() -> None:
    plan = fold(
        EVERYTHING[1], known=(organization(A, "Acme"),), by="mallory", relations=related(), held={A: 9}, queued_max=9
    )
    assert outcomes(plan) == [("rejected", 404, None)]


def test_the_id_of_a_parked_command_is_known_and_good_for_no_other_payload() -> None:
    again = record_of(UpdateOrganization(org_id=A, name="New"), command_id := uuid4())
    other = record_of(UpdateOrganization(org_id=A, name="Other"), command_id)
    request = read(again)
    assert isinstance(request, Request)
    plan = fold(again, other, known=(organization(A, "Acme"),), held={A: 1}, parked={command_id: request.digest})
    assert (parked_of(plan), plan.journal) == ([], [])
    assert [reply.kind for reply in plan.replies] == ["parked", "reused"]


def test_what_is_no_command_is_answered_although_its_organization_is_held() -> None:
    broken = record_of(UpdateOrganization(org_id=A, name="Later"))
    plan = fold(
        FakeRecord(broken.key, b"{", broken.headers),
        known=(organization(A, "Acme"),),
        held={A: 1},
    )
    assert [(row.outcome, row.code) for row in plan.journal] == [("rejected", 400)]
    assert parked_of(plan) == []


def test_a_command_whose_data_are_refused_is_parked_and_holds_back_its_organization() -> None:
    plan = fold(UpdateOrganization(org_id=A, name="New"), known=(organization(A, "Acme"),), refused="SQLSTATE 22000")
    assert [(row.reason, row.detail, row.org_id) for row in parked_of(plan)] == [("data_refused", "SQLSTATE 22000", A)]
    assert (plan.journal, [reply.kind for reply in plan.replies]) == ([], ["parked"])


def test_a_command_that_somebody_has_decided_meanwhile_is_not_parked() -> None:
    update = record_of(UpdateOrganization(org_id=A, name="New"))
    request = read(update)
    assert isinstance(request, Request)
    decided = KnownOutcome(
        *(request.command_id, 7, A, 2, "applied", 200, request.digest, update.partition, update.offset),
        *("org.updated", None, None, None, NOW, update.timestamp),
    )
    plan = fold(update, known=(organization(A, "New"),), journaled=[decided], refused="SQLSTATE 22000")
    assert (parked_of(plan), plan.journal, plan.redelivered) == ([], [], 1)


NOW_MS = 1_767_225_600_000
"""`NOW`, in milliseconds since 1970."""


@pytest.mark.parametrize(
    ("first_ms", "again_ms", "answered"),
    [
        pytest.param(NOW_MS - 20, NOW_MS - 20, False, id="the same record"),
        pytest.param(NOW_MS - 20, NOW_MS + 60_000, True, id="another topic of the name"),
        pytest.param(NOW_MS - 20, NOW_MS - 21, True, id="another topic, on a broker whose clock is behind"),
        pytest.param(None, NOW_MS - 20, False, id="the same record, journaled by an older release"),
        pytest.param(None, NOW_MS + 60_000, True, id="another topic since an older release"),
    ],
)
def test_a_command_sent_again_is_answered_though_it_has_the_offset_of_the_first(
    first_ms: int | None, again_ms: int, answered: bool
) -> None:
    """A topic that was created again gives offsets out again: whoever sent the command would wait for ever."""
    again = replace(record_of(UpdateOrganization(org_id=A, name="New")), timestamp=again_ms)
    request = read(again)
    assert isinstance(request, Request)
    first = KnownOutcome(
        *(request.command_id, 7, A, 2, "applied", 200, request.digest, again.partition, again.offset),
        *("org.updated", None, None, None, NOW, first_ms),
    )
    plan = fold(again, known=(organization(A, "New"),), journaled=[first])
    assert [(reply.kind, reply.of) for reply in plan.replies] == ([("duplicate", first)] if answered else [])
    assert plan.redelivered == (not answered)


@pytest.mark.parametrize(("alive", "code"), [(True, 409), (False, 200)])
def test_a_partner_is_not_deleted_as_long_as_it_serves_somebody(alive: bool, code: int) -> None:
    plan = fold(DeleteOrganization(org_id=A), known=(organization(A, "Acme"),), clients={A: [(B, alive)]})
    assert [row.code for row in plan.journal] == [code]


def test_an_organization_that_is_its_own_partner_may_be_deleted() -> None:
    plan = fold(DeleteOrganization(org_id=A), known=(organization(A, "Acme"),), clients={A: [(A, True)]})
    assert [row.code for row in plan.journal] == [200]
    plan = fold(DeleteOrganization(org_id=A), known=(organization(A, "Acme"),), clients={A: [(A, True), (B, True)]})
    assert [row.code for row in plan.journal] == [409]


def test_a_partner_serves_who_was_created_earlier_in_the_batch() -> None:
    plan = fold(
        CreateOrganization(org_id=B, name="Client"),
        DeleteOrganization(org_id=A),
        DeleteOrganization(org_id=B),
        DeleteOrganization(org_id=A),
        known=(organization(A, "Acme"),),
        clients={A: [(B, False)]},
    )
    assert [row.code for row in plan.journal] == [200, 409, 200, 200]


def test_unreadable_bytes_are_parked_and_hold_back_nobody() -> None:
    plan = fold(
        FakeRecord(str(A).encode(), b"\xff", [("ce_id", b"\xff")]),
        UpdateOrganization(org_id=A, name="New"),
        known=(organization(A, "Acme"),),
    )
    assert [(row.reason, row.org_id, row.headers) for row in parked_of(plan)] == [
        ("unreadable", None, '[["ce_id","/w=="]]')
    ]
    assert outcomes(plan) == [("applied", 200, 2)]
    assert plan.replies == []


def with_token(record: FakeRecord, name: str = "authorization") -> FakeRecord:
    return replace(record, headers=[(name, b"Bearer secret"), *record.headers])


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_of_a_parked_command_who_was_verified_is_kept_and_not_the_token(name: str) -> None:
    update = with_token(record_of(UpdateOrganization(org_id=A, name="New")), name)
    known = (organization(A, "Acme"),)
    plan = fold(update, known=known, by="ann", relations=related(ann=Role.ADMIN), held={A: 1})
    assert [(row.actor, row.authenticated_by) for row in parked_of(plan)] == [("ann", "token")]
    assert "authorization" not in parked_of(plan)[0].headers.lower()
    assert "ce_id" in parked_of(plan)[0].headers
    plan = fold(record_of(UpdateOrganization(org_id=A, name="New"), actor="crm"), known=known, held={A: 1})
    assert [(row.actor, row.authenticated_by) for row in parked_of(plan)] == [("crm", "publisher")]


def test_of_a_refusal_that_is_parked_nobody_vouched_for_anybody() -> None:
    """A defect of ours, or the database, may keep a refusal out of the journal as well."""
    request = read(record_of(UpdateOrganization(org_id=A, name="New"), actor=None))
    assert isinstance(request, Request)
    refused = request._replace(command=Refused(request.command.type, "No."))
    assert keep(SetAside(Unreadable(request.record, "why"), refused)).authenticated_by is None
    assert keep(SetAside(Unreadable(request.record, "why"), request)).authenticated_by == "publisher"


def test_of_an_unreadable_record_the_token_is_dropped_and_nobody_was_verified() -> None:
    plan = fold(with_token(FakeRecord(None, b"?", [("ce_authorization", b"Bearer secret"), ("x", b"y")])))
    (row,) = parked_of(plan)
    assert (row.actor, row.authenticated_by, row.headers) == (None, None, '[["x","eQ=="]]')
    assert row.detail == "the header ce_id is missing; its token was not verified, and is not stored"


def test_every_name_that_may_be_claimed_is_asked_for() -> None:
    requests = [
        request
        for command in (
            CreateOrganization(org_id=B, name="Straße"),
            UpdateOrganization(org_id=C, name="ACME"),
            UpdateOrganization(org_id=C, domain=None),
            RestoreOrganization(org_id=A),
        )
        if isinstance(request := read(record_of(command)), Request)
    ]
    assert restored(requests) == [A]
    assert names_wanted(requests, {A: "Old Name"}) == {"strasse", "acme", "old name"}


def journaled(org_id: UUID, outcome: str) -> KnownOutcome:
    return KnownOutcome(uuid4(), 1, org_id, 1, outcome, 200, b"", 0, 0, None, None, None, None, NOW)


@pytest.mark.parametrize(
    ("holders", "known", "names", "torn"),
    [
        ({"acme": A}, [], {}, False),
        ({"globex": B}, [], {}, True),
        ({}, [journaled(A, "applied")], {}, False),
        ({}, [journaled(B, "applied")], {}, True),
        ({}, [journaled(B, "rejected")], {}, False),
        ({}, [journaled(C, "applied")], {}, False),
        ({}, [], {A: "Acme"}, False),
        ({}, [], {A: "Another"}, True),
    ],
)
def test_a_snapshot_into_which_another_transaction_got_is_torn(
    holders: dict[str, UUID], known: list[KnownOutcome], names: dict[UUID, str], torn: bool
) -> None:
    snapshot = Snapshot({A: organization(A, "Acme")}, {each.command_id: each for each in known}, {}, {}, holders)
    assert is_torn(snapshot, {A, B}, names) is torn


def _id(record: FakeRecord) -> UUID:
    return UUID(dict(record.headers)["ce_id"].decode())  # type: ignore[union-attr] - record_of sets it
