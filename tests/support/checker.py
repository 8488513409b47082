"""The account checker: do the log, the journal, the tables and what was published tell the same thing?

It trusts nobody. The commands come from the topic itself, the order from the journal, what should have happened from
the serial oracle, what did happen from the topics and tables. Each rule is a function below; together
they check guarantee 1 to guarantee 5 of docs/contract.md.

    python -m tests.support.checker --bootstrap HOST:PORT --database URL --prefix PREFIX --published FILE
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from org_events.topics import Topics
from tests.support.findings import Findings
from tests.support.folds import check_state, check_tables
from tests.support.ledger import Ledger, check_parked, check_positions, check_published, replay
from tests.support.observed import Observed, TopicReader, observe, paused_collector
from tests.support.outgoing import check_events, check_relay, check_results, check_states
from tests.support.published import Published, load


@paused_collector()
def judge(
    observed: Observed,
    published: Sequence[Published] | None = None,
    *,
    deliveries_max: int | None = None,
    kafka_lost: bool = False,
) -> Findings:
    """Judge everything observed.

    Args:
        observed: Read when the worker and the relay had nothing left to do.
        published: What the publishers wrote down; None skips that comparison.
        deliveries_max: How often a worker may have got the same record: 1 where none was killed or joined by another
            one, and Kafka was there all the time. None where nobody knows.
        kafka_lost: Whether Kafka lost records that it had acknowledged: then what was one transaction may be several.
    """
    ledger = Ledger(observed, Findings(), deliveries_max=deliveries_max)
    check_positions(ledger)
    replay(ledger)
    if published is not None:
        check_published(ledger, published)
    check_results(ledger)
    check_events(ledger)
    check_states(ledger)
    check_state(observed, ledger.oracle, ledger.findings)
    check_tables(observed, ledger.oracle, ledger.findings)
    check_parked(ledger)
    check_relay(ledger, kafka_lost=kafka_lost)
    ledger.findings.counts = {
        "commands": len(observed.commands),
        "journaled": len(observed.journal),
        "applied": sum(row.outcome == "applied" for row in observed.journal),
        "duplicates": ledger.duplicates.total(),
        "ids reused": ledger.reused.total(),
        "unreadable": len(ledger.unreadable),
        "results": len(observed.results),
        "events": len(observed.events),
        "states": len(observed.state),
        "organizations": len(ledger.oracle.state()),
    }
    return ledger.findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what stands in a database and its topics. Returns 0 when everything is exact."""
    parser = argparse.ArgumentParser(description="Check that log, journal, tables and topics agree.")
    parser.add_argument("--bootstrap", required=True, help="Kafka, as host:port")
    parser.add_argument("--database", required=True, help="postgresql://…, with rights to read all tables")
    parser.add_argument("--prefix", default="", help="before every topic name")
    parser.add_argument("--published", type=Path, help="JSON lines of the publishers")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    reader = TopicReader(options.bootstrap)
    try:
        observed = observe(reader, options.database, Topics(options.prefix))
    finally:
        reader.close()
    read_s = time.monotonic() - started
    findings = judge(observed, load(options.published) if options.published else None)
    print(findings.text())
    print(f"read in {read_s:.1f} s, judged in {time.monotonic() - started - read_s:.1f} s")
    return 0 if findings.ok else 1


if __name__ == "__main__":
    sys.exit(main())
