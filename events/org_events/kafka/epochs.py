"""Where a log lost its end: each time a partition is given a leader its epoch grows, and the log knows where each epoch
ended (KIP-101, KIP-320). Whoever read further than the epoch of what they read goes, read what is gone.

aiokafka 0.14 has no OffsetForLeaderEpoch request. Here is version 3, which any Kafka since 2.3 takes.
"""

from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

from org_events.kafka.requests import CONSUMER, BrokerAnswer, ask_leaders

_ANY_EPOCH: Final = -1
"""Of the leader that is asked: whichever it leads in."""
UNKNOWN: Final = -1
"""An end that the log can't tell."""


class _EpochEnds(BrokerAnswer):
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(("error_code", Int16), ("partition", Int32), ("epoch", Int32), ("end_offset", Int64)),
                ),
            ),
        ),
    )


class _AskEpochEnds(RequestStruct):
    API_KEY = 23
    API_VERSION = 3
    RESPONSE_TYPE = _EpochEnds
    SCHEMA = Schema(
        ("replica_id", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("current_epoch", Int32), ("epoch", Int32))),
            ),
        ),
    )


async def fetch_epoch_ends(
    consumer: AIOKafkaConsumer, epochs: Mapping[TopicPartition, int], leaders: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Where the epochs of partitions end in their logs now: an offset, `UNKNOWN` where the log never knew the epoch.

    The end of an epoch that continues is the end of the log, records of open transactions included.

    Raises:
        KafkaError: A leader doesn't answer, or isn't one any more.
    """
    asked = {at: (at.partition, _ANY_EPOCH, epoch) for at, epoch in epochs.items()}
    ends: dict[TopicPartition, int] = {}
    for topic, (code, partition, _, end) in await ask_leaders(
        consumer, asked, leaders, lambda topics: _AskEpochEnds(CONSUMER, topics)
    ):
        if code:
            raise for_code(code)(f"{topic}, partition {partition}")
        ends[TopicPartition(topic, partition)] = end
    return ends
