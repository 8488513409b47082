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
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails after the consume loop sent no heartbeat for this long"
    )

    @property
    def retry_waits_s(self) -> tuple[float, float]:
        """The first and the longest pause between tries."""
        return self.retry_wait_s, self.retry_wait_max_s
