"""How records are sent: durable on every in-sync replica, in order, and once however often the client tries."""

from typing import Any

import pytest

from org_events.publishing import connection
from org_events.topics import Topics
from org_service.apply.replies import Replies
from org_service.kafka import connection as kafka_connection
from org_service.settings import Settings
from org_service.waiting import Heartbeat


@pytest.mark.parametrize("module", [connection, kafka_connection])
def test_commands_and_answers_are_sent_in_order_and_are_durable(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """aiokafka's defaults repeat and reorder what it sends again, and lose what only one replica has."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "AIOKafkaProducer", lambda **options: made.append(options))
    monkeypatch.setattr(module, "enduring", lambda client: client)
    if module is connection:
        connection.Connection("127.0.0.1:1", Topics(), {})._make_producer()
    else:
        Replies(Settings().kafka, (0.1, 5), Heartbeat())._publisher._make_producer()
    [options] = made
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
