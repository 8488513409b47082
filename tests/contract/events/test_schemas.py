"""The committed JSON Schemas: they break nobody who knows the released ones."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from org_events.commands import COMMANDS
from org_events.events import OrganizationEvent
from org_events.results import Result
from org_events.schemas import FOLDER, MODELS
from tests.contract.events.compatibility import Direction, breaches

pytestmark = pytest.mark.contract

RELEASED = Path(__file__).parent / "released"
ORG_TEXT = "0192d3a0-0000-7000-8000-000000000001"
ACCEPTED = {
    "create-organization",
    "update-organization",
    "delete-organization",
    "deactivate-organization",
    "reactivate-organization",
    "restore-organization",
    "membership",
    "partnership",
    "staff",
}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def direction(name: str) -> Direction:
    return "accepted" if name in ACCEPTED else "published"


@pytest.mark.parametrize("name", sorted(path.stem for path in RELEASED.glob("*.json")))
def test_the_schemas_are_compatible_with_the_released_ones(name: str) -> None:
    old, new = load(RELEASED / f"{name}.json"), load(FOLDER / f"{name}.json")
    assert old["$id"] == new["$id"]
    assert breaches(old, new, direction(name)) == []


@pytest.mark.parametrize("name", MODELS)
def test_every_schema_is_a_valid_one_with_an_id_of_its_own(name: str) -> None:
    schema = load(FOLDER / f"{name}.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:orgs:schema:{name}:1"
    assert '"default"' not in json.dumps(schema)


def test_every_command_has_a_schema() -> None:
    assert {model for _, model in MODELS.values()} >= set(COMMANDS.values())


ADDRESS = {"line1": "1", "line2": None, "city": "Oslo", "region": None, "postal_code": "0154", "country": "NO"}
ORGANIZATION = {
    "id": ORG_TEXT,
    "name": "Acme",
    "domain": None,
    "created_at": "2025-01-02T03:04:05.678901Z",
    "updated_at": "2025-01-02T03:04:05.678901Z",
    "primary_address": ADDRESS,
    "deactivated": False,
    "deactivated_at": None,
    "version": 1,
}
EVENT = {
    "org_id": ORG_TEXT,
    "version": 1,
    "position": 1,
    "changed": ["name", "primary_address"],
    "before": None,
    "after": ORGANIZATION,
    "command_id": ORG_TEXT,
    "actor": None,
    "recorded_at": "2025-01-02T03:04:05.678901Z",
}
RESULT = {
    "command_id": ORG_TEXT,
    "org_id": None,
    "outcome": "rejected",
    "code": 400,
    "version": None,
    "organization": None,
    "position": 2,
    "problem": {"type": "urn:orgs:problem:x", "title": "t", "status": 400, "detail": "d", "errors": []},
    "final": True,
}


@pytest.mark.parametrize(
    ("name", "body"), [("organization-event", EVENT), ("result", RESULT), ("organization", ORGANIZATION)]
)
def test_what_the_service_writes_fits_its_schema_also_with_members_that_are_new(
    name: str, body: dict[str, Any]
) -> None:
    schema = load(FOLDER / f"{name}.json")
    jsonschema.validate(body, schema)
    jsonschema.validate(body | {"new": 1}, schema)
    if name == "organization":
        jsonschema.validate(body | {"primary_address": ADDRESS | {"floor": 3}}, schema)


def test_the_models_read_what_fits_the_schemas() -> None:
    assert OrganizationEvent.model_validate(EVENT).model_dump(mode="json") == EVENT
    assert Result.model_validate(RESULT).model_dump(mode="json") == RESULT


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"org_id": ORG_TEXT}, True),
        ({"org_id": ORG_TEXT, "domain": None, "expected_version": 7}, True),
        ({"org_id": ORG_TEXT, "if_current": {"domain": "acme.com"}}, True),
        ({}, False),
        ({"org_id": ORG_TEXT, "name": None}, False),
        ({"org_id": ORG_TEXT, "nmae": "Acme"}, False),
        ({"org_id": ORG_TEXT, "expected_version": 0}, False),
        ({"org_id": ORG_TEXT, "primary_address": {"line1": "1", "city": "Oslo"}}, False),
    ],
)
def test_an_update_is_distinguished_from_a_typo(body: dict[str, Any], fits: bool) -> None:
    schema = load(FOLDER / "update-organization.json")
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is fits


MEMBERSHIP = {"user_id": "ann", "org_id": ORG_TEXT, "role": "admin", "joined_at": "2024-05-17T09:30:00Z"}


@pytest.mark.parametrize(
    ("name", "body", "fits"),
    [
        ("membership", MEMBERSHIP, True),
        ("membership", MEMBERSHIP | {"active": False, "invited_by": "bob"}, True),
        ("membership", MEMBERSHIP | {"role": "boss"}, False),
        ("membership", MEMBERSHIP | {"user_id": "ann smith"}, False),
        ("membership", MEMBERSHIP | {"active": "yes"}, False),
        ("membership", {"user_id": "ann", "org_id": ORG_TEXT, "role": "admin"}, False),
        ("partnership", {"partner_org_id": ORG_TEXT, "org_id": ORG_TEXT}, True),
        ("partnership", {"partner_org_id": ORG_TEXT, "org_id": ORG_TEXT, "role": "support"}, True),
        ("partnership", {"org_id": ORG_TEXT}, False),
        ("staff", {"user_id": "ann"}, True),
        ("staff", {}, False),
    ],
)
def test_reference_data_that_the_service_would_not_read_do_not_fit_their_schema(
    name: str, body: dict[str, Any], fits: bool
) -> None:
    schema = load(FOLDER / f"{name}.json")
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is fits


CHANGES: list[tuple[str, Any, list[str], list[str]]] = [
    # what, the change, breaches as accepted, breaches as published
    ("nothing", lambda s: None, [], []),
    ("a text", lambda s: s["properties"]["name"].update(description="new"), [], []),
    ("an added member", lambda s: s["properties"].update(plan={"type": "string"}), [], []),
    ("a removed member", lambda s: s["properties"].pop("name"), ["$.name: is gone"], ["$.name: is gone"]),
    (
        "a renamed member",
        lambda s: s["properties"].update(title=s["properties"].pop("name")),
        ["$.name: is gone"],
        ["$.name: is gone"],
    ),
    (
        "a member that is now required",
        lambda s: s["required"].append("name"),
        ["$.name: is now required"],
        ["$.name: is now required"],
    ),
    ("a member that may be missing", lambda s: s["required"].remove("id"), [], ["$.id: may now be missing"]),
    (
        "a null that is rejected",
        lambda s: s["properties"].update(domain={"type": "string"}),
        ["$.domain: can no longer be null"],
        ["$.domain: can no longer be null"],
    ),
    (
        "a null that may come",
        lambda s: s["properties"].update(name={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        [],
        ["$.name: can now be null"],
    ),
    (
        "another type",
        lambda s: s["properties"].update(name={"type": "integer"}),
        ["$.name: can no longer be string"],
        ["$.name: can no longer be string", "$.name: can now be integer"],
    ),
    (
        "a bound deep inside",
        lambda s: s["$defs"]["Part"]["properties"]["size"].update(minimum=1),
        ["$.parts[].size: minimum was None, is 1"],
        ["$.parts[].size: minimum was None, is 1"],
    ),
    (
        "a new word",
        lambda s: s["properties"]["kind"].update(enum=["a", "b"]),
        ["$.kind: enum was ['a'], is ['a', 'b']"],
        ["$.kind: enum was ['a'], is ['a', 'b']"],
    ),
]
SAMPLE: dict[str, Any] = {
    "$defs": {"Part": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "name": {"type": "string"},
        "domain": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"type": "string", "enum": ["a"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
    },
    "required": ["id"],
}


@pytest.mark.parametrize(("what", "change", "accepted", "published"), CHANGES, ids=[row[0] for row in CHANGES])
def test_the_checker_finds_incompatible_changes(
    what: str, change: Any, accepted: list[str], published: list[str]
) -> None:
    changed = deepcopy(SAMPLE)
    change(changed)
    assert breaches(SAMPLE, changed, "accepted") == accepted
    assert breaches(SAMPLE, changed, "published") == published
