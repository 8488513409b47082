"""The group `kafka`."""

import ssl
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from org_events.topics import DAY_MS, PARTITIONS, Topics
from org_service.settings.group import SettingsGroup
from org_service.settings.values import ADDRESS


class KafkaSettings(SettingsGroup):
    """How to reach Kafka, and the shape of its topics."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, comma-separated")
    topic_prefix: str = Field(default="", max_length=100, description="Prefix of every topic name, group and relay id")
    partitions: int = Field(
        default=PARTITIONS, ge=1, le=1000, description="Partitions of each data topic, when topics are created"
    )
    replication_factor: int = Field(
        default=-1,
        ge=-1,
        le=32767,
        description="Replicas of every topic, when topics are created; -1 uses the broker's default",
    )
    events_retention_ms: int = Field(
        default=90 * DAY_MS, ge=-1, description="Retention of orgs.events; -1 keeps them forever"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: str = Field(default="", description="PEM file; empty uses the system's certificate authorities")
    request_timeout_ms: int = Field(
        default=20_000,
        ge=1_000,
        le=300_000,
        description="Time-out of one request; a slower broker counts as unavailable",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_can_be_asked(cls, servers: str) -> str:
        for server in servers.split(","):
            if not server.strip() or not ADDRESS.fullmatch(server.strip()):
                raise ValueError("must be host:port, comma-separated")
        return servers

    @field_validator("topic_prefix")
    @classmethod
    def _topics_can_be_named(cls, prefix: str) -> str:
        return Topics(prefix).prefix

    @model_validator(mode="after")
    def _certificates_can_be_read(self) -> "KafkaSettings":
        """A wrong path would look like an outage, and be waited for."""
        try:
            self.ssl_context()
        except OSError as error:
            raise ValueError(f"ssl_ca_file {self.ssl_ca_file!r} cannot be read as PEM: {error}") from error
        return self

    @property
    def topics(self) -> Topics:
        """The names of all topics."""
        return Topics(self.topic_prefix)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of a connection; None where the protocol has no TLS.

        Raises:
            OSError, ssl.SSLError: `ssl_ca_file` can't be read.
        """
        if not self.security_protocol.endswith("SSL"):
            return None
        return ssl.create_default_context(cafile=self.ssl_ca_file or None)

    def connection(self) -> dict[str, Any]:
        """The connection arguments of every aiokafka client; raises as `ssl_context` does."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return arguments
