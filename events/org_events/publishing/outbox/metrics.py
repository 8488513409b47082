"""What a drain counts: handed to an object of the caller's, or to Prometheus where its client is installed."""

from functools import lru_cache
from typing import Protocol

try:
    import prometheus_client as prometheus
except ImportError:
    prometheus = None


class Metrics(Protocol):
    """Told what becomes of rows; must not raise."""

    def count_decided(self, outcome: str, waited_s: float) -> None:
        """A final outcome was written, so long after the row was enqueued."""
        ...

    def count_postponed(self, reason: str) -> None:
        """A row is to be tried again: `parked`, or the class of what was raised."""
        ...

    def show_waiting(self, rows: int, oldest_s: float, in_flight: int) -> None:
        """So many rows of all processes are undecided, and this process has so many of them in flight."""
        ...


class NoMetrics:
    """Counts nothing."""

    def count_decided(self, outcome: str, waited_s: float) -> None:
        """Nothing."""

    def count_postponed(self, reason: str) -> None:
        """Nothing."""

    def show_waiting(self, rows: int, oldest_s: float, in_flight: int) -> None:
        """Nothing."""


class PrometheusMetrics:
    """Counts in Prometheus' default registry: one a process."""

    def __init__(self) -> None:
        assert prometheus is not None
        self._decided = prometheus.Histogram(
            "org_outbox_decided_seconds", "From enqueueing to the final outcome in the row", ["outcome"]
        )
        self._postponed = prometheus.Counter(
            "org_outbox_postponed", "Rows to be tried again: parked, or what was raised", ["reason"]
        )
        self._waiting = prometheus.Gauge("org_outbox_waiting_rows", "Undecided rows of all processes")
        self._oldest = prometheus.Gauge("org_outbox_oldest_seconds", "How long the oldest undecided row waits")
        self._in_flight = prometheus.Gauge("org_outbox_in_flight_rows", "Rows that this process waits for")

    def count_decided(self, outcome: str, waited_s: float) -> None:
        """Observe it by outcome."""
        self._decided.labels(outcome).observe(waited_s)

    def count_postponed(self, reason: str) -> None:
        """Count it by reason."""
        self._postponed.labels(reason).inc()

    def show_waiting(self, rows: int, oldest_s: float, in_flight: int) -> None:
        """Set the gauges."""
        self._waiting.set(rows)
        self._oldest.set(oldest_s)
        self._in_flight.set(in_flight)


@lru_cache(1)
def usual_metrics() -> Metrics:
    """Prometheus, or none; always the same, because a registry has each name once."""
    return NoMetrics() if prometheus is None else PrometheusMetrics()
