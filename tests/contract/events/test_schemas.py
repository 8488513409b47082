"""The committed JSON Schemas. That they break nobody who knows the released ones: `test_gate.py`."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from org_events.commands import COMMANDS
from org_events.events import OrganizationEvent
from org_events.results import Result
from org_events.schemas import FOLDER, MODELS
from tests.contract.events.described import DOCUMENT

pytestmark = pytest.mark.contract

ORG_TEXT = "0192d3a0-0000-7000-8000-000000000001"


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_every_schema_is_a_valid_one_with_an_id_of_its_own(name: str) -> None:
    schema = load(FOLDER / f"{name}.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:orgs:schema:{name}:1"
    assert '"default"' not in json.dumps(schema)


def test_the_schema_files_say_what_the_document_says() -> None:
    """So that the gate, which compares documents, speaks for the files that other languages use."""
    for name, (_, model) in MODELS.items():
        schema = load(FOLDER / f"{name}.json")
        described = DOCUMENT["components"]["schemas"][model.__name__]
        assert plain(schema, schema.get("$defs", {})) == plain(described, DOCUMENT["components"]["schemas"]), name


def plain(node: Any, definitions: Any) -> Any:
    """A schema without references, ids and dialect."""
    if isinstance(node, list):
        return [plain(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        definition = definitions[node["$ref"].rpartition("/")[2]]
        node = definition | {name: each for name, each in node.items() if name != "$ref"}
    return {name: plain(each, definitions) for name, each in node.items() if name not in ("$defs", "$id", "$schema")}


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
