"""All groups together, as the environment says them."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from org_service.settings.auth import AuthSettings
from org_service.settings.console import ConsoleSettings
from org_service.settings.database import DatabaseSettings
from org_service.settings.edge import EdgeSettings
from org_service.settings.kafka import KafkaSettings
from org_service.settings.log import LogSettings
from org_service.settings.operate import OperateSettings
from org_service.settings.relay import RelaySettings
from org_service.settings.tracing import TracingSettings
from org_service.settings.values import http_url
from org_service.settings.worker import WorkerSettings


class Settings(BaseSettings):
    """All settings. Unknown names in a group are rejected, so that a typo can't pass."""

    model_config = SettingsConfigDict(env_prefix="ORGS_", env_nested_delimiter="__", frozen=True, extra="ignore")

    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    worker: WorkerSettings = WorkerSettings()
    relay: RelaySettings = RelaySettings()
    auth: AuthSettings = AuthSettings()
    edge: EdgeSettings = EdgeSettings()
    operate: OperateSettings = OperateSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    api_url: str = Field(default="http://127.0.0.1:9100", description="Where `orgs mcp` finds the HTTP API")
    token: SecretStr = Field(
        default=SecretStr(""), description="Token (JWT) that identifies the user of `orgs send` and `orgs mcp`"
    )
    drain_timeout_s: float = Field(
        default=6,
        gt=0,
        le=600,
        description="Time for worker and relay to finish what is in flight at SIGTERM; what is not finished "
        "then, in an outage, is released and redelivered. Set it 4 s below the orchestrator's grace "
        "period",
    )

    @property
    def worker_group(self) -> str:
        """The consumer group of the workers that read commands, as Kafka knows it."""
        return f"{self.kafka.topic_prefix}{self.worker.group_id}"

    @field_validator("token")
    @classmethod
    def _token_has_no_line_end(cls, token: SecretStr) -> SecretStr:
        """Files and secret stores leave one behind it."""
        return SecretStr(token.get_secret_value().strip())

    @field_validator("api_url")
    @classmethod
    def _api_can_be_asked(cls, url: str) -> str:
        return http_url(url)
