"""What the fold of a batch parks, and who waits behind it."""

from dataclasses import replace
from uuid import uuid4

import pytest

from org_events.commands import (
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.reference import Role
from org_service.domain.organization import StoredOrganization
from org_service.domain.outcomes import KnownOutcome
from org_service.domain.requests import Request
from org_service.wire.commands import read
from tests.support.probing import probing
from tests.support.records import FakeRecord, record_of
from tests.unit.domain.folding import NOW, A, B, fold, id_of, organization, outcomes, parked_of, related


def test_a_command_that_makes_our_code_raise_is_parked_and_holds_back_only_its_organization() -> None:
    def raising(request: Request) -> None:
        if getattr(request.command, "domain", None) == "boom.example":
            raise ZeroDivisionError("a text that may quote the payload")

    culprit = record_of(UpdateOrganization(org_id=A, domain="boom.example"))
    behind = record_of(UpdateOrganization(org_id=A, name="Later"))
    with probing("apply.before_decide", raising):
        plan = fold(
            UpdateOrganization(org_id=A, name="Before"),
            culprit,
            behind,
            UpdateOrganization(org_id=B, name="Elsewhere"),
            record_of(UpdateOrganization(org_id=A, domain="boom.example"), id_of(culprit)),
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


@pytest.mark.parametrize("known", [(organization(A, "Acme"),), (DELETED,), ()], ids=["there", "deleted", "not there"])
def test_a_caller_who_cannot_see_a_held_organization_gets_the_usual_404(
    known: tuple[StoredOrganization, ...],
) -> None:
    free = fold(*EVERYTHING[1:], known=known, by="mallory", relations=related())
    held = fold(*EVERYTHING[1:], known=known, by="mallory", relations=related(), held={A: 1})
    assert outcomes(held) == [("rejected", 404, None)] * 5
    assert [(row.code, row.problem) for row in held.journal] == [(row.code, row.problem) for row in free.journal]
    assert (held.parked, held.replies) == ([], [])


def test_a_taken_id_is_rejected_even_if_commands_wait() -> None:
    for known in (organization(A, "Acme"), DELETED):
        plan = fold(EVERYTHING[0], known=(known,), by="staff", relations=related(), held={A: 1})
        assert outcomes(plan) == [("rejected", 409, 1)]
        assert "already-exists" in (plan.journal[0].problem or "")


@pytest.mark.parametrize("known", [(organization(A, "Acme"),), (DELETED,), ()], ids=["there", "deleted", "not there"])
def test_a_permitted_command_waits_in_the_queue_of_its_organization(known: tuple[StoredOrganization, ...]) -> None:
    for user in ("ann", "staff"):
        plan = fold(*EVERYTHING[1:], known=known, by=user, relations=related(ann=Role.ADMIN), held={A: 1})
        assert [row.reason for row in parked_of(plan)] == ["queued_behind"] * 5
        assert plan.journal == []


def test_a_command_that_the_role_denies_is_rejected_without_waiting() -> None:
    plan = fold(
        EVERYTHING[1], known=(organization(A, "Acme"),), by="bob", relations=related(bob=Role.USER), held={A: 1}
    )
    assert (outcomes(plan), parked_of(plan)) == ([("rejected", 403, 1)], [])


def test_a_wrong_field_is_rejected_without_waiting() -> None:
    update = record_of(UpdateOrganization(org_id=A, name="New"))
    wrong = replace(update, value=f'{{"org_id": "{A}", "name": ""}}'.encode())
    plan = fold(wrong, known=(organization(A, "Acme"),), held={A: 1})
    assert (outcomes(plan), parked_of(plan)) == ([("rejected", 422, 1)], [])


def test_a_full_queue_rejects_further_commands() -> None:
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


def test_callers_who_cannot_see_the_organization_learn_nothing_of_a_full_queue() -> None:
    plan = fold(
        EVERYTHING[1], known=(organization(A, "Acme"),), by="mallory", relations=related(), held={A: 9}, queued_max=9
    )
    assert outcomes(plan) == [("rejected", 404, None)]


def test_the_id_of_a_parked_command_cannot_be_reused_for_another_payload() -> None:
    again = record_of(UpdateOrganization(org_id=A, name="New"), command_id := uuid4())
    other = record_of(UpdateOrganization(org_id=A, name="Other"), command_id)
    request = read(again)
    assert isinstance(request, Request)
    plan = fold(again, other, known=(organization(A, "Acme"),), held={A: 1}, parked={command_id: request.digest})
    assert (parked_of(plan), plan.journal) == ([], [])
    assert [reply.kind for reply in plan.replies] == ["parked", "command_id_reused"]


def test_a_malformed_command_is_answered_although_its_organization_is_held() -> None:
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


def test_a_command_decided_in_the_meantime_is_not_parked() -> None:
    update = record_of(UpdateOrganization(org_id=A, name="New"))
    request = read(update)
    assert isinstance(request, Request)
    decided = KnownOutcome(
        *(request.command_id, 7, A, 2, "applied", 200, request.digest, update.partition, update.offset),
        *("org.updated", None, None, None, NOW, update.timestamp),
    )
    plan = fold(update, known=(organization(A, "New"),), journaled=[decided], refused="SQLSTATE 22000")
    assert (parked_of(plan), plan.journal, plan.redelivered) == ([], [], 1)
