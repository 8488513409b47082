"""Everything that a verification read, before it is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from org_service.domain.digests import NOTHING, Digest, Digests
from org_service.kafka.client import TopicPartition
from org_service.kafka.whole_batches import Bounds
from org_service.operate.verifying.logs import LogScan
from org_service.operate.verifying.states import StateScan
from org_service.store.journal import Gap
from org_service.store.reference_progress import Progress, ReferencePartition


@dataclass(slots=True)
class Found:
    """Digests of both sides."""

    gaps: Sequence[Gap] = ()
    """Positions that an operator gave up."""
    bounds: Mapping[TopicPartition, Bounds] = field(default_factory=dict[TopicPartition, Bounds])
    """Of the relay's topics."""
    grown_to: int | None = None
    """The number of partitions, where the topics grew."""
    emptied: bytearray | None = None
    """A bit a position: rows that say nothing any more, because their organizations were erased."""
    published: int = 0
    """By the relay, after the topics were read."""

    rows: int = 0
    """Of the journal."""
    short: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Windows of the journal that lack rows: the position before the first one, and the last."""
    events: Digests = field(default_factory=dict[int, Digest])
    """By window, as all of the journal."""
    results: Digests = field(default_factory=dict[int, Digest])
    chain: Digest = NOTHING
    events_low: int = 0
    """Up to here retention took events, or some of them."""
    results_low: int = 0

    organizations: int = 0
    differing: list[UUID] = field(default_factory=list[UUID])
    """Rows that are not what the last change left."""
    state: Digests = field(default_factory=dict[int, Digest])
    """As the tables have it."""
    last_links: Digests = field(default_factory=dict[int, Digest])
    facts: dict[str, Digests] = field(default_factory=dict[str, Digests])
    facts_as_of: Mapping[ReferencePartition, Progress] = field(default_factory=dict[ReferencePartition, Progress])

    events_scan: LogScan = field(default_factory=LogScan)
    results_scan: LogScan = field(default_factory=LogScan)
    state_scan: StateScan = field(default_factory=StateScan)

    def of(self, topic: str) -> dict[TopicPartition, Bounds]:
        """The bounds of one topic."""
        return {at: bounds for at, bounds in self.bounds.items() if at.topic == topic}
