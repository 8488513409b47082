"""The group `relay`."""

from pydantic import Field, model_validator

from org_service.settings.group import SettingsGroup
from org_service.settings.values import Port


class RelaySettings(SettingsGroup):
    """Journal out."""

    host: str = Field(default="127.0.0.1", description="Address of /livez, /readyz and /metrics")
    port: Port = Field(default=9102, description="Port of /livez, /readyz and /metrics; 0 for a free one")
    name: str = Field(
        default="orgs", min_length=1, max_length=100, description="Key of its position record, and its transactional id"
    )
    batch_rows_max: int = Field(default=4_000, ge=1, le=50_000, description="Journal rows in one Kafka transaction")
    poll_interval_s: float = Field(default=1, gt=0, le=60, description="Longest wait when no NOTIFY comes")
    transaction_timeout_ms: int = Field(
        default=60_000, ge=1_000, le=900_000, description="The broker aborts a transaction left open for this long"
    )
    publish_timeout_s: float = Field(
        default=30,
        gt=0,
        le=600,
        description="Time-out of one transaction; then its outcome is unknown and the producer is rebuilt",
    )
    retry_wait_s: float = Field(
        default=0.1, gt=0, le=60, description="First wait between retries in an outage; doubles, with jitter"
    )
    retry_wait_max_s: float = Field(default=5, gt=0, le=300, description="Longest wait between retries in an outage")
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails after the loop sent no heartbeat for this long"
    )

    @model_validator(mode="after")
    def _one_transaction_is_no_stall(self) -> "RelaySettings":
        if self.stalled_after_s <= self.publish_timeout_s:
            raise ValueError(
                "stalled_after_s must be more than publish_timeout_s: otherwise a slow broker causes a restart"
            )
        if self.transaction_timeout_ms < self.publish_timeout_s * 1000:
            raise ValueError(
                "transaction_timeout_ms must not be less than publish_timeout_s: otherwise the broker aborts a "
                "transaction in progress"
            )
        return self

    @property
    def retry_waits_s(self) -> tuple[float, float]:
        """The first and the longest pause between tries."""
        return self.retry_wait_s, self.retry_wait_max_s
