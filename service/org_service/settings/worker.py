"""The group `worker`."""

from pydantic import Field

from org_service.settings.group import SettingsGroup
from org_service.settings.values import Port


class WorkerSettings(SettingsGroup):
    """Commands in."""

    host: str = Field(default="127.0.0.1", description="Address of /livez, /readyz and /metrics")
    port: Port = Field(default=9101, description="Port of /livez, /readyz and /metrics; 0 for a free one")
    group_id: str = Field(default="orgs-worker", min_length=1, description="Consumer group, after the topic prefix")
    batch_records_max: int = Field(
        default=4_000, ge=1, le=10_000, description="Records in one batch; more gains little and delays the first"
    )
    lanes: int = Field(
        default=2, ge=1, le=8, description="Parallel transactions of one large batch, split by partition"
    )
    batch_timeout_ms: int = Field(
        default=10, ge=1, le=1_000, description="Wait for the first record; FastStream waits twice this when idle"
    )
    fetch_wait_ms: int = Field(
        default=100, ge=1, le=10_000, description="The broker's longest wait for data (long poll)"
    )
    partition_fetch_bytes_max: int = Field(
        default=1024 * 1024,
        ge=65_536,
        le=64 * 1024 * 1024,
        description="Bytes per partition and fetch; times the partitions, this bounds memory",
    )
    session_timeout_ms: int = Field(
        default=10_000,
        ge=6_000,
        le=300_000,
        description="A silent worker counts as dead after this; brokers accept 6 s or more",
    )
    poll_interval_max_ms: int = Field(
        default=300_000, ge=10_000, le=3_600_000, description="A worker whose batch takes longer loses its partitions"
    )
    queued_commands_max: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Commands of one organization that wait behind a parked one; more are rejected (409)",
    )
    retry_wait_s: float = Field(
        default=0.1, gt=0, le=60, description="First wait between retries in an outage; doubles, with jitter"
    )
    retry_wait_max_s: float = Field(default=5, gt=0, le=300, description="Longest wait between retries in an outage")
    breaker: bool = Field(
        default=True,
        description="Accept no commands while our own code fails on too many of them; if false, those are parked",
    )
    breaker_window_commands: int = Field(
        default=200, ge=20, le=100_000, description="The last commands that are judged together, at least a whole batch"
    )
    breaker_failures_min: int = Field(
        default=20, ge=1, le=100_000, description="Failures among these below which the breaker does not trip"
    )
    breaker_organizations_min: int = Field(
        default=5, ge=1, le=100_000, description="Organizations with failures below which the breaker does not trip"
    )
    breaker_failures_percent_max: float = Field(
        default=20, ge=0, lt=100, description="Share of failures up to which the breaker does not trip"
    )
    breaker_wait_s: float = Field(
        default=5, gt=0, le=600, description="First wait before commands are tried again after a trip; doubles"
    )
    breaker_wait_max_s: float = Field(
        default=300,
        gt=0,
        le=3_600,
        description="Longest wait between these tries; each moves partitions to this worker and back",
    )
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails after the consume loop sent no heartbeat for this long"
    )

    @property
    def retry_waits_s(self) -> tuple[float, float]:
        """The first and the longest pause between tries."""
        return self.retry_wait_s, self.retry_wait_max_s

    @property
    def breaker_waits_s(self) -> tuple[float, float]:
        """The first and the longest pause after the breaker tripped."""
        return self.breaker_wait_s, self.breaker_wait_max_s
