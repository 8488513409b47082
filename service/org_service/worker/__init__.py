"""Commands in: Kafka to Postgres."""
