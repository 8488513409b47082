"""The fold of one batch: as if each command had a transaction of its own."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from org_events.commands import (
    CreateOrganization,
    DeleteOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.reference import Role
from org_service.domain.outcomes import KnownOutcome
from org_service.domain.requests import Rejected, Request, SetAside, Unreadable
from org_service.domain.snapshot import Snapshot, find_restored, find_wanted_names, is_torn
from org_service.wire.commands import read
from org_service.wire.parked import keep_record
from tests.support.records import FakeRecord, record_of
from tests.unit.domain.folding import NOW, A, B, C, fold, organization, outcomes, parked_of, related


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
    assert plan.find_passing_names() == {"between"}


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


def test_a_command_id_used_for_another_payload_is_rejected_and_not_journaled() -> None:
    first = record_of(UpdateOrganization(org_id=A, name="New"), command_id := uuid4())
    other = record_of(UpdateOrganization(org_id=A, name="Other"), command_id)
    plan = fold(first, other, known=(organization(A, "Acme"),))
    assert outcomes(plan) == [("applied", 200, 2)]
    assert [reply.kind for reply in plan.replies] == ["command_id_reused"]


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


def test_a_partner_serves_a_client_created_earlier_in_the_batch() -> None:
    plan = fold(
        CreateOrganization(org_id=B, name="Client"),
        DeleteOrganization(org_id=A),
        DeleteOrganization(org_id=B),
        DeleteOrganization(org_id=A),
        known=(organization(A, "Acme"),),
        clients={A: [(B, False)]},
    )
    assert [row.code for row in plan.journal] == [200, 409, 200, 200]


def test_unreadable_records_are_parked_and_hold_back_no_organization() -> None:
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
def test_a_parked_command_keeps_the_verified_user_and_not_the_token(name: str) -> None:
    update = with_token(record_of(UpdateOrganization(org_id=A, name="New")), name)
    known = (organization(A, "Acme"),)
    plan = fold(update, known=known, by="ann", relations=related(ann=Role.ADMIN), held={A: 1})
    assert [(row.actor, row.authenticated_by) for row in parked_of(plan)] == [("ann", "token")]
    assert "authorization" not in parked_of(plan)[0].headers.lower()
    assert "ce_id" in parked_of(plan)[0].headers
    plan = fold(record_of(UpdateOrganization(org_id=A, name="New"), actor="crm"), known=known, held={A: 1})
    assert [(row.actor, row.authenticated_by) for row in parked_of(plan)] == [("crm", "publisher")]


def test_a_parked_rejection_has_no_verified_user() -> None:
    """A defect of ours, or the database, may keep a rejection out of the journal as well."""
    request = read(record_of(UpdateOrganization(org_id=A, name="New"), actor=None))
    assert isinstance(request, Request)
    rejected = request._replace(command=Rejected(request.command.type, "No."))
    assert keep_record(SetAside(Unreadable(request.record, "why"), rejected)).authenticated_by is None
    assert keep_record(SetAside(Unreadable(request.record, "why"), request)).authenticated_by == "publisher"


def test_an_unreadable_record_keeps_no_token_and_has_no_verified_user() -> None:
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
    assert find_restored(requests) == [A]
    assert find_wanted_names(requests, {A: "Old Name"}) == {"strasse", "acme", "old name"}


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
def test_a_snapshot_with_another_transactions_commit_in_it_is_torn(
    holders: dict[str, UUID], known: list[KnownOutcome], names: dict[UUID, str], torn: bool
) -> None:
    snapshot = Snapshot({A: organization(A, "Acme")}, {each.command_id: each for each in known}, {}, {}, holders)
    assert is_torn(snapshot, {A, B}, names) is torn
