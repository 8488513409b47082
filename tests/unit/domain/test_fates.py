"""Two accounts of a command: what differs is named, and when it was recorded is no difference."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from org_service.domain.fates import Fate, compare, leaves_another_state
from org_service.domain.outcomes import NewOutcome

NOW, LATER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
MOMENT = "2026-11-01T00:00:00+00:00"


def organization(moment: datetime, **others: Any) -> str:
    document = {"name": "Acme", "updated_at": moment, "deactivated": False} | others
    return orjson.dumps(document).decode()


def row(moment: datetime = NOW, **others: Any) -> NewOutcome:
    plain = NewOutcome(
        UUID(int=1), UUID(int=2), 2, "org.update", "org.updated", "applied", 200, "ann", b"\1", 0, 7, '["name"]',
        organization(moment, name="Old"), organization(moment), None, None, moment, 0,
    )  # fmt: skip
    return plain._replace(**others)


REJECTED: dict[str, Any] = {
    "outcome": "rejected",
    "code": 403,
    "event_type": None,
    "changed": None,
    "before": None,
    "after": None,
}
PROBLEM = '{"type":"urn:orgs:problem:forbidden","detail":"No."}'


def test_when_it_was_recorded_is_no_difference() -> None:
    assert compare(Fate("decided", row()), Fate("decided", row(recorded_at=LATER, command_time_ms=7))) == {}


def test_another_form_of_the_same_json_is_no_difference() -> None:
    spaced = organization(NOW).replace('":', '": ')
    assert compare(Fate("decided", row()), Fate("decided", row(after=spaced))) == {}


@pytest.mark.parametrize(
    ("others", "found", "leaves"),
    [
        ({"version": 3}, {"version": (2, 3)}, True),
        ({"actor": "bob"}, {"actor": ("ann", "bob")}, False),
        ({"request_digest": b"\2"}, {"request_digest": ("01", "02")}, False),
        ({"changed": "[]"}, {"changed": (["name"], [])}, False),
        ({"after": organization(NOW, name="Other")}, {"after.name": ("Acme", "Other")}, True),
        ({"after": organization(LATER)}, {"after.updated_at": (MOMENT, "2026-12-01T00:00:00+00:00")}, True),
        ({"traceparent": "00"}, {"traceparent": (None, "00")}, False),
        ({"after": organization(NOW, deactivated=True)}, {"after.deactivated": (False, True)}, True),
        ({"before": organization(NOW, name="X")}, {"before.name": ("Old", "X")}, False),
    ],
)
def test_what_differs_is_named(others: dict[str, Any], found: dict[str, Any], leaves: bool) -> None:
    recorded, rehearsed = Fate("decided", row()), Fate("decided", row(**others))
    unlike = compare(recorded, rehearsed)
    assert unlike == found
    assert leaves_another_state(recorded, rehearsed, unlike) is leaves


def test_another_outcome_is_another_state() -> None:
    recorded, rehearsed = Fate("decided", row()), Fate("decided", row(**REJECTED, problem=PROBLEM))
    unlike = compare(recorded, rehearsed)
    assert {"outcome", "code", "event_type", "problem", "after"} <= unlike.keys()
    assert leaves_another_state(recorded, rehearsed, unlike)
    assert (recorded.word, rehearsed.word) == ("applied 200", "rejected 403 forbidden")


def test_another_text_of_a_rejection_is_a_difference_that_changes_nothing() -> None:
    recorded = Fate("decided", row(**REJECTED, problem=PROBLEM))
    rehearsed = Fate("decided", row(**REJECTED, problem=PROBLEM.replace("No.", "Never.")))
    unlike = compare(recorded, rehearsed)
    assert unlike == {"problem.detail": ("No.", "Never.")}
    assert not leaves_another_state(recorded, rehearsed, unlike)


def test_what_was_parked_and_is_decided_differs() -> None:
    recorded, rehearsed = Fate("parked", reason="handler_raised"), Fate("decided", row())
    unlike = compare(recorded, rehearsed)
    assert unlike == {"outcome": ("parked handler_raised", "applied 200")}
    assert leaves_another_state(recorded, rehearsed, unlike)
    assert compare(recorded, Fate("parked", reason="handler_raised")) == {}
