"""`assert_survives`: a right handler passes, each classic mistake is caught by the case that is named after it."""

from typing import Any

import pytest

from org_events.testing import DeliveredChange, assert_survives, fold, golden_messages, survey
from org_events.testing.cases import CASES
from tests.unit.testing import handlers
from tests.unit.testing.handlers import Handler


def arguments(handler: Handler) -> dict[str, Any]:
    adapt = {"adapt": lambda message: message} if isinstance(handler, handlers.OfRecords) else {}
    return {"state": handler.state, "reset": handler.reset, "expect": handler.expect, **adapt}


@pytest.mark.parametrize("right", [Handler, handlers.OfRecords])
async def test_a_right_handler_survives_everything(right: type[Handler]) -> None:
    handler = right()
    await assert_survives(handler.handle, **arguments(handler))
    report = await survey(handler.handle, **arguments(handler))
    assert str(report) == f"The handler survives {len(CASES)} cases."


MISTAKES: list[tuple[type[Handler], set[str]]] = [
    (handlers.ExpectsNothing, {"in order"}),
    (handlers.NoDeduplication, {"partial replay"}),
    (
        handlers.CountsInPlace,
        {"duplicates", "half-done work", "redelivery", "full replay", "partial replay", "load", "re-load"},
    ),
    (handlers.KeepsTheVersionFirst, {"half-done work"}),
    (handlers.ForgetsVersions, {"partial replay"}),
    (handlers.RaisesOnUnknownTypes, {"unknown types"}),
    (handlers.PassesMembersOn, {"unknown fields"}),
    (handlers.IgnoresTombstones, {"load", "re-load"}),
    (handlers.TrustsBefore, {"load", "re-load"}),
    (handlers.KnowsRecordsByOffset, {"re-load"}),
    (handlers.NeedsBefore, {"erasure"}),
]


@pytest.mark.parametrize(("mistaken", "cases"), MISTAKES, ids=[row[0].__name__ for row in MISTAKES])
async def test_each_classic_mistake_is_caught_by_its_name(mistaken: type[Handler], cases: set[str]) -> None:
    handler = mistaken()
    report = await survey(handler.handle, **arguments(handler))
    assert {failure.case.name for failure in report.failures} == cases
    assert {failure.case.name for failure in report.failures} <= {case.name for case in report.tried}


def test_every_case_catches_somebody() -> None:
    assert {case for _, cases in MISTAKES for case in cases} == {case.name for case in CASES}


async def test_the_report_says_what_happened_what_is_wrong_and_what_is_usually_the_reason() -> None:
    handler = handlers.NoDeduplication()
    with pytest.raises(AssertionError) as raised:
        await assert_survives(handler.handle, **arguments(handler) | {"expect": dict})
    lines = str(raised.value).splitlines()
    assert lines[0] == "The handler does not survive 1 of 11 cases."
    assert lines[2] == "partial replay: when an operator sends the older events again"
    assert lines[3].startswith(
        "  UUID('0a000000-0000-7000-8000-000000000004'): name is 'Ål & \"Sønn\"'; should be 'Delta', domain is None; "
    )
    assert lines[-1].startswith(
        "  usually: it applies an old change over a newer one: skip a version that is not higher"
    )


async def test_what_a_handler_raises_is_reported_with_the_message() -> None:
    handler = handlers.RaisesOnUnknownTypes()
    report = await survey(handler.handle, **arguments(handler))
    assert report.failures[0].what == (
        "  it raises ValueError('org.imagined is not an event') while handling org.imagined, version 1"
    )


async def test_what_is_left_of_an_erased_organization_is_reported() -> None:
    handler = Handler()

    async def keep_all(change: DeliveredChange) -> None:
        if change.after is not None:
            handler.rows[change.org_id] = change.after

    report = await survey(keep_all, **arguments(handler))
    [failure] = report.failures
    assert "it still holds 'Kari Nordmann' of an organization that was erased" in failure.what


def test_the_golden_story_ends_with_two_organizations() -> None:
    assert {organization.name: organization.version for organization in fold(golden_messages()).values()} == {
        "Acme Nord": 8,
        "Delta": 2,
    }
