"""Topic names and settings, and where a key goes."""

import random
from uuid import UUID

import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka

from org_events.topics import Topics, murmur2, partition_for, partitions_for
from tests.support.partitioner import partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        # org.apache.kafka.common.utils.UtilsTest, testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafka_gives(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


def test_murmur2_agrees_with_aiokafka_for_every_length() -> None:
    source = random.Random(20_250_101)
    for length in range(70):
        key = source.randbytes(length)
        assert murmur2(key) == murmur2_of_aiokafka(key) % 2**32


@pytest.mark.parametrize(
    ("key", "partitions", "partition"),
    # (murmur2 & 0x7FFFFFFF) % partitions, by hand from the values above
    [(b"abc", 12, 3), (b"abc", 1, 0), (b"21", 12, 0), (b"foobar", 12, 6)],
)
def test_a_key_gets_the_partition_of_kafkas_default_partitioner(key: bytes, partitions: int, partition: int) -> None:
    assert partition_for(key, partitions) == partition


def test_many_keys_together_get_the_same_partitions_as_each_alone() -> None:
    """Some lengths with few keys, some with many: those are hashed in one number."""
    source = random.Random(20_250_102)
    keys = [source.randbytes(length) for length in range(70) for _ in range(source.choice([1, 15, 16, 40]))]
    keys += [b"\xff" * 9] * 20 + [b"\x00" * 10] * 20
    source.shuffle(keys)
    assert partitions_for(keys, 12) == [partition_of(key, 12) for key in keys]
    assert partitions_for([], 12) == []


def test_organizations_spread_over_all_partitions() -> None:
    source = random.Random(7)
    keys = (str(UUID(int=source.getrandbits(128), version=4)).encode() for _ in range(1_200))
    assert {partition_for(key, 12) for key in keys} == set(range(12))


def test_topics_take_a_prefix() -> None:
    topics = Topics("staging.")
    assert (topics.commands, topics.results, topics.events, topics.state, topics.relay) == (
        "staging.orgs.commands",
        "staging.orgs.results",
        "staging.orgs.events",
        "staging.orgs.state",
        "staging.orgs.relay",
    )
    assert Topics().commands == "orgs.commands"


@pytest.mark.parametrize("prefix", ["a/", "ø", " ", "a\n", "x" * 101])
def test_a_prefix_kafka_would_refuse_is_rejected_at_once(prefix: str) -> None:
    with pytest.raises(ValueError, match="topic prefix"):
        Topics(prefix)


def test_the_topics_are_as_the_contract_says() -> None:
    specs = {spec.name: spec for spec in Topics().specs()}
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "orgs.commands": 12,
        "orgs.results": 12,
        "orgs.events": 12,
        "orgs.state": 12,
        "orgs.relay": 1,
        "orgs.memberships": 12,
        "orgs.partnerships": 12,
        "orgs.staff": 12,
    }
    assert specs["orgs.commands"].config == {
        "cleanup.policy": "delete",
        "retention.ms": "1209600000",
        "retention.bytes": "-1",
        "segment.ms": "86400000",
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": "1048588",
        "compression.type": "producer",
    }
    assert specs["orgs.results"].config["retention.ms"] == "259200000"
    assert specs["orgs.events"].config["retention.ms"] == "7776000000"
    assert specs["orgs.state"].config["cleanup.policy"] == "compact"
    assert specs["orgs.state"].config["delete.retention.ms"] == "604800000"
    assert specs["orgs.state"].config["max.compaction.lag.ms"] == "86400000"
    assert specs["orgs.state"].config["segment.ms"] == "86400000"
    for name in ("relay", "memberships", "partnerships", "staff"):
        assert specs[f"orgs.{name}"].config["cleanup.policy"] == "compact"
    assert {spec.config["compression.type"] for spec in specs.values()} == {"producer"}
    assert all(spec.config["message.timestamp.type"] == "CreateTime" for spec in list(specs.values())[1:])


def test_the_data_topics_share_a_partition_count_and_events_may_be_kept_forever() -> None:
    specs = {spec.name: spec for spec in Topics("t-").specs(partitions=3, events_retention_ms=-1)}
    assert [specs[f"t-orgs.{name}"].partitions for name in ("commands", "results", "events", "state", "relay")] == [
        3,
        3,
        3,
        3,
        1,
    ]
    assert specs["t-orgs.events"].config["retention.ms"] == "-1"
