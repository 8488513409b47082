"""For the tests of other teams' publishers and subscribers, without Kafka: `org-events[pytest]`.

Golden messages, a harness that gives a handler what Kafka would, and `assert_survives`. The stand-in for
`OrganizationClient` is in `org_events.testing.publisher`, because it needs `org-events[kafka]` as the client does.
"""

from org_events.testing.changes import DeliveredChange, to_change
from org_events.testing.golden import LATEST, Message, fold, golden_messages, on_topic, releases
from org_events.testing.harness import SubscriberHarness
from org_events.testing.survival import Failure, Report, assert_survives, survey
from org_events.testing.usage import Usage

__all__ = [
    "LATEST",
    "DeliveredChange",
    "Failure",
    "Message",
    "Report",
    "SubscriberHarness",
    "Usage",
    "assert_survives",
    "fold",
    "golden_messages",
    "on_topic",
    "releases",
    "survey",
    "to_change",
]
