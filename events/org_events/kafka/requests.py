"""Requests of Kafka's protocol that aiokafka 0.14 has no class for, or only in versions too old for what we ask.

Each is written down where it is used: a struct with the schema of one version, and one with that of the answer. Here is
how they are sent.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, LeaderNotAvailableError
from aiokafka.protocol.api import Request, RequestStruct, Response

CONSUMER: Final = -1
"""For a replica's id: who asks is none."""


class BrokerAnswer(Response):
    """What a broker returns; subclasses have a `SCHEMA`."""

    API_KEY = -1  # pyright: ignore - aiokafka declares properties that nobody reads
    API_VERSION = -1  # pyright: ignore


class _OneVersion(Request[RequestStruct]):
    """A request that is spoken in the version of its struct or not at all."""

    API_KEY = -1

    def __init__(self, struct: RequestStruct) -> None:
        self._struct = struct

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:  # noqa: ARG002 - there is but one
        return self._struct

    def prepare(self, versions: dict[int, tuple[int, int]]) -> RequestStruct:
        first, last = versions.get(self._struct.API_KEY, (0, -1))
        if not first <= self._struct.API_VERSION <= last:
            raise IncompatibleBrokerVersion(f"the broker lacks {type(self._struct).__name__}: it is too old")
        return self._struct


class HasClient(Protocol):
    """A consumer of aiokafka's, or a producer of ours."""

    _client: Any


def any_broker(consumer: HasClient) -> int:
    """A broker to ask what any can tell.

    Raises:
        KafkaConnectionError: None is known.
    """
    node: int | None = _client(consumer).get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known")
    return node


def all_brokers(consumer: HasClient) -> list[int]:
    """The brokers known now."""
    return [broker.nodeId for broker in _client(consumer).cluster.brokers()]


async def ask(consumer: HasClient, broker: int, request: RequestStruct) -> Any:
    """Send a request to a broker and read the answer.

    Raises:
        KafkaError: It doesn't answer, or is too old for the request.
    """
    # On the connection for fetches it would wait behind a long poll.
    return await _client(consumer).send(broker, _OneVersion(request), group=ConnectionGroup.COORDINATION)


async def ask_leaders(
    consumer: HasClient,
    asked: Mapping[TopicPartition, tuple[int, ...]],
    leaders: Mapping[TopicPartition, int],
    make: Callable[[Sequence[tuple[str, Sequence[tuple[int, ...]]]]], RequestStruct],
) -> list[tuple[str, Any]]:
    """Ask each leader once for all of its partitions.

    Args:
        consumer: Whose connections are used.
        asked: The fields of each partition's question, as the schema of the request has them.
        leaders: Of the partitions.
        make: The request of these questions by topic.

    Returns:
        The topic and the fields of each partition's answer.

    Raises:
        KafkaError: A leader doesn't answer, or none is known.
    """
    by_leader: defaultdict[int, defaultdict[str, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for at, question in asked.items():
        leader = leaders.get(at, -1)
        if leader < 0:
            raise LeaderNotAvailableError(f"{at.topic}, partition {at.partition}")
        by_leader[leader][at.topic].append(question)
    answers = [await ask(consumer, leader, make(list(topics.items()))) for leader, topics in by_leader.items()]
    return [(topic, fields) for answer in answers for topic, partitions in answer.topics for fields in partitions]


def _client(consumer: HasClient) -> Any:
    return consumer._client  # pyright: ignore[reportPrivateUsage] - it has no public way to ask
