"""Every metric, by name; `docs/metrics.md` is made from here."""

from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from org_service.domain.reasons import (
    AcceptReason,
    LossReason,
    ParkReason,
    RepeatReason,
    SkipReason,
    SpanFate,
    TripReason,
)

_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24)

COMMANDS: Final = Counter("orgs_commands_total", "Commands with an outcome, by outcome and code", ["outcome", "code"])
RECORDS_SKIPPED: Final = Counter(
    "orgs_records_skipped_total",
    f"Records that changed nothing, by reason: {', '.join(SkipReason)}",
    ["why"],
)
PARKED: Final = Counter("orgs_parked_total", "Records parked for an operator, by reason", ["reason"])
REFERENCE_RECORDS: Final = Counter(
    "orgs_reference_records_total",
    "Records of the reference topics, by topic and result: applied, skipped, parked; and lacking: facts "
    "deleted because the topic, unread for too long, no longer contained them",
    ["topic", "what"],
)
REFERENCE_LOSSES: Final = Counter(
    "orgs_reference_losses_total",
    "Partitions of reference topics that were recreated, or lost what was applied of them, and are applied again",
    ["topic"],
)
BATCH_SECONDS: Final = Histogram("orgs_worker_batch_seconds", "One batch: read, decide, commit", buckets=_SECONDS)
BATCH_RECORDS: Final = Histogram(
    "orgs_worker_batch_records", "Records in one batch", buckets=(1, 10, 50, 100, 250, 500, 1000, 2000, 5000, 10000)
)
BATCH_REPEATS: Final = Counter(
    "orgs_worker_batch_repeats_total",
    f"Retried batches, by reason: {RepeatReason.OUTAGE}, {RepeatReason.REFOLD}, {RepeatReason.HALVED} (data rejected), "
    f"{RepeatReason.TOO_SLOW} (halved), {RepeatReason.UNKNOWN}",
    ["why"],
)
BREAKER_OPEN: Final = Gauge(
    "orgs_worker_breaker_open",
    "1 while this worker leaves commands to others because our own code fails on too many of them, otherwise 0",
)
BREAKER_TRIPS: Final = Counter(
    "orgs_worker_breaker_trips_total",
    f"Batches given back because our own code fails on too many commands, by reason: {', '.join(TripReason)}",
    ["why"],
)
BREAKER_FAILURES: Final = Gauge(
    "orgs_worker_breaker_failures",
    "Commands among the last ones (ORGS_WORKER__BREAKER_WINDOW_COMMANDS) parked as defects",
)
COMMANDS_LOST: Final = Counter(
    "orgs_commands_lost_total",
    "Ranges of orgs.commands that were gone before a worker read them, by reason: "
    f"{', '.join(LossReason)}; `orgs lost` lists them",
    ["why"],
)
PARTITIONS_HELD: Final = Gauge(
    "orgs_partitions_held",
    "Partitions whose readers have waited for an open transaction for more than 5 s; the log and `/readyz` "
    "say whose it is",
    ["topic"],
)
CONSUMER_RESTARTS: Final = Counter("orgs_worker_consumer_restarts_total", "Restarts of the consume loop")
PARTITION_STUCK: Final = Gauge(
    "orgs_consumer_partition_stuck",
    "1 for a partition that waits because its records cannot be read; absent otherwise",
    ["topic", "partition"],
)
RELAY_ROWS: Final = Counter("orgs_relay_rows_total", "Journal rows published")
RELAY_SECONDS: Final = Histogram("orgs_relay_transaction_seconds", "One Kafka transaction", buckets=_SECONDS)
RELAY_REBUILDS: Final = Counter("orgs_relay_rebuilds_total", "Rebuilds of the producer, by reason", ["why"])
RELAY_LOSSES: Final = Counter(
    "orgs_relay_losses_total", "Partitions found to have lost records that Kafka had acknowledged", ["topic"]
)
RELAY_RESENT: Final = Counter("orgs_relay_resent_total", "Records sent again because Kafka had lost them", ["topic"])
RELAY_FOREIGN: Final = Counter(
    "orgs_relay_foreign_total", "Sightings of a record on the relay's topics that neither it nor a run wrote", ["topic"]
)
RELAY_LEADER: Final = Gauge("orgs_relay_leader", "1 while this process is the leader, otherwise 0")
RELAY_POSITION: Final = Gauge("orgs_relay_position", "The last journal position published")
RELAY_LAG_POSITIONS: Final = Gauge("orgs_relay_lag_positions", "Journal rows committed but not yet published")
RELAY_LAG_SECONDS: Final = Gauge(
    "orgs_relay_lag_seconds", "Age of the oldest row not yet published; 0 if there is none"
)
VERIFIED_THROUGH: Final = Gauge(
    "orgs_verified_through_position",
    "The journal position through which tables and topics were last found equal (ORGS_OPERATE__VERIFY_INTERVAL_S)",
)
VERIFIED_SECONDS: Final = Gauge("orgs_verified_seconds", "How long the last verification that came to an end took")
VERIFIED_ROUNDS: Final = Counter(
    "orgs_verifications_total",
    "Verifications, by verdict: equal, incomplete, inconclusive, differs, error",
    ["verdict"],
)
VERIFIED_DIFFERENCES: Final = Gauge(
    "orgs_verified_differences", "Differences that the last verification found, by kind", ["kind"]
)
GROUP_LAG_SECONDS: Final = Gauge(
    "orgs_group_lag_seconds",
    "Age of the oldest record of a topic that a consumer group has not read; 0 if it has read all. Of the role "
    "`operate`, each minute",
    ["group", "topic"],
)
GROUP_LOSS_SECONDS: Final = Gauge(
    "orgs_group_loss_seconds",
    "Until retention may take the oldest record of a topic that a consumer group has not read; absent if it has read "
    "all, or nothing is taken by age. Of the role `operate`, each minute",
    ["group", "topic"],
)
PARKED_LOSS_SECONDS: Final = Gauge(
    "orgs_parked_loss_seconds",
    "Until retention may take the original of the oldest record that is parked; absent if nothing is. Of the role "
    "`operate`, each minute",
    ["topic"],
)
KEYS_READS: Final = Counter("orgs_keys_reads_total", "Reads of the issuer's keys, by result: read, failed", ["what"])
KEYS_READ_AT: Final = Gauge(
    "orgs_keys_read_timestamp_seconds",
    "When the issuer's keys were last read successfully, in seconds since 1970; they stay in force for "
    "ORGS_AUTH__JWKS_STALE_MAX_S from then on",
)
HTTP_REQUESTS: Final = Counter(
    "orgs_http_requests_total",
    "Requests, by path template, method and status; 499 is a client that disconnected",
    ["route", "method", "status"],
)
HTTP_SECONDS: Final = Histogram(
    "orgs_http_request_seconds",
    "One request, from its headers to the last byte of the response; a change waits for its outcome",
    ["route", "method"],
    buckets=(0.001, 0.0025, *_SECONDS),
)
HTTP_IN_FLIGHT: Final = Gauge("orgs_http_requests_in_hand", "Requests received completely and not answered yet")
HTTP_CONNECTIONS: Final = Gauge(
    "orgs_http_connections", "Connections, by state: new, idle, head, active, writing, closing", ["state"]
)
HTTP_CLOSED: Final = Counter(
    "orgs_http_connections_closed_total",
    "Connections closed by the service, by reason: late, idle, slow, malformed, full, address_full",
    ["why"],
)
HTTP_ACCEPTED: Final = Counter(
    "orgs_http_accepted_total", f"Changes answered with 202, by reason: {', '.join(AcceptReason)}", ["why"]
)
SPANS: Final = Counter(
    "orgs_trace_spans_total", f"Spans that ended, by what became of them: {', '.join(SpanFate)}", ["what"]
)


def _begin_at_zero() -> None:
    """Of a series that begins at 1 Prometheus sees no increase: the first time would go unnoticed."""
    for counter, reasons in (
        (RECORDS_SKIPPED, SkipReason),
        (PARKED, ParkReason),
        (BATCH_REPEATS, RepeatReason),
        (BREAKER_TRIPS, TripReason),
        (COMMANDS_LOST, LossReason),
        (HTTP_ACCEPTED, AcceptReason),
        (SPANS, SpanFate),
    ):
        for reason in reasons:
            counter.labels(reason)


_begin_at_zero()


def show_partition(at: tuple[str, int], sick: object | None) -> None:
    """Show that a partition can't be read, or that it can be read again; what a consumer's `on_sick` is for."""
    if sick is not None:
        PARTITION_STUCK.labels(*at).set(1)
    else:
        with suppress(KeyError):
            PARTITION_STUCK.remove(*at)
