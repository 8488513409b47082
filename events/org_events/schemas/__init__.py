"""The JSON Schemas (2020-12) of everything on the wire, made from the models.

The files beside this one are what other languages use; `make generate` writes them. Commands and reference data are
described as publishers write them, the rest as the service writes it. A field left out of a command means something
else than null, so no schema here has a default. Of what the service writes, a member that isn't required may be missing
in older messages.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from org_events.cloudevents import EVENT_SCHEMA, RESULT_SCHEMA
from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.events import OrganizationEvent
from org_events.organization import Organization
from org_events.reference import Membership, Partnership, Reference, Staff
from org_events.results import Result

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).parent

MODELS: Final[dict[str, tuple[str, type[BaseModel]]]] = {
    "create-organization": ("urn:orgs:schema:create-organization:1", CreateOrganization),
    "update-organization": ("urn:orgs:schema:update-organization:1", UpdateOrganization),
    "delete-organization": ("urn:orgs:schema:delete-organization:1", DeleteOrganization),
    "deactivate-organization": ("urn:orgs:schema:deactivate-organization:1", DeactivateOrganization),
    "reactivate-organization": ("urn:orgs:schema:reactivate-organization:1", ReactivateOrganization),
    "restore-organization": ("urn:orgs:schema:restore-organization:1", RestoreOrganization),
    "organization": ("urn:orgs:schema:organization:1", Organization),
    "organization-event": (EVENT_SCHEMA, OrganizationEvent),
    "result": (RESULT_SCHEMA, Result),
    "membership": ("urn:orgs:schema:membership:1", Membership),
    "partnership": ("urn:orgs:schema:partnership:1", Partnership),
    "staff": ("urn:orgs:schema:staff:1", Staff),
}
"""File name without suffix: `$id` and model."""


class Generator(GenerateJsonSchema):
    """Pydantic's, without defaults, and without titles that only repeat a field's name."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a field as if it had no default."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - as pydantic calls it
        """Never."""
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """What the service writes may get new members within a schema version, which readers ignore."""
        generated = super().model_schema(schema)
        if self.mode == "serialization":
            generated.pop("additionalProperties", None)
        return generated


def choose_mode(model: type[BaseModel]) -> Literal["validation", "serialization"]:
    """How a model is described: what others publish as it may be written, the rest as the service writes it."""
    return "validation" if issubclass(model, Command | Reference) else "serialization"


def make_documents() -> dict[str, str]:
    """The text of every schema file by its name."""
    return {f"{name}.json": _document(schema_id, model) for name, (schema_id, model) in MODELS.items()}


def _document(schema_id: str, model: type[BaseModel]) -> str:
    schema: dict[str, Any] = model.model_json_schema(schema_generator=Generator, mode=choose_mode(model))
    return to_text({"$schema": DIALECT, "$id": schema_id} | schema)


def to_text(document: dict[str, Any]) -> str:
    """A generated JSON document as it is committed."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
