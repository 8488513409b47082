"""What the typed calls of the client take by name. An argument left out means something else than None."""

from typing import TypedDict
from uuid import UUID

from org_events.commands import IfCurrent
from org_events.organization import Address


class Preconditions(TypedDict, total=False):
    """What must hold for the command to go through (409 otherwise)."""

    expected_version: int | None
    if_current: IfCurrent | None


class CallOptions(TypedDict, total=False):
    """What every typed call takes: the command id (reuse it to retry) and how long to wait for the outcome."""

    command_id: UUID | None
    timeout_s: float | None


class FieldOptions(TypedDict, total=False):
    """What may be cleared: left out means unchanged, None clears."""

    domain: str | None
    primary_address: Address | None


class CreateOptions(FieldOptions, CallOptions, total=False):
    """Of `create`, after the id and the name."""


class UpdateOptions(FieldOptions, Preconditions, CallOptions, total=False):
    """Of `update`, after the id."""

    name: str


class ExistingOptions(Preconditions, CallOptions, total=False):
    """Of the other calls, after the id."""
