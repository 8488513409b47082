"""The ledger of guarantees: each setting that voids one is planted and found, and good servers pass the gate.

What can't be set on a running server is set in what it said of itself.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AclOperation

from org_events.kafka.topic_ids import Replicas
from org_service.documentation.files import ROOT
from org_service.kafka.topics import Described, TopicPlan, find_differences
from org_service.operate.doctoring.facts import Facts, Kafka, Postgres, gather
from org_service.operate.doctoring.findings import GUARANTEES, Finding, Verdict
from org_service.operate.doctoring.ledger import judge
from org_service.settings import Settings
from org_service.store.server import Right
from tests.integration.worker.test_rights import denied
from tests.support import log_faults
from tests.support.database import execute
from tests.support.operating import Orgs

pytestmark = pytest.mark.integration


def bad(facts: Facts) -> set[Finding]:
    """Everything that doesn't hold; each has to say what to do."""
    found = {each._replace(guarantees=tuple(each.guarantees)) for entry in judge(facts) for each in entry.findings}
    assert all(bool(each.advice) == (each.verdict != Verdict.HOLDS) for each in found)
    return {each for each in found if each.verdict != Verdict.HOLDS}


def said(findings: set[Finding]) -> set[tuple[str, Verdict]]:
    return {(each.about, each.verdict) for each in findings}


LOCAL = {
    ("replication", Verdict.WEAK),
    ("access to topics", Verdict.UNKNOWN),
    ("encryption to Kafka", Verdict.WEAK),
    ("ORGS_AUTH__COMMANDS", Verdict.UNKNOWN),
    ("login", Verdict.WEAK),
    ("synchronous_standby_names", Verdict.WEAK),
}
"""What is wrong with the local stack: it is one broker without rules, and tests log in as superuser."""


async def test_the_local_stack_has_its_known_weaknesses_and_no_others(settings: Settings) -> None:
    assert said(bad(await gather(settings))) == LOCAL


async def test_one_copy_that_is_flushed_survives_a_power_loss(settings: Settings) -> None:
    facts = await gather(settings)
    kafka = cast("Kafka", facts.kafka)
    flushed = {name: {**config, "flush.messages": "1"} for name, config in kafka.configs.items()}
    written_later, written_first = (
        next(each for each in bad(facts._replace(kafka=kafka._replace(configs=configs))) if each.about == "replication")
        for configs in (kafka.configs, flushed)
    )
    assert "a power loss takes what was acknowledged" in written_later.found
    assert "log.flush.interval.messages=1" in written_later.advice
    assert "power loss" not in written_first.found
    assert "flush" not in written_first.advice


async def test_good_servers_pass_the_gate(orgs: Orgs, settings: Settings) -> None:
    entries = judge(good(await gather(settings)))
    assert {each.verdict for each in entries} == {Verdict.HOLDS}, [each.findings[0] for each in entries]
    assert [each.guarantee for each in entries] == list(GUARANTEES)
    await orgs("doctor", code=0, ORGS_AUTH__COMMANDS="tokens")
    strict = await orgs("doctor", "--strict", code=1, ORGS_AUTH__COMMANDS="tokens")
    assert "weak    replication: one copy of" in strict.stdout
    assert "→ three brokers or more" in strict.stdout
    assert "0 void" in strict.stderr
    lines = (await orgs("doctor", "--json")).json_lines
    assert [each["guarantee"] for each in lines] == list(GUARANTEES)


def test_the_ledger_has_the_guarantees_of_the_readme() -> None:
    section = (ROOT / "README.md").read_text().partition("## Guarantees")[2].partition("\n## ")[0]
    assert [int(each) for each in re.findall(r"^(\d+)\. ", section, re.MULTILINE)] == list(GUARANTEES)


def good(facts: Facts) -> Facts:
    """What the servers of a good deployment would say."""
    kafka, postgres = cast("Kafka", facts.kafka), cast("Postgres", facts.postgres)
    brokers = {
        node: {**config, "allow.everyone.if.no.acl.found": "false"}
        for node in (1, 2, 3)
        for config in kafka.brokers.values()
    }
    replicas = {topic: [Replicas(3, 3) for _ in each] for topic, each in kafka.replicas.items()}
    settings = facts.settings
    encrypted = settings.kafka.model_copy(update={"security_protocol": "SASL_SSL"})
    tokens = settings.auth.model_copy(update={"commands": "tokens"})
    return Facts(
        settings.model_copy(update={"kafka": encrypted, "auth": tokens}),
        postgres._replace(
            state=postgres.state._replace(superuser=False),
            settings={**postgres.settings, "synchronous_standby_names": "ANY 1 (a, b)"},
            synchronous_standbys=1,
        ),
        kafka._replace(brokers=brokers, replicas=replicas),
    )


def of_postgres(**changes: Any) -> Callable[[Facts], Facts]:
    return lambda facts: facts._replace(postgres=cast("Postgres", facts.postgres)._replace(**changes))


def shown(**settings: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        postgres = cast("Postgres", facts.postgres)
        return facts._replace(postgres=postgres._replace(settings={**postgres.settings, **settings}))

    return change


def of_kafka(**changes: Any) -> Callable[[Facts], Facts]:
    return lambda facts: facts._replace(kafka=cast("Kafka", facts.kafka)._replace(**changes))


def of_broker(name: str, value: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        kafka = cast("Kafka", facts.kafka)
        return facts._replace(kafka=kafka._replace(brokers={1: {**kafka.brokers[1], name: value}}))

    return change


def _standby(facts: Facts) -> Facts:
    postgres = cast("Postgres", facts.postgres)
    return facts._replace(postgres=postgres._replace(state=postgres.state._replace(standby=True)))


def _lagging(facts: Facts) -> Facts:
    kafka = cast("Kafka", facts.kafka)
    return facts._replace(kafka=kafka._replace(replicas={**kafka.replicas, "orgs.events": [Replicas(3, 2)]}))


def _ours(group: str, **changes: Any) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        changed = getattr(facts.settings, group).model_copy(update=changes)
        return facts._replace(settings=facts.settings.model_copy(update={group: changed}))

    return change


def _trusting_all(facts: Facts) -> Facts:
    return _ours("auth", commands="trusted")(of_broker("authorizer.class.name", "")(facts))


@pytest.fixture(scope="module")
def kept() -> dict[str, Facts]:
    """What good servers say, asked for once."""
    return {}


@pytest.mark.parametrize(
    ("change", "about", "verdict"),
    [
        (shown(server_version_num="160004"), "PostgreSQL", Verdict.VOID),
        (_standby, "PostgreSQL", Verdict.VOID),
        (shown(data_checksums="off"), "data_checksums", Verdict.WEAK),
        (shown(synchronous_standby_names=""), "synchronous_standby_names", Verdict.WEAK),
        (of_postgres(synchronous_standbys=0), "synchronous_standby_names", Verdict.WEAK),
        (of_postgres(synchronous_standbys=None), "synchronous_standby_names", Verdict.UNKNOWN),
        (of_postgres(worker=None), "synchronous_commit", Verdict.UNKNOWN),
        (
            of_postgres(worker={"synchronous_commit": "off", "default_transaction_isolation": "read committed"}),
            "synchronous_commit",
            Verdict.VOID,
        ),
        (
            of_postgres(worker={"synchronous_commit": "on", "default_transaction_isolation": "serializable"}),
            "isolation",
            Verdict.VOID,
        ),
        (of_postgres(clock_ahead_s=-8.0), "clock of the database", Verdict.WEAK),
        (of_postgres(clock_ahead_s=90.0), "clock of the database", Verdict.VOID),
        (of_postgres(rights=frozenset[Right]()), "rights", Verdict.VOID),
        (of_kafka(plans=None), "topics", Verdict.UNKNOWN),
        (of_kafka(brokers={}), "brokers", Verdict.UNKNOWN),
        (of_kafka(brokers={}), "access to topics", Verdict.UNKNOWN),
        (of_kafka(last_command_ahead_s=30.0), "clock of the brokers", Verdict.VOID),
        (_lagging, "replicas in sync", Verdict.WEAK),
        (of_broker("transaction.max.timeout.ms", "30000"), "broker 1", Verdict.VOID),
        (of_broker("group.max.session.timeout.ms", "9000"), "broker 1", Verdict.VOID),
        (of_broker("group.min.session.timeout.ms", "11000"), "broker 1", Verdict.VOID),
        (of_broker("offsets.retention.minutes", "60"), "broker 1", Verdict.WEAK),
        (of_broker("auto.create.topics.enable", "true"), "broker 1", Verdict.WEAK),
        (of_broker("authorizer.class.name", ""), "access to topics", Verdict.WEAK),
        (of_broker("allow.everyone.if.no.acl.found", "true"), "access to topics", Verdict.WEAK),
        (_trusting_all, "ORGS_AUTH__COMMANDS", Verdict.VOID),
        (_ours("worker", breaker=False), "ORGS_WORKER__BREAKER", Verdict.VOID),
        (_ours("kafka", security_protocol="SASL_PLAINTEXT"), "encryption to Kafka", Verdict.WEAK),
    ],
)
async def test_a_setting_that_no_running_server_takes_is_found(
    settings: Settings, kept: dict[str, Facts], change: Callable[[Facts], Facts], about: str, verdict: Verdict
) -> None:
    if not kept:
        kept["good"] = good(await gather(settings))
    assert bad(kept["good"]) == set()
    assert (about, verdict) in said(bad(change(kept["good"])))


@asynccontextmanager
async def altered(settings: Settings, name: str, value: str) -> AsyncIterator[None]:
    """A setting of the server."""
    await execute(settings, f"ALTER SYSTEM SET {name} = {value}")
    await execute(settings, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await execute(settings, f"ALTER SYSTEM RESET {name}")
        await execute(settings, "SELECT pg_reload_conf()")


async def until_said(settings: Settings, *wanted: tuple[str, Verdict]) -> set[Finding]:
    """A server takes a new setting a moment later."""
    async with asyncio.timeout(30):
        while not {*wanted} <= said(found := bad(await gather(settings))):
            await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
async def test_a_database_that_may_lose_what_it_committed_is_found(settings: Settings, name: str) -> None:
    async with altered(settings, name, "off"):
        await until_said(settings, (name, Verdict.VOID))
    await until_said(settings)


async def test_what_is_wrong_with_a_database_is_found(settings: Settings, orgs: Orgs) -> None:
    database = settings.database.url.get_secret_value().rpartition("/")[2]
    await execute(settings, "GRANT UPDATE ON journal TO orgs_relay")
    await execute(settings, "REVOKE INSERT ON parked FROM orgs_worker")
    for name in ("zero_damaged_pages", "ignore_checksum_failure"):
        await execute(settings, f"ALTER DATABASE {database} SET {name} = on")
    await execute(settings, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    found = bad(await gather(settings))
    planted = {"zero_damaged_pages", "ignore_checksum_failure", "default_transaction_read_only"}
    assert said(found) == LOCAL | {(each, Verdict.VOID) for each in (*planted, "rights")}
    rights = {each.found: each.advice for each in found if each.about == "rights"}
    assert rights == {
        "orgs_relay may UPDATE journal": "REVOKE UPDATE ON journal FROM orgs_relay",
        "orgs_worker may not INSERT parked": "GRANT INSERT ON parked TO orgs_worker",
    }
    text = (await orgs("doctor", code=1)).stdout
    assert "void    rights: orgs_relay may UPDATE journal" in text
    await execute(settings, f"BEGIN READ WRITE; ALTER DATABASE {database} RESET ALL; COMMIT")
    await execute(settings, "UPDATE schema_version SET version_num = '0009'")
    assert ("schema", Verdict.VOID) in said(bad(await gather(settings)))


async def test_a_login_that_may_not_look_is_told_what_it_lacks(settings: Settings) -> None:
    await execute(settings, "DROP ROLE IF EXISTS looks_only")
    await execute(settings, "CREATE ROLE looks_only LOGIN")
    await execute(settings, "GRANT orgs_reader TO looks_only")
    try:
        url = re.sub(r"//[^@/]*@", "//looks_only@", settings.database.url.get_secret_value())
        modest = settings.database.model_copy(update={"url": type(settings.database.url)(url)})
        found = bad(await gather(settings.model_copy(update={"database": modest})))
        assert {("roles", Verdict.UNKNOWN), ("synchronous_commit", Verdict.UNKNOWN)} <= said(found)
        assert ("login", Verdict.WEAK) not in said(found)
        (roles,) = [each for each in found if each.about == "roles"]
        assert "orgs_worker" in roles.found
        assert "orgs_reader" not in roles.found
    finally:
        await execute(settings, "DROP ROLE looks_only")


async def test_what_is_wrong_with_topics_is_found(settings: Settings) -> None:
    servers, topics = settings.kafka.bootstrap_servers, settings.kafka.topics
    planted = {
        topics.commands: {"retention.bytes": "1000000", "message.timestamp.type": "CreateTime"},
        topics.results: {"retention.ms": "60000"},
        topics.events: {"unclean.leader.election.enable": "true", "max.message.bytes": "1000"},
        topics.state: {"cleanup.policy": "delete"},
        topics.memberships: {"delete.retention.ms": "86400000"},
    }
    for topic, config in planted.items():
        await asyncio.to_thread(log_faults.configure, servers, topic, config)
    await asyncio.to_thread(log_faults.delete_topic, servers, topics.staff)
    await asyncio.to_thread(log_faults.add_partitions, servers, topics.partnerships, 4)
    found = {(each.about, each.found.split(" is ")[0]): each.verdict for each in bad(await gather(settings))}
    assert found.items() >= {
        ((topics.commands, "retention.bytes"), Verdict.VOID),
        ((topics.commands, "message.timestamp.type"), Verdict.VOID),
        ((topics.results, "retention.ms"), Verdict.WEAK),
        ((topics.events, "unclean.leader.election.enable"), Verdict.VOID),
        ((topics.events, "max.message.bytes"), Verdict.VOID),
        ((topics.state, "cleanup.policy"), Verdict.VOID),
        ((topics.memberships, "delete.retention.ms"), Verdict.WEAK),
        ((topics.partnerships, "partitions"), Verdict.VOID),
        ((topics.staff, "it does not exist"), Verdict.VOID),
    }
    # Kept for longer than they must, records harm nobody.
    for kept in ("-1", str(30 * 86_400_000)):
        await asyncio.to_thread(log_faults.configure, servers, topics.results, {"retention.ms": kept})
        assert topics.results not in {each.about for each in bad(await gather(settings))}
    await asyncio.to_thread(log_faults.create_topic, servers, topics.staff, 3, {})  # to be dropped with the others


async def test_too_few_copies_to_acknowledge_are_found(settings: Settings) -> None:
    """With one broker no topic has two copies; the specification asks for it where one has."""
    facts = good(await gather(settings))
    kafka = cast("Kafka", facts.kafka)
    assert kafka.plans is not None
    plan = kafka.plans[0]
    config = {**plan.spec.config, "min.insync.replicas": "1"}
    differences = find_differences(plan.spec, Described(plan.spec.partitions, plan.spec.partitions, 3), config)
    found = bad(facts._replace(kafka=kafka._replace(plans=[TopicPlan(plan.spec, True, differences)])))
    assert said(found) == {(plan.spec.name, Verdict.VOID)}


async def test_a_position_that_cannot_be_read_is_found(settings: Settings) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(settings.kafka.topics.relay, b"12", key=settings.relay.name.encode())
    assert (settings.kafka.topics.relay, Verdict.VOID) in said(bad(await gather(settings)))


@pytest.mark.parametrize("operation", [AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS, AclOperation.DESCRIBE])
async def test_a_right_that_lacks_on_a_topic_is_found(settings: Settings, operation: AclOperation) -> None:
    async with denied(settings, operation):
        found = await until_said(settings, ("rules tried out", Verdict.UNKNOWN))
    assert any(settings.kafka.topics.results in each.found for each in found if each.about == "rules tried out")


@pytest.mark.parametrize(
    "variables",
    [
        {"ORGS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "ORGS_KAFKA__REQUEST_TIMEOUT_MS": "1000"},
        {"ORGS_DATABASE__URL": "postgresql://postgres@127.0.0.1:9/orgs"},
    ],
)
async def test_a_server_that_is_away_leaves_all_unknown(orgs: Orgs, variables: dict[str, str]) -> None:
    answer = await orgs("doctor", "--json", code=3, ORGS_AUTH__COMMANDS="tokens", **variables)
    assert {each["verdict"] for each in answer.json_lines} == {"unknown"}
    await orgs("doctor", "--strict", code=1, ORGS_AUTH__COMMANDS="tokens", **variables)
