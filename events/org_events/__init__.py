"""The wire contract of the organization service: commands, their results, events, reference data, topics.

This is the public face; what isn't named here may move. Three packages need `org-events[kafka]`:
`org_events.publishing` sends commands, `org_events.subscribing` follows organizations, and below them
`org_events.kafka` has the clients.
"""

from org_events.cloudevents import command_headers
from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UncheckedCommand,
    UpdateOrganization,
)
from org_events.events import EventType, OrganizationEvent
from org_events.ids import ORG_ID_NAMESPACE, org_id_for, uuid7
from org_events.organization import Address, Organization
from org_events.reference import Membership, Partnership, Reference, Role, Staff
from org_events.results import FieldError, Outcome, Problem, ProblemType, Result
from org_events.topics import Topics, partition_for

__all__ = [
    "ORG_ID_NAMESPACE",
    "Address",
    "Command",
    "CreateOrganization",
    "DeactivateOrganization",
    "DeleteOrganization",
    "EventType",
    "FieldError",
    "IfCurrent",
    "Membership",
    "Organization",
    "OrganizationEvent",
    "Outcome",
    "Partnership",
    "Problem",
    "ProblemType",
    "ReactivateOrganization",
    "Reference",
    "RestoreOrganization",
    "Result",
    "Role",
    "Staff",
    "Topics",
    "UncheckedCommand",
    "UpdateOrganization",
    "command_headers",
    "org_id_for",
    "partition_for",
    "uuid7",
]
