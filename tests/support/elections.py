"""An unclean election, made by hand: a replica leads that lacks what the others had acknowledged without it.

Of three brokers one is stopped (the lagging one), and commands flow; then another one is killed, and the lagging one
starts. A partition whose two copies are on these two is led by what lags, and its end is lost; when the killed one is
back, it throws away what it has more. The third broker keeps the quorum of controllers, and what has three copies.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from confluent_kafka.admin import AdminClient, PartitionMetadata

from org_local.stack import Stack
from tests.support.log_faults import configure, ends
from tests.support.waiting import wait_for

COPIES: Final = 2
"""Of a partition: so that each pair of brokers has some alone."""
ALLOWED: Final = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
"""Of the topics that may lose: what an operator must not set, and what gives a copy alone the right to acknowledge."""
WITHIN_S: Final = 60
POLL_S: Final = 0.1
Place = tuple[str, int]
"""Topic and partition."""


class Elections:
    """Of the topics that may lose."""

    def __init__(self, stack: Stack, topics: Collection[str]) -> None:
        self._stack = stack
        self._topics = topics
        self._admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 2})
        for topic in topics:
            configure(stack.bootstrap_servers, topic, ALLOWED)

    def lose(self, lagging: int, killed: int, flow: Callable[[], None]) -> dict[Place, int]:
        """Let what `flow` does be lost where these two brokers alone have copies.

        Args:
            lagging: The node that is away meanwhile, and leads then.
            killed: The other one.
            flow: What happens before the election; all that it waits for is acknowledged.

        Returns:
            Where those partitions end, right after the election.
        """
        self._wait_until_in_sync()
        brokers = self._stack.kafka.brokers
        brokers[lagging - 1].stop()
        flow()
        brokers[killed - 1].kill()
        brokers[lagging - 1].start()
        self._wait(lambda each: each.leader not in (-1, killed), f"leaders without node {killed}")
        lost = [at for at, each in self._partitions().items() if {*each.replicas} == {lagging, killed}]
        found = self._ends([at for at in lost if at[0] in self._topics])
        brokers[killed - 1].start()
        self._wait_until_in_sync()
        return found

    def _wait_until_in_sync(self) -> None:
        self._wait(lambda each: len(each.isrs) == len(each.replicas), "copies in sync")

    def _ends(self, places: Collection[Place]) -> dict[Place, int]:
        found: dict[Place, int] = {}
        for topic in self._topics:
            numbers = [number for name, number in places if name == topic]
            found |= {
                (topic, number): end for number, end in ends(self._stack.bootstrap_servers, topic, numbers).items()
            }
        return found

    def _wait(self, holds: Callable[[PartitionMetadata], bool], what: str) -> None:
        wait_for(lambda: all(map(holds, self._partitions().values())), what, WITHIN_S, POLL_S)

    def _partitions(self) -> Mapping[Place, PartitionMetadata]:
        """Of all topics there are, Kafka's own among them."""
        topics = self._admin.list_topics(timeout=WITHIN_S).topics
        return {(topic, number): each for topic, all_of in topics.items() for number, each in all_of.partitions.items()}
