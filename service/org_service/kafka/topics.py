"""Topics as they must be, as they are, and the way from one to the other.

Topics are created here and nowhere else: brokers' own creation makes a topic of every typo, with settings of its own.
Nothing is ever altered. A wrong number of partitions, clean-up policy or timestamp type can't be fixed under a
running service (keys would move, tokens be judged by the publisher's clock, a state topic forget), and where records
may be smaller than the relay makes its batches it would stand still: a process refuses to start, or to go on, with
such topics. Where partitions were added, or a topic was created again with another number, a running process waits:
readers and the relay see it themselves within seconds, and continue when all is as it was. Everything else is only
reported: it may be the operator's own wish (how long records are kept), or is a risk that is no damage yet (a replica
that lags may become the leader, tombstones go after a day). Topics of earlier releases differ in such things, and a
process of this one must start on them.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    CorruptRecordException,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from org_events.kafka.brokers import make_enduring
from org_events.topics import DAY_MS, TopicSpec
from org_service.errors import DeniedError, RetryError, StopError
from org_service.kafka import relay_position
from org_service.kafka.connection import admin
from org_service.settings import KafkaSettings

LEADER_WAIT_S: Final = 30.0
"""For brokers to elect leaders of new partitions: milliseconds as a rule, seconds on a busy cluster."""

_HARMFUL: Final = frozenset({"cleanup.policy", "message.timestamp.type", "max.message.bytes"})
_AT_LEAST: Final = frozenset({"max.message.bytes", "min.insync.replicas", "delete.retention.ms"})
"""More of it is as good."""
_AT_MOST: Final = frozenset({"segment.ms", "max.compaction.lag.ms"})
"""Less of it is as good."""
_TWO_PARTITIONS: Final = (
    "the records of one key are then on two partitions, and their order is lost. Kafka cannot remove "
    "partitions. An empty topic can be deleted, and `orgs topics apply` creates it again; otherwise use new "
    "topics by ORGS_KAFKA__TOPIC_PREFIX (docs/operating.md, Partitions were added)."
)
COPIES_MIN: Final = 2
"""Of a topic that has more than one, so many must have a record before it counts as taken: else the loss of one broker
can take back what was acknowledged."""


class Described(NamedTuple):
    """What Kafka says of a topic's partitions."""

    partitions: int
    led: int
    """Those that have a leader now."""
    copies: int


class Difference(NamedTuple):
    """Something about a topic is not as it must be."""

    setting: str
    wanted: str
    found: str
    harmful: bool
    """Whether the service would break its promises on this topic."""
    advice: str


class TopicPlan(NamedTuple):
    """One topic: as it must be, and how it differs; a topic that does not exist differs in nothing."""

    spec: TopicSpec
    exists: bool
    differences: Sequence[Difference]


async def plan(kafka: KafkaSettings, relay: str | None = None) -> list[TopicPlan]:
    """Compare the topics with what they must be; changes nothing.

    Args:
        kafka: Where.
        relay: The name of the relay, which knows whether the data topics have grown; None where they can't have.

    Raises:
        KafkaError: Kafka can't be reached.
        DeniedError: It doesn't let us read a topic's settings.
    """
    topics = kafka.topics
    specs = topics.specs(partitions=kafka.partitions, events_retention_ms=kafka.events_retention_ms)
    async with admin(kafka) as client:
        there = set(await client.list_topics())
        existing = [spec for spec in specs if spec.name in there]
        described = await _described(client, existing)
        configs = await _configs(client, existing)
    if relay is not None and topics.relay in there:
        try:
            grown = (await relay_position.read_partitioning(kafka, relay)).partitions
        except (CorruptRecordException, TopicAuthorizationFailedError, StopError):  # whoever needs to know says it
            grown = None
        specs = [
            dataclasses.replace(spec, partitions=grown or described[spec.name].partitions)
            if spec.name in topics.data and (grown or spec.name in there)
            else spec
            for spec in specs
        ]
        existing = [spec for spec in specs if spec.name in there]
    counts = {described[spec.name].partitions for spec in existing if spec.partitions == kafka.partitions}
    return [
        TopicPlan(
            spec,
            spec.name in there,
            find_differences(spec, described[spec.name], configs[spec.name], alike=len(counts) == 1)
            if spec.name in there
            else (),
        )
        for spec in specs
    ]


def list_harm(plans: Sequence[TopicPlan], but: Collection[str] = ()) -> list[str]:
    """What to do about each difference that would break the guarantees; as a rule nothing. `but` as below."""
    differences = [difference for plan in plans for difference in plan.differences]
    return [each.advice for each in differences if each.harmful and each.setting not in but]


def explain_partitions(found: Mapping[str, int], wanted: Mapping[str, int]) -> str | None:
    """Say which topics have another number of partitions than they must have; None where none has.

    Args:
        found: The partitions of each topic that is there.
        wanted: How many each must have.
    """
    wrong = [
        f"{topic} has {number} partitions, not {wanted[topic]}"
        for topic, number in sorted(found.items())
        if number != wanted[topic]
    ]
    if not wrong:
        return None
    return (
        f"{'; '.join(wrong)}: the records of one key would be on two partitions, out of order. "
        "`orgs topics apply --dry-run` says what can be done. If `orgs topics grow` was interrupted, resume it (`orgs "
        "runs`)."
    )


def raise_if_harmful(plans: Sequence[TopicPlan], *, but: Collection[str] = ()) -> None:
    """See that no topic would break the guarantees.

    Args:
        plans: Of all topics.
        but: Settings that aren't looked at.

    Raises:
        StopError: One or more would; the message says what to do about each.
    """
    if harmful := list_harm(plans, but):
        raise StopError(" ".join(["Topics would break the guarantees.", *harmful]))


async def count_partitions(kafka: KafkaSettings, topic: str) -> int | None:
    """How many partitions a topic has; None where there is no such topic.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    async with admin(kafka) as client:
        # All are asked for: asking for one by name would create it on brokers that still do such things.
        return next(
            (len(each["partitions"]) for each in await client.describe_topics() if each["topic"] == topic), None
        )


async def add_partitions(kafka: KafkaSettings, topics: Sequence[str], partitions: int) -> None:
    """Let topics have so many partitions, where they have fewer, and wait until each is led.

    Raises:
        KafkaError: Kafka can't be reached, or refuses; some of the topics may have grown.
        RetryError: A partition has no leader yet.
    """
    async with admin(kafka) as client:
        described = await client.describe_topics(list(topics))
        short = [each["topic"] for each in described if len(each["partitions"]) < partitions]
        if short:
            await client.create_partitions({topic: NewPartitions(partitions) for topic in short})
    await _led(kafka, [TopicSpec(name=topic, partitions=partitions, holds="") for topic in topics])


async def create(kafka: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    """Create topics and wait until each partition is led; before that, sends would fail.

    A topic that somebody else created meanwhile is fine.

    Raises:
        KafkaError: Kafka can't be reached.
        RetryError: A partition has no leader yet; the topics are there.
        DeniedError: Kafka refuses a topic; the others may have been created.
    """
    wanted = [
        NewTopic(
            name=spec.name,
            num_partitions=spec.partitions,
            replication_factor=kafka.replication_factor,
            # The client demands one or the other, and takes none for "as the broker likes".
            replica_assignments={} if kafka.replication_factor == -1 else None,
            topic_configs=spec.config,
        )
        for spec in specs
    ]
    async with admin(kafka) as client:
        answer: Any = await client.create_topics(wanted)
        for name, code, message, *_ in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise DeniedError(f"Kafka refuses to create {name}: {message or for_code(code).__name__}")
    await _led(kafka, specs)


async def _led(kafka: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    """Wait until a leader answers for each partition: brokers name one a while before it takes records."""
    patient = kafka.model_copy(update={"request_timeout_ms": round(LEADER_WAIT_S * 1000)})
    consumer = make_enduring(AIOKafkaConsumer(**patient.connection(), group_id=None))
    try:
        await consumer.start()
        # Each on its own: of all partitions together the client would learn of one topic after the other.
        end_offsets = cast("Callable[[Sequence[TopicPartition]], Awaitable[object]]", consumer.end_offsets)
        topics = [[TopicPartition(spec.name, each) for each in range(spec.partitions)] for spec in specs]
        await asyncio.gather(*map(end_offsets, topics))
    except KafkaTimeoutError as error:
        names = ", ".join(spec.name for spec in specs)
        raise RetryError(
            f"not led after {LEADER_WAIT_S:.0f} s, one or more of {names}: see the brokers' logs."
        ) from error
    finally:
        await consumer.stop()


async def _described(client: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> dict[str, Described]:
    if not specs:
        return {}
    described = await client.describe_topics([spec.name for spec in specs])
    return {
        each["topic"]: Described(
            len(each["partitions"]),
            sum(partition["leader"] >= 0 and not partition["error_code"] for partition in each["partitions"]),
            max((len(partition["replicas"]) for partition in each["partitions"]), default=0),
        )
        for each in described
    }


async def _configs(client: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> dict[str, dict[str, str]]:
    """Each topic's settings, defaults included."""
    if not specs:
        return {}
    configs: dict[str, dict[str, str]] = {}
    for code, message, name, config in await _describe_configs(client, [spec.name for spec in specs]):
        if code:
            raise DeniedError(f"Kafka does not return the settings of {name}: {message or for_code(code).__name__}")
        configs[name] = config
    return configs


async def _describe_configs(
    client: AIOKafkaAdminClient, topics: Collection[str]
) -> list[tuple[int, str | None, str, dict[str, str]]]:
    """Of each topic: error code (0 is none), the broker's message, name, and the settings by name."""
    answers: list[Any] = await client.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    )
    return [
        (code, message, name, {entry[0]: entry[1] for entry in entries})
        for answer in answers
        for code, message, _, name, entries in answer.resources
    ]


def _partitions_advice(spec: TopicSpec, found: int, *, alike: bool) -> str:
    """What an operator can really do. Kafka takes no partition away, and a key that moved has its records on two.

    Args:
        spec: As it must be.
        found: Its partitions.
        alike: All topics that should have the same number do.
    """
    said = f"{spec.name} has {found} partitions, not {spec.partitions}."
    if alike and spec.partitions != 1:
        return (
            f"{said} If all topics were created with {found}, set ORGS_KAFKA__PARTITIONS={found}. If partitions "
            f"were added to them later, do not: {_TWO_PARTITIONS}"
        )
    more = (
        f" If it is one of the four topics of organizations, `orgs topics grow --partitions {found}` takes them over."
    )
    return (
        f"{said} Do not add partitions to other topics, and do not change ORGS_KAFKA__PARTITIONS: {_TWO_PARTITIONS}"
        f"{more if found > spec.partitions > 1 and not found % spec.partitions else ''}"
    )


def find_differences(
    spec: TopicSpec, described: Described, config: Mapping[str, str], *, alike: bool = True
) -> list[Difference]:
    """What of a topic differs from its specification. Pure.

    Args:
        spec: How it must be.
        described: Its partitions.
        config: Its settings.
        alike: All topics that should have the same number of partitions do.
    """
    differences: list[Difference] = []
    partitions, led, copies = described
    if partitions != spec.partitions:
        advice = _partitions_advice(spec, partitions, alike=alike)
        differences.append(Difference("partitions", str(spec.partitions), str(partitions), True, advice))
    if led != partitions:
        advice = f"{spec.name} has a leader for {led} of {partitions} partitions: see the brokers' logs."
        differences.append(Difference("partitions with a leader", str(partitions), str(led), False, advice))
    wanted_of = spec.config | ({"min.insync.replicas": str(COPIES_MIN)} if copies > 1 else {})
    for setting, wanted in wanted_of.items():
        found = config.get(setting, "unset")
        if found != wanted and not _is_as_good(setting, found, int(wanted) if wanted.isdigit() else 0):
            advice = (
                f"{spec.name} has {setting}={found}: set it with kafka-configs.sh --alter --topic {spec.name} "
                f"--add-config {setting}={wanted}"
            )
            differences.append(Difference(setting, wanted, found, setting in _HARMFUL, advice))
    return differences


def _is_as_good(setting: str, found: str, wanted: int) -> bool:
    if not found.isdigit():
        return False
    return (setting in _AT_LEAST and int(found) >= wanted) or (setting in _AT_MOST and int(found) <= wanted)


async def fetch_settings(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """The settings of topics, defaults included; those that don't exist are left out.

    Raises:
        KafkaError: Kafka can't be reached.
        DeniedError: It doesn't let us read a topic's settings.
    """
    async with admin(kafka) as client:
        there = set(await client.list_topics())
        return await _configs(
            client, [TopicSpec(name=each, partitions=1, holds="") for each in topics if each in there]
        )


async def fetch_tombstones_kept_ms(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, int]:
    """How long each compacted topic keeps tombstones; Kafka's default for one whose settings we may not read.

    Raises:
        KafkaError: No broker answers, or a topic does not exist.
    """
    found = await fetch_configs(kafka, topics)
    return {topic: int(found[topic]["delete.retention.ms"]) if topic in found else DAY_MS for topic in topics}


async def fetch_configs(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """The settings of topics, defaults included; those that our login may not see are left out.

    Raises:
        KafkaError: No broker answers, or a topic does not exist.
    """
    async with admin(kafka) as client:
        described = await _describe_configs(client, topics)
    configs: dict[str, dict[str, str]] = {}
    for code, _, topic, config in described:
        if not code:
            configs[topic] = config
        elif code != TopicAuthorizationFailedError.errno:
            raise for_code(code)(topic)
    return configs


async def fetch_broker_configs(kafka: KafkaSettings) -> dict[int, dict[str, str]]:
    """The settings of every broker.

    Raises:
        ClusterAuthorizationFailedError: Our login may not see them.
        KafkaError: Kafka can't be reached.
    """
    async with admin(kafka) as client:
        brokers = [int(each["node_id"]) for each in (await client.describe_cluster())["brokers"]]
        asked = [ConfigResource(ConfigResourceType.BROKER, str(node)) for node in brokers]
        answers: list[Any] = await client.describe_configs(asked)
    configs: dict[int, dict[str, str]] = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(message or name)
            configs[int(name)] = {entry[0]: entry[1] for entry in entries}
    return configs
