"""Commands: what a field left out means, what null means, and what is rejected."""

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from org_events.commands import (
    COMMANDS,
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.organization import Address

ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
ORG_TEXT = "0192d3a0-0000-7000-8000-000000000001"
ADDRESS = Address(line1="Karl Johans gate 1", city="Oslo", country="NO")


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (UpdateOrganization(org_id=ORG), {"org_id": ORG_TEXT}),
        (UpdateOrganization(org_id=ORG, domain=None), {"org_id": ORG_TEXT, "domain": None}),
        (UpdateOrganization(org_id=ORG, primary_address=None), {"org_id": ORG_TEXT, "primary_address": None}),
        (
            UpdateOrganization(org_id=ORG, name=" Acme ", domain="ACME.com", expected_version=7),
            {"org_id": ORG_TEXT, "name": "Acme", "domain": "acme.com", "expected_version": 7},
        ),
        (
            UpdateOrganization(org_id=ORG, primary_address=ADDRESS),
            {"org_id": ORG_TEXT, "primary_address": {"line1": "Karl Johans gate 1", "city": "Oslo", "country": "NO"}},
        ),
        (
            UpdateOrganization(org_id=ORG, name="B", if_current=IfCurrent(domain=None)),
            {"org_id": ORG_TEXT, "name": "B", "if_current": {"domain": None}},
        ),
        (DeleteOrganization(org_id=ORG, if_current=IfCurrent()), {"org_id": ORG_TEXT, "if_current": {}}),
        (CreateOrganization(org_id=ORG, name="Acme"), {"org_id": ORG_TEXT, "name": "Acme"}),
    ],
)
def test_absent_and_null_stay_distinct_in_a_round_trip(command: Command, body: dict[str, Any]) -> None:
    assert json.loads(command.to_body()) == body
    read = type(command).model_validate_json(command.to_body())
    assert read == command
    assert read.model_fields_set == command.model_fields_set
    assert read.to_body() == command.to_body()


def test_changes_are_the_fields_that_were_set() -> None:
    assert UpdateOrganization(org_id=ORG).changes() == {}
    assert UpdateOrganization(org_id=ORG, domain=None, expected_version=1).changes() == {"domain": None}
    everything = UpdateOrganization(org_id=ORG, name="Acme", domain="acme.com", primary_address=ADDRESS)
    assert everything.changes() == {"name": "Acme", "domain": "acme.com", "primary_address": ADDRESS}


def test_the_values_asked_for_are_those_that_were_set() -> None:
    assert IfCurrent().values() == {}
    assert IfCurrent(domain=None).values() == {"domain": None}
    assert IfCurrent(name=" \uff21cme ").values() == {"name": "Acme"}


def test_an_unset_name_is_left_out_of_every_dump() -> None:
    assert "name" not in UpdateOrganization(org_id=ORG).model_dump()
    assert "name" not in json.loads(UpdateOrganization(org_id=ORG).model_dump_json())


@pytest.mark.parametrize(
    ("model", "fields", "path", "code"),
    [
        (UpdateOrganization, {"name": None}, "name", "string_type"),
        (UpdateOrganization, {"if_current": {"name": None}}, "if_current.name", "string_type"),
        (UpdateOrganization, {"name": "Ac\0me"}, "name", "control_character"),
        (UpdateOrganization, {"domain": "acme"}, "domain", "too_few_labels"),
        (UpdateOrganization, {"primary_address": {"line1": "1", "city": "Oslo"}}, "primary_address.country", "missing"),
        (UpdateOrganization, {"expected_version": 0}, "expected_version", "greater_than_equal"),
        (UpdateOrganization, {"expected_version": 2**63}, "expected_version", "less_than_equal"),
        (UpdateOrganization, {"expected_version": "7"}, "expected_version", "int_type"),
        (UpdateOrganization, {"expected_version": 7.5}, "expected_version", "int_type"),
        (UpdateOrganization, {"expected_version": 2.0**54}, "expected_version", "int_type"),
        (UpdateOrganization, {"expected_version": float("nan")}, "expected_version", "int_type"),
        (CreateOrganization, {"name": "Acme", "org_id": str(UUID(int=0))}, "org_id", "reserved_uuid"),
        (CreateOrganization, {"name": "Acme", "org_id": str(UUID(int=2**128 - 1))}, "org_id", "reserved_uuid"),
        (UpdateOrganization, {"expected_version": True}, "expected_version", "int_type"),
        (UpdateOrganization, {"org_id": "acme"}, "org_id", "uuid_parsing"),
        (UpdateOrganization, {"nmae": "Acme"}, "nmae", "extra_forbidden"),
        (UpdateOrganization, {"if_current": {"version": 1}}, "if_current.version", "extra_forbidden"),
        (CreateOrganization, {}, "name", "missing"),
        (CreateOrganization, {"name": "Acme", "expected_version": 1}, "expected_version", "extra_forbidden"),
        (DeleteOrganization, {"name": "Acme"}, "name", "extra_forbidden"),
    ],
)
def test_a_wrong_field_is_named_by_path_and_code(
    model: type[Command], fields: dict[str, Any], path: str, code: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"org_id": ORG_TEXT} | fields)
    assert [(".".join(map(str, e["loc"])), e["type"]) for e in caught.value.errors()] == [(path, code)]


def test_the_service_ignores_fields_it_does_not_know_at_any_depth() -> None:
    address = {"line1": "1", "city": "Oslo", "country": "NO", "floor": 3}
    body = {"org_id": ORG_TEXT, "color": "red", "primary_address": address}
    command = UpdateOrganization.model_validate(body, extra="ignore")
    assert command.changes() == {"primary_address": Address(line1="1", city="Oslo", country="NO")}


def test_every_command_is_listed_by_its_type() -> None:
    assert {
        "org.create": CreateOrganization,
        "org.update": UpdateOrganization,
        "org.delete": DeleteOrganization,
        "org.deactivate": DeactivateOrganization,
        "org.reactivate": ReactivateOrganization,
        "org.restore": RestoreOrganization,
    } == COMMANDS
    assert all(model.type == name for name, model in COMMANDS.items())
