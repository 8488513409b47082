"""The far end of a publisher: librdkafka's idempotent producer, acks from all in-sync replicas.

It gets its commands encoded, says when it has them, waits for the word and sends: as fast as it can, or at an even
rate. Times are of the machine's monotonic clock, which all processes share.

Protocol, pickled: in come the commands and the rate, out goes the word that they are there; in comes the word to send,
out goes a `Sent`. The end of input is the end of the process.
"""

import gc
import pickle
import signal
import sys
import time
from array import array
from typing import Any, BinaryIO

from confluent_kafka import KafkaError, Message, Producer

from tests.bench.publisher import FLUSH_TIMEOUT_S, Sent


def _publish(producer: Producer, topic: str, records: list[tuple[Any, ...]], rate: float | None) -> Sent:
    failed = 0

    def answered(error: KafkaError | None, _: Message) -> None:
        nonlocal failed
        if error is not None:
            failed += 1
            sys.stderr.write(f"publisher: {error}\n")

    sent_s = array("d")
    start = time.monotonic()
    for number, (key, value, headers) in enumerate(records):
        if rate is not None:
            while (ahead_s := start + number / rate - time.monotonic()) > 0:
                producer.poll(0)
                time.sleep(ahead_s)
        sent_s.append(time.monotonic())
        producer.produce(topic, value, key, on_delivery=answered, headers=headers)
        if number % 500 == 0:
            producer.poll(0)
    unanswered = producer.flush(FLUSH_TIMEOUT_S)
    return Sent(sent_s, time.monotonic(), failed + unanswered)


def main(bootstrap_servers: str, topic: str, linger_ms: str) -> None:
    """Publish until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the near end, which then closes the input
    source: BinaryIO = sys.stdin.buffer
    target: BinaryIO = sys.stdout.buffer
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": float(linger_ms),
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 3,  # a coordinator that still loads is worth no warning
        }
    )
    producer.list_topics(topic)  # connected before the clock starts
    gc.disable()
    while True:
        try:
            records, rate = pickle.load(source)
            pickle.dump("ready", target)
            target.flush()
            pickle.load(source)
        except EOFError:
            return
        sent = _publish(producer, topic, records, rate)
        pickle.dump(sent, target, pickle.HIGHEST_PROTOCOL)
        target.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
