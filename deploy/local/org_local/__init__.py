"""Real Kafka and Postgres for development and tests."""
