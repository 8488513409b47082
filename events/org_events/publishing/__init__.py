"""For services that publish commands: one typed call a command, a clear outcome for each. Needs `org-events[kafka]`."""

from org_events.publishing.client import OrganizationClient, Sent
from org_events.publishing.credentials import ClientCredentials
from org_events.publishing.errors import (
    ClientError,
    KafkaRefused,
    KafkaUnavailable,
    NotConnected,
    OutcomeUnknown,
    TokenRefused,
    TokenUnavailable,
    TopicMissing,
)
from org_events.publishing.sync import SyncOrganizationClient

__all__ = [
    "ClientCredentials",
    "ClientError",
    "KafkaRefused",
    "KafkaUnavailable",
    "NotConnected",
    "OrganizationClient",
    "OutcomeUnknown",
    "Sent",
    "SyncOrganizationClient",
    "TokenRefused",
    "TokenUnavailable",
    "TopicMissing",
]
