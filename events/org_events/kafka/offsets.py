"""Where partitions begin and end, and where a time is in them, asked without a reader.

aiokafka's own questions wait behind a fetch that is under way, half a second each where nothing comes, and know one
kind of end, that of the consumer's isolation level. Here is version 2 of ListOffsets (any Kafka since 0.11).
"""

from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Int64, Schema, String

from org_events.kafka.requests import CONSUMER, BrokerAnswer, HasClient, ask_leaders

END: Final = -1
BEGIN: Final = -2
"""Asked for like times."""
NONE: Final = -1
"""The answer where no record has a time, or a later one."""


class _Offsets(BrokerAnswer):
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(("partition", Int32), ("error_code", Int16), ("timestamp", Int64), ("offset", Int64)),
                ),
            ),
        ),
    )


class _AskOffsets(RequestStruct):
    API_KEY = 2
    API_VERSION = 2
    RESPONSE_TYPE = _Offsets
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("isolation_level", Int8),
        (
            "topics",
            Array(("topic", String("utf-8")), ("partitions", Array(("partition", Int32), ("timestamp", Int64)))),
        ),
    )


async def fetch_offsets(
    consumer: HasClient,
    asked: Mapping[TopicPartition, int],
    leaders: Mapping[TopicPartition, int],
    *,
    stable: bool = True,
) -> dict[TopicPartition, int]:
    """Ask the leaders of partitions for offsets.

    Args:
        consumer: Whose connections are used.
        asked: `BEGIN`, `END`, or a time in milliseconds since 1970: the first record of that time or later.
        leaders: Of the partitions.
        stable: Whether the end is the last stable offset; else it is the high watermark, open transactions included.

    Raises:
        KafkaError: A leader doesn't answer, or isn't one any more.
    """
    questions = {at: (at.partition, time) for at, time in asked.items()}
    found: dict[TopicPartition, int] = {}
    for topic, (partition, code, _, offset) in await ask_leaders(
        consumer, questions, leaders, lambda topics: _AskOffsets(CONSUMER, int(stable), topics)
    ):
        if code:
            raise for_code(code)(f"{topic}, partition {partition}")
        found[TopicPartition(topic, partition)] = offset
    return found
