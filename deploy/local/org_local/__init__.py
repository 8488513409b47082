"""Real Kafka and Postgres for development and tests, without Docker, Java or root.

with org_local.start() as stack:
    print(stack.bootstrap_servers, stack.database_url)
"""

from org_local.errors import DataFolderInUseError, KafkaJarsUnavailableError, LocalStackError, ServerFailedError
from org_local.issuer import Issuer
from org_local.stack import Stack, start

__all__ = [
    "DataFolderInUseError",
    "Issuer",
    "KafkaJarsUnavailableError",
    "LocalStackError",
    "ServerFailedError",
    "Stack",
    "start",
]
