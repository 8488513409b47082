"""For services that follow organizations: each change once and in order, from the state they are in. Needs
`org-events[kafka]`.

Stores: `MemoryStore` here, `stores.sqlite.SqliteStore`, and `stores.postgres.PostgresStore`, which needs
`org-events[postgres]`. Another one has the four methods of `Store`, and `conformance` tests it.
"""

from org_events.subscribing.changes import FIELDS, Change, Kind
from org_events.subscribing.errors import NotParked, NotRunning, StillParked, SubscriberError, Superseded
from org_events.subscribing.handling import Batch
from org_events.subscribing.lanes import LoadProgress
from org_events.subscribing.lives import AtPosition, AtTime
from org_events.subscribing.parking import Patience
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, Store, hash_keys
from org_events.subscribing.stores.memory import MemoryStore
from org_events.subscribing.subscriber import OrganizationSubscriber

__all__ = [
    "FIELDS",
    "AtPosition",
    "AtTime",
    "Batch",
    "Change",
    "Claim",
    "Kind",
    "LoadProgress",
    "Mark",
    "MemoryStore",
    "NotParked",
    "NotRunning",
    "OrganizationSubscriber",
    "Parked",
    "Patience",
    "Progress",
    "StillParked",
    "Store",
    "SubscriberError",
    "Superseded",
    "hash_keys",
]
