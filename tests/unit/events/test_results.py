"""Events and results as other programs read them: leniently."""

import json
from typing import Any

import pytest

from org_events.events import EventType, OrganizationEvent
from org_events.results import PROBLEMS, Outcome, Problem, ProblemType, Result

ORG_TEXT = "0192d3a0-0000-7000-8000-000000000001"
COMMAND_TEXT = "0192d3a0-0000-7000-8000-0000000000aa"
ORGANIZATION: dict[str, Any] = {
    "id": ORG_TEXT,
    "name": "Acme",
    "domain": "acme.com",
    "created_at": "2025-01-02T03:04:05.678901Z",
    "updated_at": "2025-01-02T03:04:05.678901Z",
    "primary_address": None,
    "deactivated": False,
    "deactivated_at": None,
    "version": 2,
}
EVENT: dict[str, Any] = {
    "org_id": ORG_TEXT,
    "version": 2,
    "position": 40,
    "changed": ["domain"],
    "before": ORGANIZATION | {"domain": None, "version": 1},
    "after": ORGANIZATION,
    "command_id": COMMAND_TEXT,
    "actor": None,
    "recorded_at": "2025-01-02T03:04:05.678901Z",
}
RESULT: dict[str, Any] = {
    "command_id": COMMAND_TEXT,
    "org_id": ORG_TEXT,
    "outcome": "rejected",
    "code": 422,
    "version": 2,
    "organization": None,
    "position": 41,
    "problem": {
        "type": "urn:orgs:problem:invalid-fields",
        "title": "A field is invalid",
        "status": 422,
        "detail": "1 field(s) of org.update are invalid; see errors.",
        "errors": [{"path": "domain", "code": "too_few_labels", "message": "…"}],
    },
    "final": True,
}


def test_an_event_survives_a_round_trip_and_ignores_what_it_does_not_know() -> None:
    event = OrganizationEvent.model_validate_json(json.dumps(EVENT | {"reason": "merger"}))
    assert event.model_dump(mode="json") == EVENT


def test_a_result_survives_a_round_trip_and_ignores_what_it_does_not_know() -> None:
    result = Result.model_validate_json(json.dumps(RESULT | {"node": 3}))
    assert result.outcome is Outcome.REJECTED
    assert result.model_dump(mode="json") == RESULT


def test_a_problem_of_a_type_this_copy_does_not_know_is_read() -> None:
    problem = {"type": "urn:orgs:problem:quota", "title": "t", "status": 429, "detail": "d"}
    result = Result.model_validate(RESULT | {"problem": problem})
    assert result.problem == Problem(type="urn:orgs:problem:quota", title="t", status=429, detail="d", errors=[])


def test_every_problem_type_has_a_status_of_the_contract_and_a_title() -> None:
    assert {problem: status for problem, (status, _) in PROBLEMS.items()} == {
        ProblemType.UNREADABLE: 400,
        ProblemType.UNAUTHENTICATED: 401,
        ProblemType.FORBIDDEN: 403,
        ProblemType.NOT_FOUND: 404,
        ProblemType.INVALID_FIELDS: 422,
        ProblemType.COMMAND_ID_REUSED: 422,
        ProblemType.ALREADY_EXISTS: 409,
        ProblemType.PRECONDITION: 409,
        ProblemType.ERASED: 410,
        ProblemType.DEACTIVATED: 409,
        ProblemType.NAME_TAKEN: 409,
        ProblemType.STILL_PARTNER: 409,
        ProblemType.QUEUE_FULL: 409,
        ProblemType.PARKED: 500,
        ProblemType.DISCARDED: 500,
    }
    assert all(title for _, title in PROBLEMS.values())


@pytest.mark.parametrize("name", ["created", "updated", "deleted", "deactivated", "reactivated", "restored", "erased"])
def test_every_event_type_is_on_the_wire_as_the_contract_says(name: str) -> None:
    assert EventType(f"org.{name}")
