"""Journal out: Postgres to Kafka, exactly once."""

from org_service.relay.relay import Relay, State

__all__ = ["Relay", "State"]
