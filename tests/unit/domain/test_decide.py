"""Every rule for one command: what is rejected, in which precedence, and what changes (docs/contract.md)."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.events import EventType
from org_events.organization import Name
from org_events.reference import Role
from org_events.results import FieldError, Outcome, ProblemType
from org_service.domain.access import Access, AccessKind
from org_service.domain.decide import Invalid, decide
from org_service.domain.organization import StoredOrganization, find_changed_fields, name_key, to_json

ORG = UUID("00000000-0000-4000-8000-000000000001")
OTHER = UUID("00000000-0000-4000-8000-000000000002")
THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = THEN + timedelta(days=1)
ADDRESS = {"line1": "Storgata 1", "city": "Oslo", "country": "NO"}
STORED_ADDRESS = {**ADDRESS, "line2": None, "region": None, "postal_code": None}

ACTIVE = StoredOrganization(ORG, "Acme", "acme", "acme.com", STORED_ADDRESS, THEN, THEN, None, None, 3)
DEACTIVATED = ACTIVE._replace(deactivated_at=THEN)
NAME = TypeAdapter[str](Name)
DELETED = ACTIVE._replace(name_key=None, deleted_at=THEN)
ERASED = DELETED._replace(name="", domain=None, primary_address=None, version=4)
WRONG = [FieldError(path="name", code="too_long", message="Must be shorter")]

STATES = {"missing": None, "active": ACTIVE, "deactivated": DEACTIVATED, "deleted": DELETED, "erased": ERASED}
COMMANDS: dict[str, Command] = {
    "create": CreateOrganization(org_id=ORG, name="New"),
    "update": UpdateOrganization(org_id=ORG, name="New"),
    "delete": DeleteOrganization(org_id=ORG),
    "deactivate": DeactivateOrganization(org_id=ORG),
    "reactivate": ReactivateOrganization(org_id=ORG),
    "restore": RestoreOrganization(org_id=ORG),
}
EXPECTED = {
    # command: outcome in the states missing, active, deactivated, deleted, erased
    "create": ("org.created", "already-exists", "already-exists", "already-exists", "already-exists"),
    "update": ("not-found", "org.updated", "deactivated", "not-found", "not-found"),
    "delete": ("not-found", "org.deleted", "org.deleted", "not-found", "not-found"),
    "deactivate": ("not-found", "org.deactivated", "unchanged", "not-found", "not-found"),
    "reactivate": ("not-found", "unchanged", "org.reactivated", "not-found", "not-found"),
    "restore": ("not-found", "unchanged", "unchanged", "org.restored", "erased"),
}


@pytest.mark.parametrize(
    ("command", "state", "expected"),
    [
        (command, state, expected)
        for command, row in EXPECTED.items()
        for state, expected in zip(STATES, row, strict=True)
    ],
)
def test_each_command_in_each_state(command: str, state: str, expected: str) -> None:
    decision = decide(COMMANDS[command], STATES[state], {}, NOW)
    if decision.problem is not None:
        assert decision.outcome is Outcome.REJECTED
        assert decision.problem.type == f"urn:orgs:problem:{expected}"
        assert decision.code == decision.problem.status == {"not-found": 404, "erased": 410}.get(expected, 409)
        assert decision.after is None
        assert decision.event is None
    elif decision.event is None:
        assert (decision.outcome, expected) == (Outcome.UNCHANGED, "unchanged")
        assert (decision.code, decision.version, decision.after) == (200, 3, STATES[state])
    else:
        assert (decision.outcome, decision.event) == (Outcome.APPLIED, expected)
        assert (decision.code, decision.version) == (200, 1 if state == "missing" else 4)
        assert decision.after is not None
        assert decision.after.version == decision.version
        assert decision.after.updated_at == NOW


def test_that_it_was_erased_is_said_before_any_precondition() -> None:
    decision = decide(RestoreOrganization(org_id=ORG, expected_version=1), ERASED, {}, NOW)
    assert (decision.code, decision.version) == (410, 4)


def test_a_created_organization_has_what_was_sent() -> None:
    command = CreateOrganization(org_id=ORG, name="Straße", domain="acme.com", primary_address=ADDRESS)  # type: ignore[arg-type] - pydantic makes it an Address
    decision = decide(command, None, {}, NOW)
    assert decision.after == StoredOrganization(
        ORG, "Straße", "strasse", "acme.com", STORED_ADDRESS, NOW, NOW, None, None, 1
    )
    assert decision.before is None


def test_a_missing_field_stays_unchanged_and_null_clears_it() -> None:
    decision = decide(UpdateOrganization(org_id=ORG, domain=None), ACTIVE, {}, NOW)
    assert decision.after == ACTIVE._replace(domain=None, updated_at=NOW, version=4)
    assert find_changed_fields(decision.before, decision.after) == ("domain",)


def test_an_address_is_replaced_whole() -> None:
    command = UpdateOrganization.model_validate(
        {"org_id": ORG, "primary_address": {"line1": "Rue 2", "city": "Lyon", "country": "FR"}}
    )
    after = decide(command, ACTIVE, {}, NOW).after
    assert after is not None
    assert after.primary_address == {
        "line1": "Rue 2",
        "line2": None,
        "city": "Lyon",
        "region": None,
        "postal_code": None,
        "country": "FR",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "Acme"},
        {"domain": "ACME.com"},
        {"name": " Acme ", "domain": "acme.com", "primary_address": ADDRESS},
    ],
)
def test_an_update_to_what_is_already_there_is_unchanged(fields: dict[str, object]) -> None:
    decision = decide(UpdateOrganization.model_validate({"org_id": ORG, **fields}), ACTIVE, {}, NOW)
    assert decision == (Outcome.UNCHANGED, 200, 3, None, None, ACTIVE, None)


def test_a_deactivated_organization_rejects_even_an_update_that_changes_nothing() -> None:
    decision = decide(UpdateOrganization(org_id=ORG, name="Acme"), DEACTIVATED, {}, NOW)
    assert decision.problem is not None
    assert decision.problem.type == ProblemType.DEACTIVATED


def test_a_taken_name_is_rejected_in_every_spelling() -> None:
    for command, state in (
        (CreateOrganization(org_id=ORG, name="GLOBEX"), None),
        (UpdateOrganization(org_id=ORG, name="Globex"), ACTIVE),
        (RestoreOrganization(org_id=ORG), DELETED._replace(name="gLobex")),
    ):
        decision = decide(command, state, {"globex": OTHER}, NOW)
        assert decision.problem is not None
        assert (decision.code, decision.problem.type) == (409, ProblemType.NAME_TAKEN)


def test_an_organization_may_respell_its_own_name() -> None:
    decision = decide(UpdateOrganization(org_id=ORG, name="ACME"), ACTIVE, {"acme": ORG}, NOW)
    assert decision.event is EventType.UPDATED


@pytest.mark.parametrize(
    ("preconditions", "holds"),
    [
        ({"expected_version": 3}, True),
        ({"expected_version": 2}, False),
        ({"if_current": {"domain": "acme.com"}}, True),
        ({"if_current": {"domain": "Acme.COM", "name": "Acme", "primary_address": ADDRESS}}, True),
        ({"if_current": {"domain": None}}, False),
        ({"if_current": {"name": "acme"}}, False),
        ({"if_current": {}}, True),
        ({"expected_version": 3, "if_current": {"primary_address": None}}, False),
    ],
)
def test_preconditions(preconditions: dict[str, object], holds: bool) -> None:
    for kind in (UpdateOrganization, DeleteOrganization, DeactivateOrganization):
        decision = decide(kind.model_validate({"org_id": ORG, **preconditions}), ACTIVE, {}, NOW)
        assert (decision.problem is None) is holds
        if decision.problem is not None:
            assert (decision.problem.type, decision.code, decision.version) == (ProblemType.PRECONDITION, 409, 3)


def test_precedence_of_rejections() -> None:
    """404 before 422 before 409; among the 409s preconditions, then deactivated, then the name."""
    stale = UpdateOrganization(org_id=ORG, name="Globex", expected_version=1)
    taken = {"globex": OTHER}
    invalid = Invalid("org.update", WRONG)
    cases = [
        (invalid, None, ProblemType.NOT_FOUND),
        (invalid, DELETED, ProblemType.NOT_FOUND),
        (invalid, DEACTIVATED, ProblemType.INVALID_FIELDS),
        (Invalid("org.create", WRONG), None, ProblemType.INVALID_FIELDS),
        (Invalid("org.create", WRONG), ACTIVE, ProblemType.INVALID_FIELDS),
        (stale, DEACTIVATED, ProblemType.PRECONDITION),
        (UpdateOrganization(org_id=ORG, name="Globex"), DEACTIVATED, ProblemType.DEACTIVATED),
        (CreateOrganization(org_id=ORG, name="Globex"), ACTIVE, ProblemType.ALREADY_EXISTS),
        (IfCurrentCase, ACTIVE, ProblemType.PRECONDITION),
    ]
    for command, organization, expected in cases:
        problem = decide(command, organization, taken, NOW).problem
        assert problem is not None
        assert problem.type == expected


IfCurrentCase = UpdateOrganization(org_id=ORG, name="Acme", if_current=IfCurrent(domain=None))


def test_field_errors_are_passed_on() -> None:
    decision = decide(Invalid("org.update", WRONG), ACTIVE, {}, NOW)
    assert decision.problem is not None
    assert (decision.code, decision.problem.errors, decision.version) == (422, WRONG, 3)


def test_delete_frees_the_name_and_restore_brings_everything_back() -> None:
    deleted = decide(DeleteOrganization(org_id=ORG), DEACTIVATED, {}, NOW)
    assert deleted.after == DEACTIVATED._replace(name_key=None, deleted_at=NOW, updated_at=NOW, version=4)
    assert deleted.before == DEACTIVATED
    restored = decide(RestoreOrganization(org_id=ORG), deleted.after, {}, NOW)
    assert restored.after == DEACTIVATED._replace(updated_at=NOW, version=5)
    assert restored.before is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, ACTIVE, ("name", "domain", "primary_address")),
        (ACTIVE, DELETED, ("name", "domain", "primary_address")),
        (DEACTIVATED, DELETED, ("name", "domain", "primary_address", "deactivated")),
        (ACTIVE, DEACTIVATED, ("deactivated",)),
        (ACTIVE, ACTIVE._replace(name="ACME", version=4), ("name",)),
    ],
)
def test_changed_names_what_differs(
    before: StoredOrganization | None, after: StoredOrganization | None, expected: tuple[str, ...]
) -> None:
    assert find_changed_fields(before, after) == expected


@pytest.mark.parametrize(
    ("name", "key"), [("Acme", "acme"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("ΣΊΣΥΦΟΣ", "σίσυφοσ")]
)
def test_name_key_folds_case(name: str, key: str) -> None:
    assert name_key(name) == key


@pytest.mark.parametrize(
    "name",
    [
        "Ac\u200bme",
        "Acme\u200b",
        "\ufeffAcme",
        "ACME \u2060",
        "\u200eAcme\u200f",
        "A\u00adcme",
        "Ac\ufe0fme",
        "A\u3164cme",
        "Ac\U000e0100me",
    ],
)
def test_names_that_look_alike_have_one_key(name: str) -> None:
    assert name_key(NAME.validate_python(name)) == "acme"


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("👩\u200d👩\u200d👧 Family", "👩👩👧 family"),
        ("I \u2764\ufe0f Oslo", "i \u2764 oslo"),
        ("\u0646\u0627\u0645\u0647\u200c\u0647\u0627", "\u0646\u0627\u0645\u0647\u0647\u0627"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"),
        ("E\u034f\u0301cole", "\u00e9cole"),
    ],
)
def test_joiners_are_allowed_in_a_name_and_ignored_in_comparisons(name: str, same: str) -> None:
    assert NAME.validate_python(name) == name
    assert name_key(name) == name_key(same) == same


def test_flags_of_different_regions_are_different_names() -> None:
    wales = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
    england = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert name_key(NAME.validate_python(wales)) != name_key(NAME.validate_python(england))


def test_json_is_the_contracts_organization() -> None:
    assert to_json(DEACTIVATED) == (
        '{"id":"00000000-0000-4000-8000-000000000001","name":"Acme","domain":"acme.com",'
        '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",'
        '"primary_address":{"line1":"Storgata 1","city":"Oslo","country":"NO","line2":null,"region":null,'
        '"postal_code":null},"deactivated":true,"deactivated_at":"2026-01-01T00:00:00Z","version":3}'
    )


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "create"])
def test_a_caller_who_may_not_read_an_organization_changes_nothing_and_learns_nothing(command: str) -> None:
    access = Access(Role.USER, AccessKind.DIRECT, ("Organization:read",))
    decision = decide(COMMANDS[command], ACTIVE, {}, NOW, access)
    assert decision.problem is not None
    assert (decision.problem.type, decision.version, decision.after) == (ProblemType.FORBIDDEN, None, None)
    assert decision.problem.detail == "The role user is denied Organization:read."


def test_a_caller_who_may_read_no_organization_may_create_one() -> None:
    access = Access(Role.USER, None, ("Organization:read",))
    assert decide(COMMANDS["create"], None, {}, NOW, access).event is EventType.CREATED
