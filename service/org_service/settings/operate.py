"""The group `operate`."""

from pydantic import Field

from org_service.settings.group import SettingsGroup
from org_service.settings.values import Port


class OperateSettings(SettingsGroup):
    """What operators plan and run."""

    host: str = Field(default="127.0.0.1", description="Address of /livez, /readyz and /metrics")
    port: Port = Field(default=9104, description="Port of /livez, /readyz and /metrics; 0 for a free one")
    approval_above: int = Field(
        default=10_000,
        ge=0,
        description="Plans of more items need the approval of a second person (`orgs approve`); 0 for all plans",
    )
    erase_grace_days: float = Field(
        default=30,
        ge=0,
        description="A deleted organization may be erased after this long (`orgs purge`), for good",
    )
    plan_ttl_s: float = Field(
        default=900, gt=0, le=86_400, description="A plan that was not run by then has to be made again"
    )
    lease_s: float = Field(
        default=15,
        ge=1,
        le=600,
        description="A run whose process was silent for this long may be resumed by another process",
    )
    poll_interval_s: float = Field(
        default=1, gt=0, le=60, description="How often the role `operate` looks for detached runs"
    )
    verify_interval_s: float = Field(
        default=0,
        ge=0,
        le=604_800,
        description="How long the role `operate`, and `orgs verify --continuous`, wait between verifications; 0: the "
        "role never verifies",
    )
    verify_processor_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Of one processor that the role's verifications may use, theirs in Postgres included",
    )
    retry_wait_s: float = Field(
        default=0.1, gt=0, le=60, description="First wait between retries in an outage; doubles, with jitter"
    )
    retry_wait_max_s: float = Field(default=5, gt=0, le=300, description="Longest wait between retries in an outage")
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails after the loop sent no heartbeat for this long"
    )

    @property
    def retry_waits_s(self) -> tuple[float, float]:
        """The first and the longest pause between tries."""
        return self.retry_wait_s, self.retry_wait_max_s
