"""What the servers say of themselves, as far as our login may see it. Nothing is changed."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

from org_events.kafka.topic_ids import Replicas, describe_present, fetch_operations, fetch_replicas
from org_service.errors import DeniedError, RetryError, ServiceError
from org_service.kafka import relay_position
from org_service.kafka.client import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    KafkaError,
    TopicAuthorizationFailedError,
    TopicPartition,
)
from org_service.kafka.reader import ends, groupless_consumer
from org_service.kafka.topics import TopicPlan, fetch_broker_configs, fetch_configs, plan
from org_service.kafka.unread import FETCH_OPTIONS, read_from
from org_service.settings import Settings
from org_service.store import migrate, server
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.store.server import Right, State

ROLES: Final = ("orgs_worker", "orgs_relay", "orgs_edge", "orgs_reader", "orgs_operate")
INTERNAL_TOPICS: Final = ("__consumer_offsets", "__transaction_state")
_SETTINGS: Final = (
    "data_checksums",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "ignore_checksum_failure",
    "server_version_num",
    "synchronous_commit",
    "synchronous_standby_names",
    "zero_damaged_pages",
)
_OF_WORKER: Final = ("synchronous_commit", "default_transaction_isolation")
_TABLES: Final = ("organization", "journal", "journal_head", "parked")
_PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
_LAST_RECORDS: Final = 5
"""Before the end of a partition: markers of publishers' transactions may be among them."""


class Postgres(NamedTuple):
    """What the database says."""

    state: State
    clock_ahead_s: float
    """Of ours; half of the time that it took to ask may be wrong."""
    settings: Mapping[str, str]
    worker: Mapping[str, str] | None
    """In a worker's session; None where our login may not be one."""
    synchronous_standbys: int | None
    lacking: str | None
    """What this release needs of the schema."""
    assumable: frozenset[str]
    """Of `ROLES`, those that our login may be."""
    rights: frozenset[Right]


class Kafka(NamedTuple):
    """What the brokers say."""

    brokers: Mapping[int, Mapping[str, str]]
    """The settings of each; empty where our login may not see them."""
    plans: Sequence[TopicPlan] | None
    """None where our login may not see the topics' settings."""
    configs: Mapping[str, Mapping[str, str]]
    replicas: Mapping[str, Sequence[Replicas]]
    """By topic, of each partition; those of Kafka's own topics too."""
    operations: Mapping[str, frozenset[str]]
    """What our login may do with each topic that is there, nothing where it may not see it."""
    last_command_ahead_s: float | None
    """By how much the time of the last command is ahead of our clock; None where there is none."""
    position: str | None
    """What is wrong with the relay's position; None where nothing is."""


class Facts(NamedTuple):
    """All of it; a text where a server could not be asked."""

    settings: Settings
    postgres: Postgres | str
    kafka: Kafka | str


async def gather(settings: Settings) -> Facts:
    """Ask both servers."""
    return Facts(settings, await _ask_postgres(settings), await _ask_kafka(settings))


async def _ask_postgres(settings: Settings) -> Postgres | str:
    try:
        async with Database(settings.database, "reader", direct=True).connect() as conn:
            began_s = time.time()
            state = await server.show_state(conn)
            ours = datetime.fromtimestamp((began_s + time.time()) / 2, UTC)
            schema = await migrate.schema_of(conn)
            assumable = await server.find_assumable(conn, ROLES)
            found = Postgres(
                state=state,
                clock_ahead_s=(state.clock - ours).total_seconds(),
                settings=await server.show_settings(conn, _SETTINGS),
                worker=None,
                synchronous_standbys=await server.count_synchronous(conn),
                lacking=_lacking(schema),
                assumable=frozenset(assumable),
                rights=frozenset(await server.find_rights(conn, ROLES, _TABLES, _PRIVILEGES)),
            )
        if "orgs_worker" in assumable and not state.standby:
            async with Database(settings.database, "worker", direct=True).connect() as conn:
                found = found._replace(worker=await server.show_settings(conn, _OF_WORKER))
    except Exception as error:
        trouble = classify(error)
        if not isinstance(trouble, RetryError):
            raise
        return str(trouble)
    return found


def _lacking(schema: migrate.Schema) -> str | None:
    try:
        return migrate.find_lacking(schema)
    except ServiceError as error:
        return str(error)


async def _ask_kafka(settings: Settings) -> Kafka | str:
    try:
        return await _ask_brokers(settings)
    except (KafkaError, OSError) as error:
        return f"Kafka at {settings.kafka.bootstrap_servers} does not respond ({type(error).__name__})"


async def _ask_brokers(settings: Settings) -> Kafka:
    kafka = settings.kafka
    names = [spec.name for spec in kafka.topics.specs()]
    async with groupless_consumer(kafka, **FETCH_OPTIONS) as consumer:
        there = sorted(await describe_present(consumer, names))
        operations = await fetch_operations(consumer, names)
        replicas = await fetch_replicas(consumer, [*there, *INTERNAL_TOPICS])
        ahead_s = None
        if kafka.topics.commands in there and "READ" in operations[kafka.topics.commands]:
            ahead_s = await _last_command_ahead_s(consumer, kafka.topics.commands, len(replicas[kafka.topics.commands]))
    try:
        plans: Sequence[TopicPlan] | None = await plan(kafka, settings.relay.name)
    except DeniedError:
        plans = None
    try:
        brokers = await fetch_broker_configs(kafka)
    except ClusterAuthorizationFailedError:
        brokers = {}
    position = None
    try:
        await relay_position.read_partitioning(kafka, settings.relay.name)
    except TopicAuthorizationFailedError:
        position = "our login may not read it"
    except (ServiceError, CorruptRecordException) as error:
        position = str(error)
    except KafkaError:
        if kafka.topics.relay in there:
            raise
    return Kafka(brokers, plans, await fetch_configs(kafka, there), replicas, operations, ahead_s, position)


async def _last_command_ahead_s(consumer: Any, topic: str, partitions: int) -> float | None:
    at = [TopicPartition(topic, number) for number in range(partitions)]
    now = await ends(consumer, at)
    begins = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(at))
    latest = None
    for each in at:
        async for record in read_from(consumer, each, max(begins[each], now[each] - _LAST_RECORDS), now[each]):
            latest = record.timestamp if latest is None else max(latest, record.timestamp)
    return None if latest is None else latest / 1000 - time.time()
