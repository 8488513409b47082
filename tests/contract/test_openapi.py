"""The committed OpenAPI document says what it must."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

pytestmark = pytest.mark.contract

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
CHANGES = [each for each in OPERATIONS if not each[0].startswith("GET")]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": DOCUMENT["components"]}


def test_every_operation_of_the_api_is_there() -> None:
    assert sorted(name for name, _ in OPERATIONS) == [
        "DELETE /v1/orgs/{org_id}",
        "GET /v1/commands/{command_id}",
        "GET /v1/orgs",
        "GET /v1/orgs/{org_id}",
        "GET /v1/orgs/{org_id}/history",
        "PATCH /v1/orgs/{org_id}",
        "POST /v1/orgs",
        "POST /v1/orgs/{org_id}/deactivate",
        "POST /v1/orgs/{org_id}/reactivate",
        "POST /v1/orgs/{org_id}/restore",
    ]


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_every_rejection_is_documented_with_an_example(name: str, operation: dict[str, Any]) -> None:
    wanted = {"400", "401", "405", "413", "429", "431", "500", "503"}
    if "{" in name:
        wanted |= {"404"}
    if "{org_id}" in name:
        wanted |= {"403"}
    if not name.startswith("GET"):
        wanted |= {"202", "403", "409", "415", "422"}
        wanted |= {"412"} if "{" in name else set()
    assert wanted <= set(operation["responses"])
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            content = response["content"]["application/problem+json"]
            assert content["examples"]
            for example in content["examples"].values():
                Draft202012Validator(resolved(content["schema"])).validate(example["value"])
                assert example["value"]["status"] == int(status)


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_every_example_fits_its_schema(name: str, operation: dict[str, Any]) -> None:
    contents = [
        *operation.get("requestBody", {"content": {}})["content"].values(),
        *(content for response in operation["responses"].values() for content in response.get("content", {}).values()),
    ]
    for content in contents:
        if "example" in content:
            Draft202012Validator(resolved(content["schema"])).validate(content["example"])


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
            return found.union(*(references(child) for child in node.values()))
        return set[str]().union(*(references(child) for child in node)) if isinstance(node, list) else set()

    assert {reference.rpartition("/")[2] for reference in references(DOCUMENT)} == set(schemas) - {"Change"} | {
        "Change"
    }
