"""The group `database`."""

from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator

from org_service.settings.group import SettingsGroup
from org_service.settings.values import ADDRESS


class DatabaseSettings(SettingsGroup):
    """How to reach Postgres."""

    url: SecretStr = Field(
        default=SecretStr("postgresql://localhost/orgs"), description="postgresql://user:password@host/db"
    )
    assume_role: bool = Field(
        default=True,
        description="SET ROLE to orgs_worker, orgs_relay, orgs_edge … on each connection; false if the login "
        "already has exactly those rights",
    )
    pool_size: int = Field(default=5, ge=1, le=100, description="Connections per process")
    connect_timeout_s: float = Field(default=10, gt=0, le=120, description="Time-out for opening a connection")
    statement_timeout_s: float = Field(
        default=30,
        gt=0,
        le=300,
        description="Time-out of one statement, which includes waiting for the locks of other workers' batches",
    )

    @property
    def address(self) -> str:
        """Where it is and who connects, for messages: never a password."""
        parts = urlsplit(self.url.get_secret_value())
        given = dict(parse_qsl(parts.query))
        user = parts.username or given.get("user")
        hosts = parts.netloc.rpartition("@")[2] or ":".join(filter(None, (given.get("host"), given.get("port"))))
        name = parts.path.removeprefix("/") or given.get("dbname", "")
        return f"{unquote(user)}@{unquote(hosts)}/{unquote(name)}" if user else f"{unquote(hosts)}/{unquote(name)}"

    @field_validator("url")
    @classmethod
    def _server_can_be_asked(cls, url: SecretStr) -> SecretStr:
        """Only what the driver trips over; it reads the rest. No error holds any of it."""
        try:
            parts = urlsplit(url.get_secret_value())
            servers = parts.netloc.rpartition("@")[2].split(",")
            good = parts.scheme in {"postgresql", "postgres"} and all(map(ADDRESS.fullmatch, servers))
        except ValueError:
            good = False
        if not good:
            raise ValueError("must be postgresql://user:password@host:port/database, with @ in a password as %40")
        return url
