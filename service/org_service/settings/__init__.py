"""Every setting, with unit, bound and reason. Environment variables: `ORGS_` + group + `__` + name.

`ORGS_KAFKA__BOOTSTRAP_SERVERS=broker:9092 ORGS_WORKER__BATCH_RECORDS_MAX=500 orgs serve --role worker`
"""

from org_service.settings.auth import AuthSettings
from org_service.settings.console import ConsoleSettings
from org_service.settings.database import DatabaseSettings
from org_service.settings.edge import EdgeSettings
from org_service.settings.kafka import KafkaSettings
from org_service.settings.log import LogSettings
from org_service.settings.operate import OperateSettings
from org_service.settings.relay import RelaySettings
from org_service.settings.settings import Settings
from org_service.settings.tracing import TracingSettings
from org_service.settings.values import as_text
from org_service.settings.worker import WorkerSettings

__all__ = [
    "AuthSettings",
    "ConsoleSettings",
    "DatabaseSettings",
    "EdgeSettings",
    "KafkaSettings",
    "LogSettings",
    "OperateSettings",
    "RelaySettings",
    "Settings",
    "TracingSettings",
    "WorkerSettings",
    "as_text",
]
