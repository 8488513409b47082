"""The group `console`."""

from pydantic import Field, SecretStr, field_validator

from org_service.settings.group import SettingsGroup
from org_service.settings.values import http_url


class ConsoleSettings(SettingsGroup):
    """The operators' page, at /console of the edge."""

    enabled: bool = Field(
        default=False,
        description="Serve the operators' page at /console. The edge's login must then be allowed to assume "
        "orgs_operate and orgs_reader",
    )
    url: str = Field(
        default="",
        description="URL at which browsers reach the edge (scheme, host and port), for sign-in and against requests "
        "of other origins; empty stands for the `Host` that a browser names, over http",
    )
    client_id: str = Field(
        default="", description="Client id of the page at the issuer (OpenID Connect); empty: nobody signs in there"
    )
    client_secret: SecretStr = Field(
        default=SecretStr(""), description="Its secret; empty for a public client, which PKCE alone protects"
    )
    discovery_url: str = Field(
        default="",
        description="Where the issuer describes itself; empty stands for ORGS_AUTH__ISSUER + "
        "/.well-known/openid-configuration",
    )
    scope: str = Field(default="openid", min_length=1, description="Scope that the page asks the issuer for")
    links: bool = Field(
        default=False,
        description="Accept the one-time links of `orgs console`. Whoever may write the database as an operator can "
        "make one: for the local stack",
    )
    link_ttl_s: float = Field(default=300, gt=0, le=3_600, description="How long a one-time link can be used")
    session_ttl_s: float = Field(
        default=28_800,
        ge=1,
        le=604_800,
        description="How long a sign-in lasts; who stops being staff is shut out at once",
    )
    issuer_timeout_s: float = Field(default=5, gt=0, le=60, description="Time-out of one request to the issuer")
    requests_max: int = Field(
        default=64, ge=4, le=10_000, description="Requests of the page in flight; more is a 503 at once"
    )
    plan_timeout_s: float = Field(
        default=20,
        gt=0,
        le=300,
        description="How long a form of the page may take to make its plan; what takes longer is planned with `orgs`",
    )
    sample_interval_s: float = Field(
        default=2,
        ge=0.2,
        le=60,
        description="How often the overview looks at the servers while somebody has it open, however many do",
    )

    @field_validator("url", "discovery_url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        return url and http_url(url).rstrip("/")
