"""`python -m org_local`: the bare stack in the foreground, until ^C."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from org_local import jars, warm_start
from org_local.errors import LocalStackError
from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE, Stack, report, start

_CHECK_INTERVAL_S = 1.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m org_local", description="Kafka and Postgres on this machine.")
    parser.add_argument("--data", type=Path, default=Path(".local"), help="data folder, kept (default: .local)")
    parser.add_argument("--temporary", action="store_true", help="use a temporary folder instead")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--kafka-heap-mb", type=int, default=512)
    parser.add_argument("--record", action="store_true", help="only record how Kafka starts: later starts are quicker")
    return parser.parse_args()


def _watch(stack: Stack, wanted_down: threading.Event) -> None:
    while not wanted_down.wait(_CHECK_INTERVAL_S):
        stack.check()


def main() -> int:
    """Start the stack, print the two variables, wait for ^C or SIGTERM, stop it."""
    arguments = _arguments()
    wanted_down = threading.Event()
    try:
        if arguments.record:
            warm_start.record(jars.ensure(report), report)
            return 0
        with start(
            None if arguments.temporary else arguments.data,
            brokers=arguments.brokers,
            kafka_heap_mb=arguments.kafka_heap_mb,
        ) as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: wanted_down.set())
            sys.stdout.write(f"{BOOTSTRAP_SERVERS_VARIABLE}={stack.bootstrap_servers}\n")
            sys.stdout.write(f"{DATABASE_URL_VARIABLE}={stack.database_url}\n")
            sys.stdout.flush()
            _watch(stack, wanted_down)
            report("stopping")
    except LocalStackError as error:
        report(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
