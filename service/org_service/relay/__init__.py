"""Journal out: Postgres to Kafka, exactly once."""
