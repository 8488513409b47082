"""The group `tracing`."""

import json
from typing import Annotated, cast

from pydantic import Field, SecretStr, field_validator

from org_service.settings.group import SettingsGroup
from org_service.settings.values import FROM_JSON, http_url


class TracingSettings(SettingsGroup):
    """Which spans are made, and who gets them."""

    endpoint: str = Field(
        default="",
        description="Collector of traces (OTLP over HTTP), as the whole URL: http://collector:4318/v1/traces; empty "
        "makes no spans. Needs `org-service[tracing]`",
    )
    headers: SecretStr = Field(
        default=SecretStr(""), description="Headers of each export, as a JSON object of strings; a token, for example"
    )
    service_name: str = Field(default="orgs", min_length=1, max_length=100, description="`service.name` of all spans")
    resource: Annotated[tuple[str, ...], *FROM_JSON] = Field(
        default=(),
        description='More of the resource, as a JSON array: ["deployment.environment.name=production"]; '
        "OTEL_RESOURCE_ATTRIBUTES is read too",
    )
    ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the HTTP requests without a trace context that are traced; where there is one, its "
        "sampled flag decides",
    )
    sampled_per_s_max: float = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Requests, commands or events that a process traces a second, whatever their senders ask for",
    )
    queue_spans_max: int = Field(
        default=4_096, ge=256, le=100_000, description="Ended spans that wait for the collector; more are dropped"
    )
    timeout_s: float = Field(default=5, gt=0, le=60, description="Time-out of one export")

    @field_validator("endpoint")
    @classmethod
    def _collector_can_be_asked(cls, url: str) -> str:
        return http_url(url) if url.strip() else ""

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: SecretStr) -> SecretStr:
        read_headers(headers)
        return headers

    @field_validator("resource")
    @classmethod
    def _attributes_have_names(cls, resource: tuple[str, ...]) -> tuple[str, ...]:
        if not all(each.partition("=")[0] and "=" in each for each in resource):
            raise ValueError("must be name=value each")
        return resource


def read_headers(headers: SecretStr) -> dict[str, str]:
    """The headers of an export.

    Raises:
        ValueError: They are none; the message doesn't quote them.
    """
    text = headers.get_secret_value().strip()
    try:
        found: object = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(_is_header(*each) for each in cast("dict[str, object]", found).items()):
        raise ValueError('must be a JSON object of strings: {"authorization": "Bearer …"}')
    return cast("dict[str, str]", found)


def _is_header(name: str, value: object) -> bool:
    return (
        name.isascii()
        and name.replace("-", "").replace("_", "").isalnum()
        and isinstance(value, str)
        and value.isascii()
        and value.isprintable()
    )
