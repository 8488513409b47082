"""The group `edge`."""

from typing import Annotated

from pydantic import Field, field_validator

from org_service.settings.group import SettingsGroup
from org_service.settings.values import FROM_JSON, Port, http_url


class EdgeSettings(SettingsGroup):
    """HTTP and MCP."""

    host: str = Field(default="127.0.0.1", description="Address of the API")
    port: Port = Field(default=9100, description="Port of the API; 0 for a free one")
    health_host: str = Field(
        default="127.0.0.1", description="Address of /livez, /readyz and /metrics, which are not for the API's clients"
    )
    health_port: Port = Field(default=9103, description="Port of /livez, /readyz and /metrics; 0 for a free one")
    public_url: str = Field(
        default="", description="URL at which clients reach the API, for links, if it differs from host and port"
    )
    outcome_timeout_s: float = Field(
        default=10, gt=0, le=120, description="How long a change waits for its outcome; then the response is 202"
    )
    body_bytes_max: int = Field(
        default=64 * 1024, ge=1_024, le=64 * 1024, description="Bytes of a request body; more is a 413"
    )
    header_bytes_max: int = Field(
        default=16 * 1024, ge=1_024, le=256 * 1024, description="Bytes of a request's headers; more is a 431"
    )
    rate_per_s: float = Field(
        default=50, gt=0, le=1_000_000, description="Requests per second of one actor, in each process; more is a 429"
    )
    rate_burst: int = Field(default=100, ge=1, le=1_000_000, description="Requests of one actor in a burst")
    concurrency_max: int = Field(
        default=1_000, ge=1, le=100_000, description="Requests in flight; more is a 503 at once"
    )
    connections_max: int = Field(
        default=10_000,
        ge=16,
        le=1_000_000,
        description="Client connections; beyond this, idle ones without an authenticated caller are closed "
        "first. Each needs a file descriptor and up to 0.3 MB",
    )
    address_connections_max: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Connections from one address, where clients connect directly; 0 sets no such limit, "
        "because behind a proxy all have one address",
    )
    cors_origins: Annotated[tuple[str, ...], *FROM_JSON] = Field(
        default=(), description="Allowed browser origins, as a JSON array"
    )
    stalled_after_s: float = Field(
        default=120, gt=0, le=3_600, description="/livez fails after the loop sent no heartbeat for this long"
    )

    @field_validator("public_url")
    @classmethod
    def _links_can_be_followed(cls, url: str) -> str:
        return url and http_url(url)

    @property
    def drain_timeout_s(self) -> float:
        """By then every request in flight is answered, a change with 202 at the latest."""
        return self.outcome_timeout_s + 1
