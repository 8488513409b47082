"""Logs and metrics: one place for their set-up and for every name.

Logs never hold a payload: ids, counts, coordinates, and of an exception its type and way only.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
from prometheus_client import Counter, Gauge, Histogram

from org_service.settings import Log

_FRAMES_MAX: Final = 8
"""Of an exception's way, the innermost: enough to find the place, few enough to read."""
_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24)

_DEFECTS: Final[dict[str, int]] = {}
"""How often each defect of ours was met by this process."""
_DEFECTS_MAX: Final = 1_000
"""Places in our code where something can raise; so many never do."""

COMMANDS: Final = Counter("orgs_commands_total", "Commands with an outcome, by outcome and code", ["outcome", "code"])
RECORDS_SKIPPED: Final = Counter(
    "orgs_records_skipped_total",
    "Records that changed nothing, by why: redelivered, duplicate, command_id_reused",
    ["why"],
)
PARKED: Final = Counter("orgs_parked_total", "Records set aside for an operator, by reason", ["reason"])
REFERENCE_RECORDS: Final = Counter(
    "orgs_reference_records_total",
    "Records of the reference topics, by topic and what became of them: applied, skipped, parked; and lacking: facts "
    "deleted because the topic, unread for too long, no longer held them",
    ["topic", "what"],
)
BATCH_SECONDS: Final = Histogram("orgs_worker_batch_seconds", "One batch: read, decide, commit", buckets=_SECONDS)
BATCH_RECORDS: Final = Histogram(
    "orgs_worker_batch_records", "Records in one batch", buckets=(1, 10, 50, 100, 250, 500, 1000, 2000, 5000, 10000)
)
BATCH_REPEATS: Final = Counter(
    "orgs_worker_batch_repeats_total",
    "Batches tried again, by why: outage, refold, halved (data refused), too_slow (halved), unknown",
    ["why"],
)
COMMANDS_LOST: Final = Counter(
    "orgs_commands_lost_total",
    "Ranges of orgs.commands that were gone before a worker read them, by why: expired, truncated, recreated; "
    "`orgs lost` lists them",
    ["why"],
)
PARTITIONS_HELD: Final = Gauge(
    "orgs_partitions_held",
    "Partitions whose readers wait for an open transaction, for longer than 5 s; the log and `/readyz` say whose it is",
    ["topic"],
)
CONSUMER_RESTARTS: Final = Counter(
    "orgs_worker_consumer_restarts_total", "Times the consume loop had to be started anew"
)
PARTITION_STUCK: Final = Gauge(
    "orgs_consumer_partition_stuck",
    "1 for a partition whose records can't be read, and which waits; absent when all is well",
    ["topic", "partition"],
)
RELAY_ROWS: Final = Counter("orgs_relay_rows_total", "Journal rows published")
RELAY_SECONDS: Final = Histogram("orgs_relay_transaction_seconds", "One Kafka transaction", buckets=_SECONDS)
RELAY_REBUILDS: Final = Counter(
    "orgs_relay_rebuilds_total", "Times the producer was thrown away and built anew, by why", ["why"]
)
RELAY_LEADER: Final = Gauge("orgs_relay_leader", "1 while this process is the leader, else 0")
RELAY_POSITION: Final = Gauge("orgs_relay_position", "The last journal position published")
RELAY_LAG_POSITIONS: Final = Gauge("orgs_relay_lag_positions", "Journal rows committed but not yet published")
RELAY_LAG_SECONDS: Final = Gauge("orgs_relay_lag_seconds", "Age of the oldest row not yet published; 0 when none")
KEYS_READS: Final = Counter(
    "orgs_keys_reads_total", "Times the issuer's keys were read, by what came of it: read, failed", ["what"]
)
KEYS_READ_AT: Final = Gauge(
    "orgs_keys_read_timestamp_seconds",
    "When the issuer's keys were last read with success, seconds since 1970; they are used for "
    "ORGS_AUTH__JWKS_STALE_MAX_S from then on",
)
HTTP_REQUESTS: Final = Counter(
    "orgs_http_requests_total",
    "Requests answered, by path template, method and status; 499 is a client that went away",
    ["route", "method", "status"],
)
HTTP_SECONDS: Final = Histogram(
    "orgs_http_request_seconds",
    "One request, from its headers to the last byte of the answer; a change waits for its outcome",
    ["route", "method"],
    buckets=(0.001, 0.0025, *_SECONDS),
)
HTTP_IN_HAND: Final = Gauge("orgs_http_requests_in_hand", "Callers' requests that came whole and are not answered yet")
HTTP_CONNECTIONS: Final = Gauge(
    "orgs_http_connections", "Connections by what they do: new, idle, head, active, writing, closing", ["state"]
)
HTTP_CLOSED: Final = Counter(
    "orgs_http_connections_closed_total",
    "Connections closed against the client's will, by why: late, idle, slow, malformed, full, address_full",
    ["why"],
)
HTTP_ACCEPTED: Final = Counter(
    "orgs_http_accepted_total", "Changes answered with 202, by why: asked_for, timed_out", ["why"]
)


def show_partition(at: tuple[str, int], sick: object | None) -> None:
    """Show that a partition can't be read, or that it can be read again; what a consumer's `on_sick` is for."""
    if sick is not None:
        PARTITION_STUCK.labels(*at).set(1)
    else:
        with suppress(KeyError):
            PARTITION_STUCK.remove(*at)


def set_up_logging(settings: Log) -> None:
    """Send structlog and the standard library's loggers to standard error in one form.

    May be called again; the last call counts.
    """
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=True),
        _exception_without_message,
        _event_first,
    ]
    last: list[Any] = [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a later set-up counts for loggers that were used before, too
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("aiokafka", "alembic", "asyncio", "httpx2", "mcp"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    # On a new cluster it reports an error a tenth of a second until the group's topic is there; "partitions assigned"
    # and /readyz tell whether the group works.
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the moment, not to what was when logging was set up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride] - as logging.lastResort does it
        return sys.stderr


def _exception_without_message(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Show an exception by its type and the way it came: its message, and local variables, may quote a payload."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()[1]
    elif isinstance(raised, tuple):
        raised = cast("tuple[Any, BaseException | None, Any]", raised)[1]
    if isinstance(raised, BaseException):
        frames = "".join(traceback.format_tb(raised.__traceback__, limit=-_FRAMES_MAX))
        event["exception"] = f"{frames}{type(raised).__module__}.{type(raised).__qualname__}"
    return event


def _event_first(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad and what, before the details: JSON lines are read by people too."""
    first = {name: event[name] for name in ("timestamp", "level", "event", "logger") if name in event}
    return {**first, **event}


def log_defect(log: structlog.stdlib.BoundLogger, event: str, defect: str, error: Exception, **details: Any) -> None:
    """Log what a defect of ours did to a record: the first time with its traceback, then at each power of ten.

    A defect that meets every command would else fill the disk with one traceback a command.

    Args:
        log: Of the caller.
        event: What became of the record.
        defect: Its type and place, the same each time.
        error: As it was raised.
        details: Of the record.
    """
    times = _DEFECTS[defect] = _DEFECTS.get(defect, 0) + 1
    if times == 1:
        log.error(event, defect=defect, exc_info=error, **details)
    elif 10 ** (len(str(times)) - 1) == times:
        log.error(event, defect=defect, times=times, last=details)
    if len(_DEFECTS) > _DEFECTS_MAX:
        _DEFECTS.clear()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes key-value pairs: `log.info("batch applied", records=1000)`."""
    return structlog.stdlib.get_logger(name)
